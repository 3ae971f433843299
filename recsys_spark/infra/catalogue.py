"""The items that may be listed at a cutoff."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.columns import ITEM_ID, MODEL, RUN_DATE
from recsys_spark.config import Config
from recsys_spark.infra import tables

LISTS_COLD_ITEMS = ("feature_factors",)
"""Models that may have vectors of items without interactions."""


def read_catalogue(
    spark: SparkSession, config: Config, interactions: DataFrame, models: Iterable[str], cutoff: date
) -> DataFrame:
    """Give item_id of the items of the interactions, and of the cold items that one of the models has a vector for.

    A model that has no vector or neighbour for an item does not list it, so cold items change nothing for other models.
    """
    warm = interactions.select(ITEM_ID).distinct()
    of_models = [model for model in models if model in LISTS_COLD_ITEMS]
    if not of_models:
        return warm
    vectors = tables.read_table(spark, config, "item_vectors", made_by=f"train_{of_models[0]}")
    known = vectors.where((F.col(RUN_DATE) == F.lit(cutoff)) & F.col(MODEL).isin(of_models))
    return warm.unionByName(known.select(ITEM_ID)).distinct()
