"""Item feed -> items: new ones inserted, newer ones replaced, with every physical line accounted for."""

from __future__ import annotations

from datetime import date

from pyspark.sql import SparkSession

from recsys_spark.config import Config
from recsys_spark.infra import files
from recsys_spark.infra.item_writer import write_deliveries
from recsys_spark.infra.run_records import new_run, recorded
from recsys_spark.log import log_step


def ingest_items(spark: SparkSession, config: Config, run_date: date | None = None) -> dict[str, float]:
    """Ingest the deliveries of the item feed, of one day when a run date is given. Safe to repeat at any point.

    Gives the lines by bucket: inserted (new items), updated (newer and different), duplicate (nothing new), filtered and
    quarantined. Raises DataError as `ingest_events` does.
    """
    source = config.sources.items
    ingest_run = new_run(source.name, run_date)
    with (
        recorded(spark, config, "items", run_date, ingest_run) as record,
        log_step("ingest_items", source=source.name) as facts,
    ):
        found = files.find_deliveries(spark, source, run_date)
        counts = files.read_with_salvage(
            spark, source, found, run_date, lambda deliveries: write_deliveries(record, deliveries)
        )
        facts.update(counts)
    return counts
