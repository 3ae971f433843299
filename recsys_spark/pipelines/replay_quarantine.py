"""Quarantined lines -> events and items, after the config or the file was mended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import date

import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.columns import (
    DELIVERY_DATE,
    DETAIL,
    HEADER,
    LINE_HASH,
    OCCURRENCE,
    RAW_LINE,
    REASON,
    SOURCE,
    SOURCE_FILE,
    Reason,
)
from recsys_spark.config import Config
from recsys_spark.config_sources import SourceConfig
from recsys_spark.data.sources import FILTER_RULE
from recsys_spark.infra import event_writer, files, item_writer, tables
from recsys_spark.infra.files import Delivery
from recsys_spark.infra.run_records import Feed, RunRecord, new_run, recorded
from recsys_spark.infra.session import persisted
from recsys_spark.log import log_step

_log = logging.getLogger(__name__)

REMOVED = "removed"
_SHOWN_BYTES = 500
_KEY = (SOURCE_FILE, LINE_HASH, OCCURRENCE)
_WRITERS: dict[Feed, Callable[[RunRecord, list[Delivery]], dict[str, float]]] = {
    "events": event_writer.write_deliveries,
    "items": item_writer.write_deliveries,
}
_PARSERS: dict[Feed, Callable[[list[DataFrame], Config], DataFrame]] = {
    "events": event_writer.parse,
    "items": item_writer.parse,
}


def replay_quarantine(
    spark: SparkSession, config: Config, run_date: date | None = None, feeds: Sequence[Feed] = ("events", "items")
) -> dict[str, float]:
    """Read the quarantined lines of the feeds again with today's config; lines that are good now leave the quarantine.

    With a run date only lines of that delivery date. A damaged file is read again as a whole: when it was mended or replaced
    its row leaves the quarantine, and lines saved from it before are left to the next replay. Gives the lines by bucket summed
    over the feeds, and the rows removed; what is still bad is `quarantined` and stays. No limit and no check stops a replay.
    Safe to repeat at any point.
    """
    total: dict[str, float] = {REMOVED: 0.0}
    for feed in feeds:
        with log_step("replay_quarantine", feed=feed) as facts:
            counts = _replay(spark, config, feed, run_date)
            facts.update(counts)
        for name, value in counts.items():
            total[name] = total.get(name, 0.0) + value
    return total


def quarantine_of(spark: SparkSession, config: Config, feed: Feed, run_date: date | None = None) -> DataFrame | None:
    """Give the quarantined lines of the feed's source, with a run date those of that delivery date; null when nothing ever was."""
    name = f"{feed}_quarantine"
    if not tables.table_exists(spark, config, name):
        return None
    source = config.sources.events if feed == "events" else config.sources.items
    lines = tables.read_table(spark, config, name, made_by=f"ingest_{feed}").where(F.col(SOURCE) == source.name)
    return lines if run_date is None else lines.where(F.col(DELIVERY_DATE) == F.lit(run_date))


def reason_counts(quarantine: DataFrame, reason: str | None) -> pd.DataFrame:
    """Give reason, detail, the number of lines and of files, the most frequent first; ties by name."""
    chosen = quarantine if reason is None else quarantine.where(F.col(REASON) == reason)
    counts = chosen.groupBy(REASON, DETAIL).agg(
        F.count("*").alias("lines"), F.count_distinct(SOURCE_FILE).alias("files")
    )
    return counts.orderBy(F.col("lines").desc(), REASON, DETAIL).toPandas()


def list_lines(quarantine: DataFrame, reason: str | None, limit: int, show_lines: bool) -> pd.DataFrame:
    """Give reason, detail, delivery date, file and line hash of at most limit lines; their text only when asked for."""
    chosen = quarantine if reason is None else quarantine.where(F.col(REASON) == reason)
    text = [F.decode(F.substring(RAW_LINE, 1, _SHOWN_BYTES), "UTF-8").alias("line")] if show_lines else []
    shown = chosen.orderBy(SOURCE_FILE, LINE_HASH, OCCURRENCE).limit(limit)
    return shown.select(REASON, DETAIL, DELIVERY_DATE, SOURCE_FILE, LINE_HASH, OCCURRENCE, *text).toPandas()


