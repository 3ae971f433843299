"""The Spark edge of the metrics: who is compared with what, and the same numbers whatever the partitions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from recsys_spark.evaluation import metrics
from recsys_spark.evaluation.calibration import category_shares, miscalibration
from recsys_spark.evaluation.evaluate import METRICS, collect_lists, collect_pasts, metric_sums, user_metrics
from recsys_spark.evaluation.sums import with_intervals

RECOMMENDATIONS = "task string, model string, user_id string, item_id string, rank int"
TRUTH = "task string, user_id string, truth array<string>, slices array<string>"
STATS = "item_id string, item_users long, category string"


def listed(model, user, *items):
    return [("next", model, user, item, rank) for rank, item in enumerate(items, start=1)]


def had(user, *items):
    return ("next", user, list(items), ["all"])


def inputs(spark, lists, truth, stats=(), past=None):
    """What metric_sums and user_metrics take; past: (user, item) pairs, null for no pasts."""
    recommendations, items = spark.createDataFrame(lists, RECOMMENDATIONS), spark.createDataFrame(list(stats), STATS)
    pasts = (
        None if past is None else collect_pasts(spark.createDataFrame(past, "user_id string, item_id string"), items)
    )
    models = [("next", model) for model in sorted({row[1] for row in lists})]
    return (
        collect_lists(recommendations, items),
        spark.createDataFrame(truth, TRUTH),
        pasts,
        spark.createDataFrame(models, "task string, model string"),
    )


def test_every_user_with_truth_counts_for_every_model_and_nobody_else(spark):
    lists = [
        *listed("all-round", "ann", "a"), *listed("all-round", "bob", "x", "a"), *listed("picky", "ann", "a"),
        *listed("picky", "idle", "a"),
    ]  # fmt: skip
    sums = metric_sums(*inputs(spark, lists, [had("ann", "a"), had("bob", "a"), had("nobody", "a")]), (1, 2), 4)
    rows = with_intervals(sums.toPandas(), 0.95)
    found = {
        (r["model"], r["k"]): (r["value"], r["num_users"]) for r in rows.query("metric == 'hr'").to_dict("records")
    }
    assert found == {
        ("all-round", 1): (pytest.approx(1 / 3), 3), ("all-round", 2): (pytest.approx(2 / 3), 3),
        ("picky", 1): (pytest.approx(1 / 3), 3), ("picky", 2): (pytest.approx(1 / 3), 3),
    }  # fmt: skip


@pytest.fixture(scope="module")
def random_world():
    """Lists, truths and pasts of 40 users over 25 items, five of them in no catalogue."""
    rng = np.random.default_rng(9)
    items, users = [f"i{i}" for i in range(25)], [f"u{i}" for i in range(40)]

    def some(low, high):
        return {
            user: [str(x) for x in rng.choice(items, int(rng.integers(low, high)), replace=False)] for user in users
        }

    popularity = {item: int(rng.integers(1, 41)) for item in items[:20]}
    category = {item: f"c{rng.integers(3)}" for item in items[:20]}
    return items, users, some(0, 11), some(1, 6), some(0, 9), popularity, category


def frames_of(spark, world, partitions):
    _, _, tops, truths, pasts, popularity, category = world
    lists = [row for user, top in tops.items() for row in listed("m", user, *top)]
    past = [(user, item) for user, own in pasts.items() for item in own]
    stats = [(item, popularity[item], category[item]) for item in popularity]
    frames = inputs(spark, lists, [had(user, *truth) for user, truth in truths.items()], stats, past)
    return [frame.repartition(partitions) for frame in frames]


def expected_values(world, k):
    """Metric -> the users' values, from one call on everything at once."""
    items, users, tops, truths, pasts, popularity, category = world

    def ragged(rows):
        return np.array([x for row in rows for x in row], dtype=np.int64), np.cumsum([0, *map(len, rows)])

    codes = {item: place for place, item in enumerate(items)}
    (list_items, offsets), (truth_items, truth_offsets) = (
        ragged([[codes[item] for item in rows[user]] for user in users]) for rows in (tops, truths)
    )
    values = metrics.ranking_metrics(list_items, offsets, truth_items, truth_offsets, k)
    values["novelty"] = metrics.novelty_per_list(
        list_items, offsets, [popularity.get(item, 0) for item in items], 40, k
    )
    kinds = {name: place for place, name in enumerate(sorted({*category.values(), ""}))}
    of_item = {item: kinds[category.get(item, "")] for item in items}
    values["diversity"] = metrics.intra_list_diversity(
        ragged([[of_item[i] for i in tops[u]] for u in users])[0], offsets, k
    )
    both = [user for user in users if tops[user] and pasts[user]]
    counts = [np.unique([of_item[item] for item in pasts[user]], return_counts=True) for user in both]
    past, past_offsets = ragged([kind for kind, _ in counts])
    of_past = np.concatenate([number for _, number in counts])
    listed_kinds = ragged([[of_item[item] for item in tops[user]] for user in both])
    shares = category_shares(*listed_kinds, past, of_past, past_offsets, k)
    return values | {"miscalibration": miscalibration(shares, len(both))}


@pytest.mark.parametrize("partitions", [1, 7])
def test_equals_one_call_on_everything_whatever_the_partitions(spark, random_world, partitions):
    sums = metric_sums(*frames_of(spark, random_world, partitions), (3, 10), 40).toPandas()
    found = with_intervals(sums, 0.95).set_index(["metric", "k"])
    for k in (3, 10):
        expected = expected_values(random_world, k)
        assert set(expected) == set(METRICS)
        for metric, values in expected.items():
            assert found.loc[(metric, k), "num_users"] == len(values)
            assert found.loc[(metric, k), "value"] == pytest.approx(values.mean(), abs=1e-12), (metric, k)


def test_users_values_have_the_metrics_as_their_means(spark, random_world):
    frames = frames_of(spark, random_world, 3)
    users = user_metrics(*frames, (3, 10), 40)
    assert users.columns == ["task", "model", "slice", "user_id", "metric", "k", "value"]
    pdf = users.toPandas()
    assert not pdf.duplicated(["task", "model", "slice", "user_id", "metric", "k"]).any()
    found = pdf.groupby(["metric", "k"])["value"].agg(["mean", "count"])
    expected = with_intervals(metric_sums(*frames, (3, 10), 40).toPandas(), 0.95).set_index(["metric", "k"])
    pd.testing.assert_series_equal(found["mean"], expected["value"], check_names=False, check_index_type=False)
    assert (found["count"] == expected["num_users"]).all()
    assert set(pdf["user_id"]) == set(random_world[1])
