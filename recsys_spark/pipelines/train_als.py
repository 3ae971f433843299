"""Interactions -> ALS factors of users and items."""

from __future__ import annotations

from datetime import date

from pyspark.sql import SparkSession

from recsys_spark.columns import ITEM_ID, ITEM_IDX, USER_ID, USER_IDX, VECTOR
from recsys_spark.config import Config
from recsys_spark.data.split import count_events_per_day, split_dates
from recsys_spark.infra import tables
from recsys_spark.infra.session import persisted
from recsys_spark.log import log_step
from recsys_spark.models.als import check_factors, fit_als
from recsys_spark.models.version import model_version

MODEL = "als"


def train_als(spark: SparkSession, config: Config, run_date: date | None = None) -> dict[str, float]:
    """Replace the user and item vectors of ALS for one cutoff (null: the split's test_start).

    Raises TrainingError when a factor is not finite; what was there before is kept then.
    """
    events = tables.read_table(spark, config, "events", made_by="ingest_events")
    cutoff = run_date or split_dates(count_events_per_day(events), config.split).test_start
    user_index = tables.read_table(spark, config, "user_index", made_by="build_interactions")
    item_index = tables.read_table(spark, config, "item_index", made_by="build_interactions")
    interactions = tables.read_cutoff(spark, config, cutoff)
    version = model_version(
        MODEL, cutoff, tables.delta_version(spark, config, "events"), config.als, config.interactions, config.cleaning
    )
    with log_step("train_als", cutoff=cutoff, rank=config.als.rank, iterations=config.als.max_iter) as facts:
        indexed = interactions.join(user_index, on=USER_ID, how="inner").join(item_index, on=ITEM_ID, how="inner")
        user_factors, item_factors = fit_als(indexed, config.als)
        users = user_factors.join(user_index, on=USER_IDX, how="inner").select(USER_ID, VECTOR)
        items = item_factors.join(item_index, on=ITEM_IDX, how="inner").select(ITEM_ID, VECTOR)
        with persisted(users) as users, persisted(items) as items:
            check_factors(users, "users")
            check_factors(items, "items")
            tables.replace_model(spark, config, "user_vectors", users, MODEL, version, cutoff)
            tables.replace_model(spark, config, "item_vectors", items, MODEL, version, cutoff)
            facts["users"], facts["items"] = users.count(), items.count()
    return {"users": float(str(facts["users"])), "items": float(str(facts["items"]))}
