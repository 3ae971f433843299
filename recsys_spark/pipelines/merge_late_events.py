"""Late events -> events: what came after the horizon joins the table when somebody decides so."""

from __future__ import annotations

from datetime import date

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys_spark.columns import EVENT_DATE, EVENT_ID, PAYLOAD_HASH, READ, Bucket
from recsys_spark.config import Config
from recsys_spark.data import dedupe
from recsys_spark.infra import tables
from recsys_spark.infra.event_writer import merge_events
from recsys_spark.infra.run_records import new_run
from recsys_spark.infra.session import persisted
from recsys_spark.log import log_step

REMOVED = "removed"


def merge_late_events(spark: SparkSession, config: Config, run_date: date | None = None) -> dict[str, float]:
    """Merge the rows of events_late (of event dates before the run date, when one is given) into events and take them out.

    Gives read = inserted + duplicate, conflicts, and the rows removed from events_late. Insert first, remove then: a run that
    was stopped in between is repeated and finds its rows as duplicates. Rows that arrive meanwhile stay for the next run.
    """
    with log_step("merge_late_events") as facts:
        counts = _merge(spark, config, run_date)
        facts.update(counts)
    return counts


def _merge(spark: SparkSession, config: Config, run_date: date | None) -> dict[str, float]:
    nothing = {READ: 0.0, Bucket.INSERTED: 0.0, Bucket.DUPLICATE: 0.0, "conflicts": 0.0, REMOVED: 0.0}
    if not tables.table_exists(spark, config, "events_late"):
        return nothing
    late = tables.read_table(spark, config, "events_late", made_by="ingest_events")
    if run_date is not None:
        late = late.where(F.col(EVENT_DATE) < F.lit(run_date))
    with persisted(late.withColumn(PAYLOAD_HASH, dedupe.payload_hash())) as rows:
        read, first, last = rows.agg(F.count("*"), F.min(EVENT_DATE), F.max(EVENT_DATE)).collect()[0]
        if not read:
            return nothing
        tables.ensure_table(spark, config, "events")
        merged = merge_events(spark, config, rows, read, (first, last), new_run("late", run_date))
        removed = tables.delete_matching(spark, config, "events_late", rows.select(EVENT_ID))
    kept = {name: merged[name] for name in (Bucket.INSERTED, Bucket.DUPLICATE, "conflicts")}
    return {READ: float(read), **kept, REMOVED: float(removed)}