def _replay(spark: SparkSession, config: Config, feed: Feed, run_date: date | None) -> dict[str, float]:
    rows = quarantine_of(spark, config, feed, run_date)
    if rows is None:
        return {}
    source = config.sources.events if feed == "events" else config.sources.items
    # the limit is there to stop a delivery; these lines were judged before
    lenient = config.model_copy(update={"ingest": config.ingest.model_copy(update={"max_quarantined_share": 1.0})})
    with persisted(rows) as batch:
        mended = _mended_files(spark, source, batch)
        # what was saved of a file that is whole now comes with that file: beside itself it would count twice
        deliveries = _as_deliveries(batch.where(~F.col(SOURCE_FILE).isin(mended)), source)
        again = files.read_deliveries(spark, source, mended, run_date) if mended else []
        if not deliveries and not again:
            return {}
        run = new_run(f"{source.name}-replay", run_date)
        with recorded(spark, lenient, feed, run_date, run, is_replay=True) as record:
            counts = _WRITERS[feed](record, [*deliveries, *again])
        good = batch.where(F.col(SOURCE_FILE).isin(mended) & (F.col(REASON) == Reason.DAMAGED_FILE)).select(*_KEY)
        if deliveries:
            good = good.unionByName(_good_lines(lenient, feed, deliveries, batch))
        counts[REMOVED] = tables.delete_matching(spark, config, f"{feed}_quarantine", good)
    return counts


def _as_deliveries(batch: DataFrame, source: SourceConfig) -> list[Delivery]:
    """The quarantined lines, by the header under which they came; damaged files have no line to read."""
    lines = batch.where(F.col(REASON) != Reason.DAMAGED_FILE)
    counts = {row[HEADER]: row["count"] for row in lines.groupBy(HEADER).count().collect()}
    if source.format == "csv" and source.header is True and None in counts:
        _log.warning(
            "replay_without_header source=%s lines=%d: quarantined before headers were kept; they stay: ingest their files again",
            source.name, counts.pop(None),
        )  # fmt: skip
    return [
        Delivery(
            header, lines.where(F.col(HEADER).eqNullSafe(F.lit(header))).select(RAW_LINE, SOURCE_FILE, DELIVERY_DATE)
        )
        for header in sorted(counts, key=lambda header: header or "")
    ]


def _mended_files(spark: SparkSession, source: SourceConfig, batch: DataFrame) -> list[str]:
    """The files quarantined as damaged that are there and can be read to their end now."""
    rows = batch.where(F.col(REASON) == Reason.DAMAGED_FILE).select(SOURCE_FILE).distinct().collect()
    there = [row[0] for row in rows if files.list_files(spark, files.literal_paths([row[0]])[0])]
    damaged = files.find_damaged(spark, source, there)
    return sorted(set(there) - set(damaged))


def _good_lines(config: Config, feed: Feed, deliveries: list[Delivery], batch: DataFrame) -> DataFrame:
    """The keys of quarantined lines that have no fault any more. Equal lines of one file have equal faults."""
    source = config.sources.events if feed == "events" else config.sources.items
    parsed = _PARSERS[feed](event_writer.read_lines(deliveries, source), config)
    is_good = F.col(REASON).isNull() | F.col(FILTER_RULE).isNotNull()
    good = parsed.where(is_good).select(SOURCE_FILE, LINE_HASH).distinct()
    lines = batch.where(F.col(REASON) != Reason.DAMAGED_FILE)
    return lines.join(good, on=[SOURCE_FILE, LINE_HASH], how="left_semi").select(*_KEY)
