"""Events before the cutoff -> the two popularity models, over all time and over the last days."""

from __future__ import annotations

from datetime import date

from pyspark.sql import SparkSession

from recsys_spark.columns import ITEM_ID
from recsys_spark.config import Config
from recsys_spark.data.cleaning import without_robots
from recsys_spark.data.interactions import counted_events
from recsys_spark.data.split import count_events_per_day, events_before, split_dates
from recsys_spark.infra import tables
from recsys_spark.log import log_step
from recsys_spark.models.popular import popular_item_vectors
from recsys_spark.models.version import model_version


def train_popular(spark: SparkSession, config: Config, run_date: date | None = None) -> dict[str, float]:
    """Replace the item vectors of popular and popular_recent for one cutoff (null: the split's test_start)."""
    events = tables.read_table(spark, config, "events", made_by="ingest_events")
    cutoff = run_date or split_dates(count_events_per_day(events), config.split).test_start
    catalogue = tables.read_cutoff(spark, config, cutoff).select(ITEM_ID).distinct()
    # robots are judged by all that they did before the cutoff; without a limit this is the table as it is
    people = without_robots(events_before(events, cutoff), config.cleaning)
    counted = counted_events(people, config.interactions)
    events_version = tables.delta_version(spark, config, "events")
    with log_step("train_popular", cutoff=cutoff):
        for model, last_days in (("popular", None), ("popular_recent", config.popular.recent_days)):
            version = model_version(model, cutoff, events_version, config.popular, config.interactions, config.cleaning)
            vectors = popular_item_vectors(counted, catalogue, cutoff, last_days)
            tables.replace_model(spark, config, "item_vectors", vectors, model, version, cutoff)
    return {}
