"""Interactions -> the nearest neighbours of every item."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession
from scipy import sparse

from recsys_spark.columns import ITEM_ID, NEIGHBOUR_ID, SIMILARITY, USER_ID
from recsys_spark.config import Config, NeighboursConfig
from recsys_spark.data.split import count_events_per_day, split_dates
from recsys_spark.infra import tables
from recsys_spark.log import log_step
from recsys_spark.models.neighbours import similar_items
from recsys_spark.models.top_k import rows_per_block
from recsys_spark.models.version import model_version

MODEL = "neighbours"
_MAX_BLOCK_BYTES = 64 * 2**20  # of similarities; the sparse product beside it is of the same order
_COLUMNS = (ITEM_ID, NEIGHBOUR_ID, SIMILARITY)


def train_neighbours(spark: SparkSession, config: Config, run_date: date | None = None) -> dict[str, float]:
    """Replace the item neighbours of one cutoff (null: the split's test_start).

    The 0/1 matrix of users and items goes to every worker (8 bytes an interaction); each task multiplies one block of items.
    """
    events = tables.read_table(spark, config, "events", made_by="ingest_events")
    cutoff = run_date or split_dates(count_events_per_day(events), config.split).test_start
    interactions = tables.read_cutoff(spark, config, cutoff)
    version = model_version(
        MODEL,
        cutoff,
        tables.delta_version(spark, config, "events"),
        config.neighbours,
        config.interactions,
        config.cleaning,
    )
    with log_step("train_neighbours", cutoff=cutoff) as facts:
        pairs = interactions.select(USER_ID, ITEM_ID).toPandas()
        users, _ = pd.factorize(pairs[USER_ID])
        item_ids = sorted(pairs[ITEM_ID].unique(), key=str.encode)
        items = pd.Index(item_ids).get_indexer(pairs[ITEM_ID])
        user_items = sparse.csr_matrix((np.ones(len(pairs), np.float32), (users, items)), dtype=np.float32)
        shared = spark.sparkContext.broadcast((user_items, np.array(item_ids, dtype=object)))
        settings, step = config.neighbours, rows_per_block(len(item_ids), _MAX_BLOCK_BYTES)

        def neighbours_of(blocks: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
            for block in blocks:
                for first in block["id"]:
                    yield _neighbour_rows(*shared.value, first, min(first + step, len(shared.value[1])), settings)

        num_blocks = -(-len(item_ids) // step)
        blocks = spark.range(0, len(item_ids), step, numPartitions=num_blocks)
        rows = blocks.mapInPandas(neighbours_of, f"{ITEM_ID} string, {NEIGHBOUR_ID} string, {SIMILARITY} float")
        tables.replace_model(spark, config, "item_neighbours", rows, MODEL, version, cutoff)
        shared.unpersist()
        facts["items"] = len(item_ids)
    return {"items": len(item_ids)}


def _neighbour_rows(
    user_items: sparse.csr_matrix, item_ids: np.ndarray, first: int, stop: int, config: NeighboursConfig
) -> pd.DataFrame:
    items, neighbours, similarity = similar_items(user_items, first, stop, config.num_neighbours, config.shrink)
    return pd.DataFrame(dict(zip(_COLUMNS, (item_ids[items], item_ids[neighbours], similarity), strict=True)))
