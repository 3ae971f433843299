"""Interactions -> the nearest neighbours of every user."""

from __future__ import annotations

from datetime import date

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys_spark.columns import ITEM_ID, NEIGHBOUR_USER_ID, USER_ID, USER_IDX, WEIGHT
from recsys_spark.config import Config
from recsys_spark.data.split import count_events_per_day, split_dates
from recsys_spark.infra import tables
from recsys_spark.infra.session import persisted
from recsys_spark.log import log_step
from recsys_spark.models import neighbour_blocks as blocks
from recsys_spark.models.neighbours import Similarity
from recsys_spark.models.recommend import POSITION, catalogue_positions, collect_catalogue
from recsys_spark.models.version import model_version

MODEL = "user_neighbours"


def train_user_neighbours(spark: SparkSession, config: Config, run_date: date | None = None) -> dict[str, float]:
    """Replace the user neighbours of one cutoff (null: the split's test_start).

    Users are compared by log(1 + weight) of their items, block by block as the items of `train_neighbours`.
    """
    events = tables.read_table(spark, config, "events", made_by="ingest_events")
    cutoff = run_date or split_dates(count_events_per_day(events), config.split).test_start
    user_index = tables.read_table(spark, config, "user_index", made_by="build_interactions")
    interactions = tables.read_cutoff(spark, config, cutoff)
    settings = config.user_neighbours
    version = model_version(
        MODEL, cutoff, tables.delta_version(spark, config, "events"), settings, config.interactions, config.cleaning
    )
    with log_step("train_user_neighbours", cutoff=cutoff) as facts:
        item_ids = collect_catalogue(interactions)
        positions = catalogue_positions(spark, item_ids)
        indexed = interactions.join(user_index, on=USER_ID, how="inner").join(positions, on=ITEM_ID, how="inner")
        entries = indexed.select(
            F.col(USER_IDX).alias(blocks.ROW),
            F.col(POSITION).alias(blocks.COLUMN),
            F.log1p(WEIGHT).cast("float").alias(blocks.VALUE),
        )
        with persisted(entries) as entries:
            starts = blocks.block_starts(entries, user_index.count(), settings.num_neighbours, settings.max_block_bytes)
            similarity = Similarity(settings.similarity, settings.shrink, num_columns=len(item_ids))
            found = blocks.nearest_neighbours(
                entries, starts, settings.num_neighbours, similarity, settings.max_block_bytes
            )
            users = user_index.select(F.col(USER_IDX).alias(blocks.ROW), USER_ID)
            others = user_index.select(F.col(USER_IDX).alias(blocks.NEIGHBOUR), F.col(USER_ID).alias(NEIGHBOUR_USER_ID))
            named = found.join(users, on=blocks.ROW, how="inner").join(others, on=blocks.NEIGHBOUR, how="inner")
            tables.replace_model(spark, config, "user_neighbours", named, MODEL, version, cutoff)
        facts["blocks"] = len(starts)
    return {"blocks": len(starts)}
