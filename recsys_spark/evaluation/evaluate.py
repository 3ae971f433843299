"""The Spark edge of the ranking metrics: lists and truth in, metrics with intervals out. The numbers are made in metrics.py."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.columns import (
    CATEGORY,
    CI_HIGH,
    CI_LOW,
    ITEM_ID,
    METRIC,
    MODEL,
    NUM_USERS,
    RANK,
    SLICE,
    TASK,
    USER_ID,
    VALUE,
    K,
    Task,
)
from recsys_spark.evaluation import metrics

ITEMS = "items"
TRUTH = "truth"
IS_WARM_USER = "is_warm_user"
IS_WARM_ITEM = "is_warm_item"
ITEM_USERS = "item_users"

_GROUP = [TASK, MODEL, SLICE]
_SUMS_SCHEMA = (
    f"{TASK} string, {MODEL} string, {SLICE} string, {METRIC} string, k int, users long, total double, squares double"
)


def truth_pairs(past: DataFrame, later: DataFrame, tasks: tuple[str, ...]) -> DataFrame:
    """Give the truth of each task: distinct items that users had later; for discovery without what they had in the past.

    Needs user_id, item_id. Gives task, user_id, item_id.
    """
    had = later.select(USER_ID, ITEM_ID).distinct()
    discovered = had.join(past.select(USER_ID, ITEM_ID).distinct(), on=[USER_ID, ITEM_ID], how="left_anti")
    truth = had.withColumn(TASK, F.lit(Task.NEXT)).unionByName(discovered.withColumn(TASK, F.lit(Task.DISCOVERY)))
    return truth.where(F.col(TASK).isin(list(tasks))).select(TASK, USER_ID, ITEM_ID)


def slice_truth(truth: DataFrame) -> DataFrame:
    """Group truth into one set per task, user and slice.

    Needs task, user_id, item_id, is_warm_user (had interactions before the cutoff), is_warm_item (is in the catalogue). Gives
    task, slice, user_id, truth array<string>. Slices: all; warm_users and cold_users split the users; warm_items and
    cold_items split each user's truth, so a user may be in both.
    """
    slices = F.array(
        F.lit("all"),
        F.when(F.col(IS_WARM_USER), "warm_users").otherwise("cold_users"),
        F.when(F.col(IS_WARM_ITEM), "warm_items").otherwise("cold_items"),
    )
    sliced = truth.select(TASK, USER_ID, ITEM_ID, F.explode(slices).alias(SLICE))
    return sliced.groupBy(TASK, SLICE, USER_ID).agg(F.collect_set(ITEM_ID).alias(TRUTH))


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


def metric_sums(
    lists: DataFrame, truth: DataFrame, models: DataFrame, ks: tuple[int, ...], num_users: int
) -> DataFrame:
    """Give users, total and squares of every per-user metric by task, model, slice, metric and k.

    Needs the outputs of `collect_lists` and `slice_truth`, and models (task, model): every user with truth counts for every
    model of the task, with 0 where there is no list. num_users is the denominator of novelty.
    """
    asked = truth.join(F.broadcast(models), on=TASK, how="inner")
    pairs = asked.join(lists, on=[TASK, MODEL, USER_ID], how="left")
    empty = {ITEMS: "array<string>", ITEM_USERS: "array<bigint>", CATEGORY: "array<string>"}
    filled = pairs.select(
        *_GROUP, TRUTH, *[F.coalesce(F.col(name), F.array().cast(kind)).alias(name) for name, kind in empty.items()]
    )

    def sums(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                yield pa.RecordBatch.from_pandas(_block_sums(batch, ks, num_users), preserve_index=False)

    parts = filled.mapInArrow(sums, _SUMS_SCHEMA)
    names = ("users", "total", "squares")
    return parts.groupBy(*_GROUP, METRIC, K).agg(*[F.sum(name).alias(name) for name in names])


def with_intervals(sums_pdf: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Turn the collected sums into rows of value, ci_low, ci_high, num_users, one per task, model, slice, metric and k."""
    rows = []
    for row in sums_pdf.to_dict("records"):
        names = [row[name] for name in (*_GROUP, METRIC, K)]
        summary = metrics.interval_from_moments(int(row["users"]), row["total"], row["squares"], confidence)
        rows.append((*names, summary.mean, summary.low, summary.high, summary.num_users))
    return pd.DataFrame(rows, columns=[*_GROUP, METRIC, K, VALUE, CI_LOW, CI_HIGH, NUM_USERS])


def list_counts(recommendations: DataFrame, k: int) -> DataFrame:
    """Count how many items are in the top k of how many users: task, model, times_listed, num_items."""
    top = recommendations.where(F.col(RANK) <= k)
    per_item = top.groupBy(TASK, MODEL, ITEM_ID).agg(F.count("*").alias("times_listed"))
    return per_item.groupBy(TASK, MODEL, "times_listed").agg(F.count("*").alias("num_items"))


def catalogue_metrics(times_listed: np.ndarray, catalogue_size: int) -> dict[str, float]:
    """Give coverage and gini of one model's lists from how often each recommended item is listed."""
    return {
        "coverage": metrics.coverage(len(times_listed), catalogue_size),
        "gini": metrics.gini(times_listed, catalogue_size),
    }


def _block_sums(batch: pa.RecordBatch, ks: tuple[int, ...], num_users: int) -> pd.DataFrame:
    table = pa.Table.from_batches([batch])
    codes, list_offsets, truth_offsets, split = _item_codes(table)
    groups, keys = pd.MultiIndex.from_arrays([table[name].to_numpy() for name in _GROUP]).factorize()
    assert isinstance(keys, pd.MultiIndex)
    item_users = _flat(table[ITEM_USERS])[0].to_numpy(zero_copy_only=False)
    categories = pd.factorize(_flat(table[CATEGORY])[0].to_numpy(zero_copy_only=False))[0]
    parts = []
    for k in ks:
        values = metrics.ranking_metrics(codes[:split], list_offsets, codes[split:], truth_offsets, k)
        own_positions = np.arange(split)
        values["novelty"] = metrics.novelty_per_list(own_positions, list_offsets, item_users, num_users, k)
        values["diversity"] = metrics.intra_list_diversity(categories, list_offsets, k)
        for metric, per_user in values.items():
            parts.append(pd.DataFrame({
                "group": np.arange(len(keys)), METRIC: metric, K: np.int32(k),
                "users": np.bincount(groups, minlength=len(keys)).astype(np.int64),
                "total": np.bincount(groups, weights=per_user, minlength=len(keys)),
                "squares": np.bincount(groups, weights=per_user**2, minlength=len(keys)),
            }))  # fmt: skip
    sums = pd.concat(parts, ignore_index=True)
    for level, name in enumerate(_GROUP):
        sums[name] = keys.get_level_values(level).to_numpy()[sums["group"].to_numpy()]
    return sums[[*_GROUP, METRIC, K, "users", "total", "squares"]]


def _item_codes(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Number the items of lists and truth alike: (codes of all list items then all truth items, offsets, offsets, border)."""
    list_items, list_offsets = _flat(table[ITEMS])
    truth_items, truth_offsets = _flat(table[TRUTH])
    together = pa.concat_arrays([list_items, truth_items]).dictionary_encode()
    return together.indices.to_numpy().astype(np.int64), list_offsets, truth_offsets, len(list_items)


def _flat(column: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    lists = column.combine_chunks()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return lists.flatten(), offsets - offsets[0]
