"""The Spark edge of the metrics: equal to calling metrics.py on everything at once, whatever the partitions."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from recsys_spark.evaluation import metrics
from recsys_spark.evaluation.evaluate import (
    catalogue_metrics,
    collect_lists,
    list_counts,
    metric_sums,
    slice_truth,
    with_intervals,
)

RECOMMENDATIONS = "task string, model string, user_id string, item_id string, rank int"
TRUTH = "task string, user_id string, item_id string, is_warm_user boolean, is_warm_item boolean"
STATS = "item_id string, item_users long, category string"
METRICS = {"hr", "recall", "recall_min", "precision", "f1", "ndcg", "map", "mrr", "novelty", "diversity"}


def values_of(spark, lists, truth, stats=(), ks=(2,), num_users=4, partitions=None):
    """(model, slice, metric, k) -> (value, users) for the task "next"."""
    frames = [
        spark.createDataFrame([("next", *row) for row in lists], RECOMMENDATIONS),
        spark.createDataFrame([("next", *row) for row in truth], TRUTH),
        spark.createDataFrame(list(stats), STATS),
    ]
    if partitions:
        frames = [frame.repartition(partitions) for frame in frames]
    recommendations, truth_frame, item_stats = frames
    models = spark.createDataFrame(
        [("next", model) for model in sorted({row[0] for row in lists})], "task string, model string"
    )
    sums = metric_sums(collect_lists(recommendations, item_stats), slice_truth(truth_frame), models, ks, num_users)
    rows = with_intervals(sums.toPandas(), 0.95)
    assert not rows.duplicated(["task", "model", "slice", "metric", "k"]).any()
    return {
        (r["model"], r["slice"], r["metric"], r["k"]): (r["value"], r["num_users"]) for r in rows.to_dict("records")
    }


def listed(model, user, *items):
    return [(model, user, item, rank) for rank, item in enumerate(items, start=1)]


def had(user, *items, warm_user=True, cold_items=()):
    return [(user, item, warm_user or None, None if item in cold_items else True) for item in items]


def test_metrics_of_a_tiny_world_by_hand(spark):
    lists = [*listed("m", "ann", "a", "b", "c"), *listed("m", "bob", "x", "y")]
    truth = [*had("ann", "b", "c", "d"), *had("bob", "q")]
    found = values_of(spark, lists, truth)
    half = 2  # users
    assert found["m", "all", "hr", 2] == (1 / half, 2)
    assert found["m", "all", "recall", 2] == (pytest.approx((1 / 3) / half), 2)
    assert found["m", "all", "recall_min", 2] == (pytest.approx((1 / 2) / half), 2)
    assert found["m", "all", "precision", 2] == (pytest.approx((1 / 2) / half), 2)
    assert found["m", "all", "mrr", 2] == (pytest.approx((1 / 2) / half), 2)
    assert found["m", "all", "map", 2] == (pytest.approx((1 / 2) / 2 / half), 2)
    ndcg = (1 / math.log2(3)) / (1 + 1 / math.log2(3))
    assert found["m", "all", "ndcg", 2] == (pytest.approx(ndcg / half), 2)
    assert {metric for _, _, metric, _ in found} == METRICS


def test_user_with_truth_and_no_list_counts_0(spark):
    found = values_of(spark, listed("m", "ann", "a"), [*had("ann", "a"), *had("nobody", "a")])
    assert found["m", "all", "hr", 2] == (0.5, 2)


def test_user_with_a_list_and_no_truth_is_left_out(spark):
    found = values_of(spark, [*listed("m", "ann", "a"), *listed("m", "idle", "a")], had("ann", "a"))
    assert found["m", "all", "hr", 2] == (1.0, 1)


def test_model_without_a_list_for_a_user_is_still_averaged_over_everybody(spark):
    lists = [*listed("all-round", "ann", "a"), *listed("all-round", "bob", "a"), *listed("picky", "ann", "a")]
    found = values_of(spark, lists, [*had("ann", "a"), *had("bob", "a")])
    assert found["all-round", "all", "hr", 2] == (1.0, 2)
    assert found["picky", "all", "hr", 2] == (0.5, 2)


def test_slices_split_users_by_history_and_truth_by_catalogue(spark):
    truth = [*had("ann", "a", "n", cold_items=("n",)), *had("new", "b", warm_user=False)]
    found = values_of(spark, [*listed("m", "ann", "a"), *listed("m", "new", "c")], truth)
    assert found["m", "all", "recall", 2] == (pytest.approx(0.25), 2)
    assert found["m", "warm_users", "recall", 2] == (0.5, 1)
    assert found["m", "cold_users", "recall", 2] == (0.0, 1)
    assert found["m", "warm_items", "recall", 2] == (0.5, 2)  # ann's a, and new's b
    assert found["m", "cold_items", "recall", 2] == (0.0, 1)  # ann's n


def test_novelty_and_diversity_follow_the_lists_items(spark):
    stats = [("a", 4, "food"), ("b", 1, "drink"), ("c", 2, None)]
    lists = [*listed("m", "ann", "a", "b"), *listed("m", "bob", "c", "not in the catalogue")]
    found = values_of(spark, lists, [*had("ann", "a"), *had("bob", "a")], stats, num_users=4)
    # -log2(4/4), -log2(1/4) for ann; -log2(2/4) and, for the unseen item, -log2(1/4) for bob
    assert found["m", "all", "novelty", 2] == (pytest.approx(((0 + 2) / 2 + (1 + 2) / 2) / 2), 2)
    assert found["m", "all", "diversity", 2] == (0.5, 2)  # two categories for ann, twice none for bob


def test_truth_is_a_set(spark):
    assert values_of(spark, listed("m", "ann", "a"), had("ann", "a", "a"))["m", "all", "recall", 2] == (1.0, 1)


@pytest.mark.parametrize("partitions", [None, 1, 7])
def test_equals_metrics_on_everything_at_once_whatever_the_partitions(spark, partitions):
    rng = np.random.default_rng(9)
    items = [f"i{i}" for i in range(25)]
    users = [f"u{i}" for i in range(40)]
    popularity = {item: int(rng.integers(1, 41)) for item in items[:20]}
    category = {item: f"c{rng.integers(3)}" for item in items[:20]}
    tops = {user: list(rng.choice(items, int(rng.integers(0, 11)), replace=False)) for user in users}
    truths = {user: list(rng.choice(items, int(rng.integers(1, 6)), replace=False)) for user in users}
    lists = [row for user, top in tops.items() for row in listed("m", user, *map(str, top))]
    truth = [row for user, wanted in truths.items() for row in had(user, *map(str, wanted))]
    stats = [(item, popularity[item], category[item]) for item in popularity]
    found = values_of(spark, lists, truth, stats, ks=(3, 10), num_users=40, partitions=partitions)

    def ragged(values):
        return np.array([items.index(x) for row in values for x in row], dtype=np.int64), np.cumsum(
            [0, *map(len, values)]
        )

    (list_items, offsets), (truth_items, truth_offsets) = ragged(tops.values()), ragged(truths.values())
    categories = pd.factorize(np.array([category.get(items[i], "") for i in list_items]))[0]
    for k in (3, 10):
        expected = metrics.ranking_metrics(list_items, offsets, truth_items, truth_offsets, k)
        item_users = [popularity.get(item, 0) for item in items]
        expected["novelty"] = metrics.novelty_per_list(list_items, offsets, item_users, 40, k)
        expected["diversity"] = metrics.intra_list_diversity(categories, offsets, k)
        assert expected.keys() == METRICS
        for metric, values in expected.items():
            assert found["m", "all", metric, k] == (pytest.approx(values.mean(), abs=1e-12), 40), (metric, k)


def test_interval_is_that_of_the_users_values():
    values = np.array([0.0, 1.0, 1.0, 0.5])
    row = {"task": "next", "model": "m", "slice": "all", "metric": "hr", "k": 10}
    sums = pd.DataFrame([{**row, "users": 4, "total": values.sum(), "squares": (values**2).sum()}])
    found = with_intervals(sums, 0.9).iloc[0]
    expected = metrics.summarize(values, 0.9)
    assert (found["value"], found["ci_low"], found["ci_high"], found["num_users"]) == pytest.approx(tuple(expected))


def test_list_counts_say_how_many_items_are_listed_how_often(spark):
    lists = [*listed("m", "ann", "a", "b", "c"), *listed("m", "bob", "a", "c", "b"), *listed("other", "ann", "z")]
    frame = spark.createDataFrame([("next", *row) for row in lists], RECOMMENDATIONS)
    rows = {(r["model"], r["times_listed"], r["num_items"]) for r in list_counts(frame, k=2).collect()}
    assert rows == {("m", 2, 1), ("m", 1, 2), ("other", 1, 1)}


def test_catalogue_metrics_by_hand():
    assert catalogue_metrics(np.array([2, 1, 1]), catalogue_size=4) == {
        "coverage": 0.75, "gini": pytest.approx((-1 * 1 + 1 * 1 + 3 * 2) / 4 / 3),
    }  # fmt: skip
