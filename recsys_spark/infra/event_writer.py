"""Parsed event lines -> the tables events, events_late and events_quarantine: one way in for deliveries and for replays."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from datetime import date, timedelta
from functools import reduce

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.columns import (
    BUCKET,
    DELIVERY_DATE,
    EVENT_DATE,
    EVENT_ID,
    INGEST_RUN,
    PAYLOAD_HASH,
    READ,
    Bucket,
    Reason,
)
from recsys_spark.config import Config
from recsys_spark.config_sources import SourceConfig
from recsys_spark.data import checks, dedupe, outcome, sources
from recsys_spark.data.checks import BatchProfile
from recsys_spark.data.erased import leave_out_erased
from recsys_spark.data.events import parse_events
from recsys_spark.errors import DataError, SchemaError
from recsys_spark.infra import run_records, tables
from recsys_spark.infra.erased import read_erased
from recsys_spark.infra.files import Delivery
from recsys_spark.infra.run_records import RunRecord
from recsys_spark.infra.session import input_errors_explained, persisted
from recsys_spark.schemas import EVENTS

_log = logging.getLogger(__name__)

CONFLICTS = "conflicts"
_SECONDS_PER_DAY = 86_400
_TYPE_FAULTS = (Reason.WRONG_TYPE, Reason.NESTED_VALUE, Reason.BAD_TIMESTAMP)


def read_lines(deliveries: Iterable[Delivery], source: SourceConfig) -> list[DataFrame]:
    """Give the lines of each delivery, split into fields; a damaged file is one line.

    Raises SchemaError for headers that cannot be used; it names every such header's first file and says how many share it.
    """
    lines, refused = [], []
    for delivery in deliveries:
        if delivery.is_damage:
            lines.append(sources.damaged_files(delivery.lines))
            continue
        try:
            lines.append(sources.parse_lines(delivery.lines, source, delivery.header))
        except SchemaError as error:
            others = f" and {len(delivery.files) - 1} more files" if len(delivery.files) > 1 else ""
            refused.append(f"{delivery.files[0]}{others}: {error}" if delivery.files else str(error))
    if refused:
        raise SchemaError(" | ".join(refused) + "; nothing of this run was written: mend these files or move them away")
    return lines


def parse(lines: list[DataFrame], config: Config) -> DataFrame:
    """Give the events of split lines, with a reason for every line that is none."""
    return reduce(DataFrame.unionByName, [parse_events(part, config.sources.events, config.ingest) for part in lines])


def write_deliveries(record: RunRecord, deliveries: Iterable[Delivery]) -> dict[str, float]:
    """Sort the lines of deliveries into buckets and write each where it belongs; give the lines by bucket, read and conflicts.

    Order of writes: quarantine, then the checks that may stop the run, then late events, then events. Raises DataError when too
    large a share is quarantined or a check fails (then only the quarantine was written), or when the sum does not hold.
    """
    spark, config, source = record.spark, record.config, record.config.sources.events
    with input_errors_explained(source.name):
        lines = read_lines(deliveries, source)
        parsed = parse(lines, config)
        erased = read_erased(spark, config)
        kept = parsed if erased is None else leave_out_erased(parsed, erased.rows, erased.salt)
        sorted_lines = dedupe.sort_into_buckets(kept, config.ingest)
    with persisted(sorted_lines) as batch:
        with input_errors_explained(source.name):
            counts = run_records.profile_batch(record, batch)
        if config.ingest.near_duplicate_seconds > 0 and counts[Bucket.INSERTED]:
            with persisted(_near_stored_marked(record, batch)) as batch:
                counts = _write_batch(record, batch, run_records.profile_batch(record, batch))
        else:
            counts = _write_batch(record, batch, counts)
        counts[READ] = sum(part.count() for part in lines)
    outcome.check_conservation(counts, int(counts[READ]), source.name)
    run_records.check_written(record, counts)
    return counts


def _write_batch(record: RunRecord, batch: DataFrame, counts: dict[str, float]) -> dict[str, float]:
    spark, config, source = record.spark, record.config, record.config.sources.events
    named = batch.withColumn(INGEST_RUN, F.lit(record.ingest_run))
    profile = _profile(record)
    warn_of_changed_types(source.name, profile)
    if counts[Bucket.QUARANTINED]:
        write_quarantine(record, named)
    outcome.check_quarantined_share(counts, config.ingest.max_quarantined_share, source.name, "events_quarantine")
    run_records.check_batch(record)
    conflicts = batch.where(F.col(dedupe.IS_CONFLICT)).count() if counts[Bucket.DUPLICATE] else 0
    if counts[Bucket.LATE]:
        late = named.where(F.col(BUCKET) == Bucket.LATE)
        added = tables.merge_new(spark, config, "events_late", late.select(*EVENTS.fieldNames()))
        if added < counts[Bucket.LATE]:
            conflicts += _late_conflicts(spark, config, late)
    tables.ensure_table(spark, config, "events")
    if profile.new_days is None:
        return {**counts, CONFLICTS: conflicts}
    winners = named.where(F.col(BUCKET) == Bucket.INSERTED)
    merged = merge_events(spark, config, winners, int(counts[Bucket.INSERTED]), profile.new_days, record.ingest_run)
    merged[Bucket.DUPLICATE] += counts[Bucket.DUPLICATE]
    merged[CONFLICTS] += conflicts
    return {**counts, **merged}


def merge_events(
    spark: SparkSession, config: Config, winners: DataFrame, asked: int, days: tuple[date, date], ingest_run: str
) -> dict[str, float]:
    """Insert the events that the table lacks; give how many were inserted, how many were there, and how many of those differ.

    Needs the columns of the events table and payload_hash: asked rows, one per event_id, with dates from days[0] to days[1].
    `known_elsewhere` are those of the rows found that neither this source's runs of the same date wrote nor its replays.
    """
    bounds = (EVENT_DATE, *dedupe.lookup_bounds(*days, config.ingest))
    inserted = tables.merge_new(spark, config, "events", winners.select(*EVENTS.fieldNames()), bounds)
    known = asked - inserted
    found = {
        Bucket.INSERTED: float(inserted),
        Bucket.DUPLICATE: float(known),
        CONFLICTS: 0.0,
        checks.KNOWN_ELSEWHERE: 0.0,
    }
    if not known:
        return found
    column, first, last = bounds
    stored = tables.read_table(spark, config, "events", made_by="ingest_events")
    stored = stored.where(F.col(column).between(F.lit(first), F.lit(last)))
    stored = stored.select(EVENT_ID, dedupe.payload_hash().alias("_stored"), F.col(INGEST_RUN).alias("_by"))
    looked_up = winners.select(EVENT_ID, PAYLOAD_HASH).join(stored, on=EVENT_ID, how="left")
    # a replay stored what this date's own runs had quarantined
    own = (ingest_run.rsplit("-", 1)[0] + "-", f"{config.sources.events.name}-replay-")
    is_elsewhere = ~(F.startswith("_by", F.lit(own[0])) | F.startswith("_by", F.lit(own[1])))
    # two stored copies further apart than the horizon are allowed, and an event between them meets both: it is one line
    one_each = looked_up.groupBy(EVENT_ID).agg(
        F.bool_or(F.col("_stored").isNull()).alias("_missing"),
        F.bool_or(F.col(PAYLOAD_HASH) != F.col("_stored")).alias("_differs"),
        F.bool_or(is_elsewhere).alias("_elsewhere"),
    )
    missing, conflicts, elsewhere = one_each.agg(
        *[F.count_if(F.col(name)) for name in ("_missing", "_differs", "_elsewhere")]
    ).collect()[0]
    if missing:
        raise DataError(
            f"{missing} events of this batch are not in the events table after the merge; run the job again"
        )
    return {**found, CONFLICTS: float(conflicts), checks.KNOWN_ELSEWHERE: float(elsewhere)}


def _late_conflicts(spark: SparkSession, config: Config, late: DataFrame) -> int:
    """Count the late lines whose event is in events_late with another payload, which is the one that stays."""
    stored = tables.read_table(spark, config, "events_late", made_by="ingest_events")
    stored = stored.select(EVENT_ID, dedupe.payload_hash().alias("_stored"))
    known = late.select(EVENT_ID, PAYLOAD_HASH).join(stored, on=EVENT_ID, how="inner")
    return known.where(F.col(PAYLOAD_HASH) != F.col("_stored")).count()


def write_quarantine(record: RunRecord, batch: DataFrame) -> None:
    """Keep the quarantined lines of a batch (with ingest_run) in the feed's quarantine; lines that are there stay as they are.

    They are looked up among those of the same delivery dates only, where a date is read from the file's name and so is as
    fixed as the line's key: the cost does not grow with years of quarantine.
    """
    rows, bounds = outcome.quarantine_rows(batch), None
    if record.source.date_pattern is not None:
        first, last, dated, lines = rows.agg(
            F.min(DELIVERY_DATE), F.max(DELIVERY_DATE), F.count(DELIVERY_DATE), F.count("*")
        ).collect()[0]
        bounds = (DELIVERY_DATE, first, last) if dated == lines else None
    tables.merge_new(record.spark, record.config, f"{record.feed}_quarantine", rows, bounds)


def warn_of_changed_types(source: str, profile: BatchProfile) -> None:
    """Log a warning per column whose values did not have the type that the config says; it names the column, never a value."""
    for (reason, column), lines in sorted(profile.faults.items(), key=str):
        if reason in _TYPE_FAULTS:
            _log.warning(
                "field_type source=%s column=%s reason=%s lines=%d share=%.4f",
                source,
                column,
                reason,
                lines,
                lines / profile.read,
            )


def _near_stored_marked(record: RunRecord, batch: DataFrame) -> DataFrame:
    """Look the batch's new events up among the stored ones of the days around them."""
    spark, config = record.spark, record.config
    days = _profile(record).new_days
    if days is None or not tables.table_exists(spark, config, "events"):
        return batch
    around = timedelta(days=math.ceil(config.ingest.near_duplicate_seconds / _SECONDS_PER_DAY))
    first, last = dedupe.lookup_bounds(*days, config.ingest)
    first, last = min(first, days[0] - around), max(last, days[1] + around)
    stored = tables.read_table(spark, config, "events", made_by="ingest_events")
    stored = stored.where(F.col(EVENT_DATE).between(F.lit(first), F.lit(last)))
    return dedupe.mark_near_stored(batch, stored, config.ingest.near_duplicate_seconds)


def _profile(record: RunRecord) -> BatchProfile:
    assert record.profile is not None  # profile_batch was called
    return record.profile
