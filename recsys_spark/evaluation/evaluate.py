"""The Spark edge of the ranking metrics: lists and truth in, sums or one row per user out. Workers run blocks.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.columns import CATEGORY, ITEM_ID, METRIC, MODEL, RANK, SLICE, TASK, USER_ID, VALUE, K, Task
from recsys_spark.evaluation.blocks import (
    BUCKET,
    ITEM_USERS,
    ITEMS,
    PAST_CATEGORIES,
    PAST_COUNTS,
    SLICES,
    TRUTH,
    USER_GROUP,
    block_sums,
    block_users,
)
from recsys_spark.evaluation.significance import NUM_GROUPS

METRICS = (
    "hr", "recall", "recall_min", "precision", "f1", "ndcg", "map", "mrr", "novelty", "diversity", "miscalibration",
)  # fmt: skip
"""Every metric that a user has a value of."""

_GROUP = [TASK, MODEL, SLICE, METRIC, K, BUCKET]
_SUMS_SCHEMA = (
    f"{TASK} string, {MODEL} string, {SLICE} string, {METRIC} string, {K} int, {BUCKET} long, users long, total double, "
    "squares double"
)


def truth_pairs(past: DataFrame, later: DataFrame, tasks: tuple[str, ...]) -> DataFrame:
    """Give the truth of each task: distinct items that users had later; for discovery without what they had in the past.

    Needs user_id, item_id. Gives task, user_id, item_id.
    """
    had = later.select(USER_ID, ITEM_ID).distinct()
    discovered = had.join(past.select(USER_ID, ITEM_ID).distinct(), on=[USER_ID, ITEM_ID], how="left_anti")
    truth = had.withColumn(TASK, F.lit(Task.NEXT)).unionByName(discovered.withColumn(TASK, F.lit(Task.DISCOVERY)))
    return truth.where(F.col(TASK).isin(list(tasks))).select(TASK, USER_ID, ITEM_ID)


def collect_lists(recommendations: DataFrame, item_stats: DataFrame) -> DataFrame:
    """Give one row per task, model and user with the arrays items, item_users and category in the order of rank.

    Needs the recommendations table and item_stats (item_id, item_users: distinct users before the cutoff, category).
    """
    rows = recommendations.join(item_stats, on=ITEM_ID, how="left")
    entry = F.struct(
        RANK,
        ITEM_ID,
        F.coalesce(ITEM_USERS, F.lit(0)).alias(ITEM_USERS),
        F.coalesce(CATEGORY, F.lit("")).alias(CATEGORY),
    )
    lists = rows.groupBy(TASK, MODEL, USER_ID).agg(F.array_sort(F.collect_list(entry)).alias("entries"))
    return lists.select(
        TASK,
        MODEL,
        USER_ID,
        F.col(f"entries.{ITEM_ID}").alias(ITEMS),
        f"entries.{ITEM_USERS}",
        f"entries.{CATEGORY}",
    )


def collect_pasts(interactions: DataFrame, item_stats: DataFrame) -> DataFrame:
    """Give each user's past by category: user_id, past_categories, past_counts (interactions, that is distinct items).

    Needs interactions (user_id, item_id) and item_stats (item_id, category); no category is a category of its own.
    """
    rows = interactions.select(USER_ID, ITEM_ID).join(item_stats.select(ITEM_ID, CATEGORY), on=ITEM_ID, how="left")
    counts = rows.groupBy(USER_ID, F.coalesce(CATEGORY, F.lit("")).alias(CATEGORY)).agg(F.count("*").alias("_count"))
    entries = counts.groupBy(USER_ID).agg(F.array_sort(F.collect_list(F.struct(CATEGORY, "_count"))).alias("_entries"))
    return entries.select(
        USER_ID,
        F.col(f"_entries.{CATEGORY}").alias(PAST_CATEGORIES),
        F.col("_entries._count").alias(PAST_COUNTS),
    )


def metric_sums(
    lists: DataFrame, truth: DataFrame, pasts: DataFrame | None, models: DataFrame, ks: tuple[int, ...], num_users: int
) -> DataFrame:
    """Give users, total and squares of every per-user metric by task, model, slice, metric, k and bucket (see block_sums).

    Needs the outputs of `collect_lists`, `slice_truth` and `collect_pasts` (null: without miscalibration), and models (task,
    model): every user with truth counts for every model of the task, with 0 where there is no list. num_users is the
    denominator of novelty.
    """
    pairs = _pairs(lists, truth, pasts, models)
    parts = pairs.mapInArrow(_over_batches(block_sums, ks, num_users), _SUMS_SCHEMA)
    names = ("users", "total", "squares")
    return parts.groupBy(*_GROUP).agg(*[F.sum(name).alias(name) for name in names])


def user_metrics(
    lists: DataFrame, truth: DataFrame, pasts: DataFrame | None, models: DataFrame, ks: tuple[int, ...], num_users: int
) -> DataFrame:
    """Give every user's values: task, model, slice, user_id, metric, k, value. Needs what `metric_sums` needs.

    The means of these rows are the metrics: both come from the same blocks. A user without a list has 0; only miscalibration
    has no row where there is no list or no past to compare.
    """
    wide_names = [(metric, k, f"{metric}_at_{k}") for k in ks for metric in METRICS]
    schema = f"{TASK} string, {MODEL} string, {SLICES} array<string>, {USER_ID} string, " + ", ".join(
        f"{name} double" for *_, name in wide_names
    )
    wide = _pairs(lists, truth, pasts, models).mapInArrow(_over_batches(block_users, ks, num_users), schema)
    entries = F.array(*[
        F.struct(F.lit(metric).alias(METRIC), F.lit(k).alias(K), F.col(name).alias(VALUE))
        for metric, k, name in wide_names
    ])  # fmt: skip
    sliced = wide.select(TASK, MODEL, F.explode(SLICES).alias(SLICE), USER_ID, entries.alias("_entries"))
    rows = sliced.select(TASK, MODEL, SLICE, USER_ID, F.inline("_entries"))
    return rows.where(F.col(VALUE).isNotNull()).select(TASK, MODEL, SLICE, USER_ID, METRIC, K, VALUE)


def _pairs(lists: DataFrame, truth: DataFrame, pasts: DataFrame | None, models: DataFrame) -> DataFrame:
    """One row per user with truth, slice of the truth, and model of the task; lists and pasts that are not there are empty."""
    no_past = {PAST_CATEGORIES: "array<string>", PAST_COUNTS: "array<bigint>"}
    if pasts is None:
        truth = truth.withColumns({name: F.array().cast(kind) for name, kind in no_past.items()})
    else:
        truth = truth.join(pasts, on=USER_ID, how="left")
    asked = truth.join(F.broadcast(models), on=TASK, how="inner")
    pairs = asked.join(lists, on=[TASK, MODEL, USER_ID], how="left")
    empty = no_past | {ITEMS: "array<string>", ITEM_USERS: "array<bigint>", CATEGORY: "array<string>"}
    return pairs.select(
        TASK,
        MODEL,
        USER_ID,
        SLICES,
        TRUTH,
        *[F.coalesce(F.col(name), F.array().cast(kind)).alias(name) for name, kind in empty.items()],
        # a hash of the id, so that the groups are the same for every model, on every machine and in every partitioning
        F.pmod(F.xxhash64(USER_ID), F.lit(NUM_GROUPS)).alias(USER_GROUP),
    )


def _over_batches(
    block: Callable[[pa.RecordBatch, tuple[int, ...], int], pa.RecordBatch], ks: tuple[int, ...], num_users: int
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def over_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                yield block(batch, ks, num_users)

    return over_batches
