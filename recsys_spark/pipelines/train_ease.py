"""Interactions -> EASE's weights between all items."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import Broadcast
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from scipy import sparse

from recsys_spark.columns import ITEM_ID, USER_ID, USER_IDX, VECTOR, WEIGHT
from recsys_spark.config import Config
from recsys_spark.data.interactions import scaled_weight
from recsys_spark.data.split import count_events_per_day, split_dates
from recsys_spark.errors import TrainingError
from recsys_spark.infra import tables
from recsys_spark.infra.session import persisted
from recsys_spark.log import log_step
from recsys_spark.models.ease import add_to_gram, driver_bytes, item_weights, worker_bytes
from recsys_spark.models.recommend import POSITION, catalogue_positions, collect_catalogue
from recsys_spark.models.top_k import rows_per_block
from recsys_spark.models.version import model_version

MODEL = "ease"
_INTERACTIONS_AT_ONCE = 8_000_000  # 100 MB on the driver
_MAX_BATCH_BYTES = 64 * 2**20


def train_ease(spark: SparkSession, config: Config, run_date: date | None = None) -> dict[str, float]:
    """Replace EASE's weights of one cutoff (null: the split's test_start), solved on the driver.

    A row of item_vectors holds what its item adds to the score of every item, in UTF-8 order of their ids. Raises
    TrainingError when the catalogue is larger than ease.max_items.
    """
    events = tables.read_table(spark, config, "events", made_by="ingest_events")
    cutoff = run_date or split_dates(count_events_per_day(events), config.split).test_start
    user_index = tables.read_table(spark, config, "user_index", made_by="build_interactions")
    interactions = tables.read_cutoff(spark, config, cutoff)
    version = model_version(
        MODEL, cutoff, tables.delta_version(spark, config, "events"), config.ease, config.interactions, config.cleaning
    )
    with log_step("train_ease", cutoff=cutoff, regularization=config.ease.regularization) as facts:
        item_ids = collect_catalogue(interactions)
        check_size(len(item_ids), config.ease.max_items)
        indexed = interactions.join(user_index, on=USER_ID, how="inner")
        entries = indexed.join(catalogue_positions(spark, item_ids), on=ITEM_ID, how="inner").select(
            USER_IDX, POSITION, scaled_weight(config.ease.weight_scale).cast("float").alias(WEIGHT)
        )
        weights = item_weights(_gram(entries, len(item_ids)), config.ease.regularization)
        shared = spark.sparkContext.broadcast((pa.array(item_ids, pa.string()), weights))
        vectors = _as_vectors(spark, shared, len(item_ids))
        tables.replace_model(spark, config, "item_vectors", vectors, MODEL, version, cutoff)
        shared.destroy()
        facts["items"] = len(item_ids)
    return {"items": len(item_ids)}


def check_size(num_items: int, max_items: int) -> None:
    """Raise TrainingError when the catalogue is larger than allowed, with the memory that it would take."""
    if num_items > max_items:
        raise TrainingError(
            f"EASE holds weights between all items in memory: expected at most ease.max_items = {max_items:,} items, found "
            f"{num_items:,}, which take {driver_bytes(num_items) / 1e9:.1f} GB on the driver and "
            f"{worker_bytes(num_items) / 1e9:.1f} GB in every worker; leave rare items out (interactions.min_item_events), raise "
            "ease.max_items where there is that much memory, or take another model"
        )


def _gram(entries: DataFrame, num_items: int) -> NDArray[np.float64]:
    """Sum the users' products, some users at a time, so that the driver never holds all interactions."""
    gram = np.zeros((num_items, num_items))
    with persisted(entries) as entries:
        num_blocks = entries.count() // _INTERACTIONS_AT_ONCE + 1
        for block in range(num_blocks):
            table = entries.where(F.pmod(F.col(USER_IDX), F.lit(num_blocks)) == block).toArrow()
            user_idx, positions, values = (table[name].to_numpy() for name in (USER_IDX, POSITION, WEIGHT))
            users, rows = np.unique(user_idx, return_inverse=True)
            add_to_gram(gram, sparse.csr_matrix((values, (rows, positions)), shape=(len(users), num_items)))
    return gram


def _as_vectors(
    spark: SparkSession, shared: Broadcast[tuple[pa.Array, NDArray[np.float32]]], num_items: int
) -> DataFrame:
    """Make the rows of item_vectors in the workers: as one table they would not fit into the JVM of the driver."""
    step = rows_per_block(num_items, _MAX_BATCH_BYTES)

    def vectors(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        ids, matrix = shared.value
        for first in [first for batch in batches for first in batch["id"].to_pylist()]:
            strip = matrix[first : first + step]
            offsets = np.arange(len(strip) + 1, dtype=np.int32) * strip.shape[1]
            lists = pa.ListArray.from_arrays(offsets, strip.reshape(-1))
            yield pa.RecordBatch.from_arrays([ids[first : first + step], lists], names=[ITEM_ID, VECTOR])

    strips = spark.range(0, num_items, step, numPartitions=-(-num_items // step))
    return strips.mapInArrow(vectors, f"{ITEM_ID} string, {VECTOR} array<float>")
