"""Raw behaviour logs -> events, with every physical line accounted for."""

from __future__ import annotations

from datetime import date

from pyspark.sql import SparkSession

from recsys_spark.config import Config
from recsys_spark.infra import files
from recsys_spark.infra.event_writer import write_deliveries
from recsys_spark.infra.run_records import new_run, recorded
from recsys_spark.log import log_step


def ingest_events(spark: SparkSession, config: Config, run_date: date | None = None) -> dict[str, float]:
    """Ingest the deliveries of the events source, of one day when a run date is given. Safe to repeat at any point.

    Gives the lines by bucket, `conflicts` (duplicates whose payload differs from the row that is kept) and the parts of the
    filtered and quarantined ones. Raises DataError when too large a share is quarantined or a configured check fails (then only
    the quarantine was written) or when the buckets do not add up to the lines read.
    """
    source = config.sources.events
    ingest_run = new_run(source.name, run_date)
    with (
        recorded(spark, config, "events", run_date, ingest_run) as record,
        log_step("ingest_events", source=source.name) as facts,
    ):
        found = files.find_deliveries(spark, source, run_date)
        counts = files.read_with_salvage(
            spark, source, found, run_date, lambda deliveries: write_deliveries(record, deliveries)
        )
        facts.update(counts)
    return counts
