"""Raw behaviour logs -> events, with every physical line accounted for."""

from __future__ import annotations

import uuid
from datetime import date
from functools import reduce

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.columns import BUCKET, EVENT_DATE, EVENT_ID, INGEST_RUN, PAYLOAD_HASH, Bucket
from recsys_spark.config import Config
from recsys_spark.data import dedupe, events, outcome, sources
from recsys_spark.errors import DataError
from recsys_spark.infra import files, tables
from recsys_spark.infra.session import input_errors_explained, persisted
from recsys_spark.log import log_step
from recsys_spark.schemas import EVENTS

CONFLICTS = "conflicts"


def ingest_events(spark: SparkSession, config: Config, run_date: date | None = None) -> dict[str, float]:
    """Ingest the deliveries of the events source, of one day when a run date is given. Safe to repeat at any point.

    Gives the lines by bucket, `conflicts` (duplicates whose payload differs from the row that is kept) and the parts of the
    filtered and quarantined ones. Raises DataError when too large a share is quarantined (then only the quarantine was
    written) or when the buckets do not add up to the lines read.
    """
    source = config.sources.events
    ingest_run = f"{source.name}-{run_date or 'all'}-{uuid.uuid4().hex[:8]}"
    with input_errors_explained(source.name):
        deliveries = files.read_deliveries(spark, source, run_date)
        lines = [sources.parse_lines(d.lines, source, d.header) for d in deliveries]
        parsed = reduce(DataFrame.unionByName, [events.parse_events(part, source) for part in lines])
        sorted_lines = dedupe.sort_into_buckets(parsed, config.ingest).withColumn(INGEST_RUN, F.lit(ingest_run))

    with log_step("ingest_events", source=source.name) as facts, persisted(sorted_lines) as batch:
        with input_errors_explained(source.name):
            counts = outcome.bucket_counts(outcome.count_lines(batch).collect())
        if counts[Bucket.QUARANTINED]:
            tables.merge_new(spark, config, "events_quarantine", outcome.quarantine_rows(batch))
        outcome.check_quarantined_share(counts, config.ingest.max_quarantined_share, source.name, "events_quarantine")
        if counts[Bucket.LATE]:
            late = batch.where(F.col(BUCKET) == Bucket.LATE).select(*EVENTS.fieldNames())
            tables.merge_new(spark, config, "events_late", late)
        counts |= _merge_events(spark, config, batch, counts)
        counts["read"] = sum(part.count() for part in lines)
        outcome.check_conservation(counts, int(counts["read"]), source.name)
        facts.update(counts)
    return counts


def _merge_events(spark: SparkSession, config: Config, batch: DataFrame, counts: dict[str, float]) -> dict[str, float]:
    """Merge the batch's winners; give the counts that only the table can tell."""
    tables.ensure_table(spark, config, "events")
    conflicts = batch.where(F.col(dedupe.IS_CONFLICT)).count()
    winners = batch.where(F.col(BUCKET) == Bucket.INSERTED)
    if not counts[Bucket.INSERTED]:
        return {CONFLICTS: conflicts}
    first, last = winners.agg(F.min(EVENT_DATE), F.max(EVENT_DATE)).collect()[0]
    bounds = (EVENT_DATE, *dedupe.lookup_bounds(first, last, config.ingest))
    inserted = tables.merge_new(spark, config, "events", winners.select(*EVENTS.fieldNames()), bounds)
    known = counts[Bucket.INSERTED] - inserted
    if known:
        conflicts += _conflicts_with_table(spark, config, winners, bounds)
    return {Bucket.INSERTED: inserted, Bucket.DUPLICATE: counts[Bucket.DUPLICATE] + known, CONFLICTS: conflicts}


def _conflicts_with_table(
    spark: SparkSession, config: Config, winners: DataFrame, bounds: tuple[str, date, date]
) -> int:
    """Count the winners whose stored row says something else; every winner must be in the table by now."""
    column, first, last = bounds
    stored = tables.read_table(spark, config, "events", made_by="ingest_events")
    stored = stored.where(F.col(column).between(F.lit(first), F.lit(last)))
    stored = stored.select(EVENT_ID, dedupe.payload_hash().alias("_stored"))
    looked_up = winners.select(EVENT_ID, PAYLOAD_HASH).join(stored, on=EVENT_ID, how="left")
    differs = F.count_if(F.col(PAYLOAD_HASH) != F.col("_stored"))
    missing, conflicts = looked_up.agg(F.count_if(F.col("_stored").isNull()), differs).collect()[0]
    if missing:
        raise DataError(
            f"{missing} events of this batch are not in the events table after the merge; run the job again"
        )
    return int(conflicts)
