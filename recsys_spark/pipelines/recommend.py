"""Trained models -> top-K lists of every user, task and model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date

import numpy as np
from pyspark import Broadcast
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from scipy import sparse

from recsys_spark.columns import (
    CATEGORY,
    IS_FALLBACK,
    ITEM_ID,
    MODEL,
    MODEL_VERSION,
    NEIGHBOUR_ID,
    RUN_DATE,
    SIMILARITY,
    TASK,
    USER_ID,
    VECTOR,
    WEIGHT,
    Task,
)
from recsys_spark.config import Config
from recsys_spark.data.interactions import counted_events
from recsys_spark.data.split import count_events_per_day, events_before, split_dates
from recsys_spark.errors import DataError, ModelError
from recsys_spark.infra import tables
from recsys_spark.infra.session import persisted
from recsys_spark.log import log_step
from recsys_spark.models import recommend as engine
from recsys_spark.models.again import recommend_again
from recsys_spark.models.approximate import RECALL_K, IndexRecall, build_index
from recsys_spark.models.category_cap import NO_CATEGORY, CategoryCap
from recsys_spark.models.popular import same_vector_for
from recsys_spark.models.version import model_version

_WITHOUT_USER_VECTORS = ("popular", "popular_recent", "again", "neighbours")
"""Models that no index serves: all users share one vector, or there are none."""


@dataclass(frozen=True)
class _Inputs:
    """What every model needs, read once."""

    events: DataFrame
    interactions: DataFrame
    users: DataFrame  # user_id of everybody who gets lists
    seen: DataFrame  # user_id, seen (positions)
    item_ids: list[str]
    positions: DataFrame
    cutoff: date
    cap: Broadcast[CategoryCap] | None
    indexes: dict[str, str] = field(default_factory=dict)  # model -> file of its approximate index


def recommend(spark: SparkSession, config: Config, run_date: date | None = None) -> dict[str, float]:
    """Replace the lists of one date (null: the split's test_start) for the configured tasks and models.

    Every user of the user index gets lists; whom a model does not know gets recommend.fallback with is_fallback = true.
    `again` recommends only what the user had, so it has no lists for discovery. Gives the number of rows by task.model.
    """
    events = tables.read_table(spark, config, "events", made_by="ingest_events")
    cutoff = run_date or split_dates(count_events_per_day(events), config.split).test_start
    events = counted_events(events, config.interactions)
    interactions = tables.read_cutoff(spark, config, cutoff)
    users = tables.read_table(spark, config, "user_index", made_by="build_interactions").select(USER_ID)
    ids = interactions.select(ITEM_ID).distinct().toArrow()[ITEM_ID].to_pylist()
    item_ids = sorted(ids, key=str.encode)
    positions = engine.catalogue_positions(spark, item_ids)
    counts: dict[str, float] = {}
    with persisted(_seen_positions(events_before(events, cutoff), positions)) as seen:
        cap = _category_cap(spark, config, item_ids)
        inputs = _Inputs(events, interactions, users, seen, item_ids, positions, cutoff, cap)
        if (
            config.recommend.index == "approximate"
        ):  # all of them first: a bad one stops the job before any list is written
            inputs = replace(inputs, indexes=_checked_indexes(spark, config, inputs))
        for task in config.recommend.tasks:
            for model in config.recommend.models:
                if task == Task.DISCOVERY and model == "again":
                    continue
                with log_step("recommend", task=task, model=model) as facts:
                    facts["rows"] = counts[f"{task}.{model}"] = _write_lists(spark, config, inputs, task, model)
    return counts


def _write_lists(spark: SparkSession, config: Config, inputs: _Inputs, task: str, model: str) -> int:
    masked = _masked(inputs, task)
    lists, version = _lists_of(spark, config, inputs, masked, model)
    with persisted(lists) as own:
        unknown = inputs.users.join(own.select(USER_ID).distinct(), on=USER_ID, how="left_anti")
        fallback, _ = _popularity_lists(spark, config, inputs, unknown, masked, config.recommend.fallback)
        rows = own.withColumn(IS_FALLBACK, F.lit(False)).unionByName(fallback.withColumn(IS_FALLBACK, F.lit(True)))
        rows = rows.withColumns({
            MODEL: F.lit(model), MODEL_VERSION: F.lit(version), RUN_DATE: F.lit(inputs.cutoff), TASK: F.lit(task),
        })  # fmt: skip
        partition: dict[str, str | date] = {RUN_DATE: inputs.cutoff, TASK: task, MODEL: model}
        return tables.replace_partition(spark, config, "recommendations", rows, partition)


def _lists_of(
    spark: SparkSession, config: Config, inputs: _Inputs, masked: DataFrame, model: str
) -> tuple[DataFrame, str]:
    if model in ("popular", "popular_recent"):
        return _popularity_lists(spark, config, inputs, inputs.users, masked, model)
    if model == "again":
        version = model_version(
            model,
            inputs.cutoff,
            tables.delta_version(spark, config, "events"),
            config.again,
            config.interactions,
            config.cleaning,
        )
        # only pairs that are interactions: nothing of users who are treated as unknown
        had = inputs.interactions.select(USER_ID, ITEM_ID)
        events, catalogue = (
            inputs.events.join(had, on=[USER_ID, ITEM_ID], how="left_semi"),
            inputs.positions.select(ITEM_ID),
        )
        limit = config.recommend.max_per_category
        if limit is not None:
            catalogue = catalogue.join(_item_categories(spark, config), on=ITEM_ID, how="left")
        return recommend_again(events, catalogue, config.again, inputs.cutoff, config.recommend.k, limit), version
    if model == "neighbours":
        return _neighbour_lists(spark, config, inputs, masked)
    user_vectors, item_vectors, version = _vectors_of(spark, config, inputs, model)
    users = user_vectors.join(masked, on=USER_ID, how="left")
    return _vector_lists(spark, config, inputs, users, item_vectors, inputs.indexes.get(model)), version


def _masked(inputs: _Inputs, task: str) -> DataFrame:
    return inputs.seen if task == Task.DISCOVERY else inputs.seen.limit(0)


def _vectors_of(spark: SparkSession, config: Config, inputs: _Inputs, model: str) -> tuple[DataFrame, DataFrame, str]:
    user_vectors, version = tables.read_model(spark, config, "user_vectors", model, inputs.cutoff)
    item_vectors, items_version = tables.read_model(spark, config, "item_vectors", model, inputs.cutoff)
    if version != items_version:
        raise ModelError(
            f"user vectors {version} and item vectors {items_version} of {model} do not belong together: a training run was "
            f"interrupted; run jobs/train_{model}.py --date {inputs.cutoff} again"
        )
    return user_vectors.select(USER_ID, VECTOR), item_vectors, version


def _popularity_lists(
    spark: SparkSession, config: Config, inputs: _Inputs, users: DataFrame, masked: DataFrame, model: str
) -> tuple[DataFrame, str]:
    item_vectors, version = tables.read_model(spark, config, "item_vectors", model, inputs.cutoff)
    with_seen = same_vector_for(users).join(masked, on=USER_ID, how="left")
    return _vector_lists(spark, config, inputs, with_seen, item_vectors), version


def _vector_lists(
    spark: SparkSession,
    config: Config,
    inputs: _Inputs,
    users: DataFrame,
    item_vectors: DataFrame,
    index_file: str | None = None,
) -> DataFrame:
    items = spark.sparkContext.broadcast(engine.collect_item_matrix(item_vectors, inputs.item_ids))
    k, max_block_bytes = config.recommend.k, config.recommend.max_block_bytes
    if index_file is None:
        return engine.recommend_by_vectors(users, items, k, max_block_bytes, inputs.cap)
    overfetch = config.approximate.overfetch
    return engine.recommend_by_index(users, items, index_file, k, overfetch, max_block_bytes, inputs.cap)


def _neighbour_lists(spark: SparkSession, config: Config, inputs: _Inputs, masked: DataFrame) -> tuple[DataFrame, str]:
    neighbours, version = tables.read_model(spark, config, "item_neighbours", "neighbours", inputs.cutoff)
    had = inputs.interactions.join(inputs.positions, on=ITEM_ID, how="inner")
    pairs = F.array_sort(F.collect_list(F.struct(engine.POSITION, F.log1p(WEIGHT).cast("float").alias("weight"))))
    histories = had.groupBy(USER_ID).agg(pairs.alias("pairs")).select(
        USER_ID, F.col("pairs.position").alias(engine.POSITION), F.col("pairs.weight").alias(engine.WEIGHTS)
    )  # fmt: skip
    users = histories.join(masked, on=USER_ID, how="left")
    items = _similarity_matrix(spark, neighbours, inputs)
    lists = engine.recommend_by_neighbours(
        users, items, config.recommend.k, config.recommend.max_block_bytes, inputs.cap
    )
    return lists, version


def _checked_indexes(spark: SparkSession, config: Config, inputs: _Inputs) -> dict[str, str]:
    """Build and share the index of every model with vectors; ModelError when one misses too much of the exact lists."""
    files: dict[str, str] = {}
    for model in config.recommend.models:
        if model in _WITHOUT_USER_VECTORS:
            continue
        with log_step("build_index", model=model) as facts:
            user_vectors, item_vectors, version = _vectors_of(spark, config, inputs, model)
            items = engine.collect_item_matrix(item_vectors, inputs.item_ids)
            index = build_index(items.vectors, items.excluded, config.approximate)
            facts["items"], facts["cells"] = index.ntotal, index.nlist
            for task in config.recommend.tasks:
                users = user_vectors.join(_masked(inputs, task), on=USER_ID, how="left")
                measured = engine.measure_index(
                    users, items, index, config, None if inputs.cap is None else inputs.cap.value
                )
                facts[f"{task}_recall_at_{RECALL_K}"] = round(measured.recall, 4)
                facts[f"{task}_exact_share"] = round(measured.exact_share, 4)
                _check_recall(config, measured, f"{model} ({task})")
            files[model] = engine.share_index(spark, index, version)
    return files


def _check_recall(config: Config, measured: IndexRecall, what: str) -> None:
    settings = config.approximate
    if measured.recall < settings.min_recall:
        raise ModelError(
            f"the approximate index of {what} finds {measured.recall:.4f} of the exact first {RECALL_K} items of "
            f"{measured.num_users} users, expected approximate.min_recall = {settings.min_recall} or more; no list was written; "
            f"raise approximate.probes (now {settings.probes}) or set recommend.index to exact"
        )


def _category_cap(spark: SparkSession, config: Config, item_ids: list[str]) -> Broadcast[CategoryCap] | None:
    limit = config.recommend.max_per_category
    if limit is None:
        return None
    cap = engine.collect_category_cap(_item_categories(spark, config), item_ids, limit)
    if (cap.categories == NO_CATEGORY).all():
        raise DataError(
            f"recommend.max_per_category is {limit}, but none of the {len(item_ids)} items of the catalogue has a category in "
            "the items table; map sources.items.columns.category and run jobs/ingest_items.py, or set it to null"
        )
    return spark.sparkContext.broadcast(cap)


def _item_categories(spark: SparkSession, config: Config) -> DataFrame:
    return tables.read_table(spark, config, "items", made_by="ingest_items").select(ITEM_ID, CATEGORY)


def _similarity_matrix(
    spark: SparkSession, neighbours: DataFrame, inputs: _Inputs
) -> Broadcast[tuple[list[str], sparse.csr_matrix]]:
    by_item = neighbours.join(inputs.positions.withColumnRenamed(engine.POSITION, "row"), on=ITEM_ID, how="inner")
    of_neighbour = inputs.positions.select(F.col(ITEM_ID).alias(NEIGHBOUR_ID), F.col(engine.POSITION).alias("col"))
    table = by_item.join(of_neighbour, on=NEIGHBOUR_ID, how="inner").select("row", "col", SIMILARITY).toArrow()
    rows, columns, values = (table[name].to_numpy() for name in ("row", "col", SIMILARITY))
    size = len(inputs.item_ids)
    matrix = sparse.csr_matrix((values.astype(np.float32), (rows, columns)), shape=(size, size))
    return spark.sparkContext.broadcast((inputs.item_ids, matrix))


def _seen_positions(past_events: DataFrame, positions: DataFrame) -> DataFrame:
    """Everything a user had, also what interactions leave out, so that discovery never shows it again."""
    had = past_events.join(positions, on=ITEM_ID, how="inner")
    return had.groupBy(USER_ID).agg(F.array_sort(F.collect_set(engine.POSITION)).alias(engine.SEEN))
