"""Counts of all lists against values by hand."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from recsys_spark.evaluation.known import Known, collect_known, item_stats, user_stats
from recsys_spark.evaluation.list_profile import (
    ListProfile,
    catalogue_rows,
    categories_of,
    list_profile,
    popularity_curve,
    profiles,
    tails,
)

KNOWN = Known(
    item_users=np.array([4, 2, 2, 1, 1]), item_events=np.array([9, 2, 2, 1, 1]), user_counts={1: 2, 2: 4},
    categories={"film": 6, "book": 3},
)  # fmt: skip
# ann: hit, rare; bob: hit, mid; cat: foreign (not in the catalogue)
SHAPE = ListProfile(
    times_listed={2: 1, 1: 2}, new_at_rank={1: 1, 2: 2}, places_by_item_users={4: 2, 1: 1, 2: 1, 0: 1},
    places_by_category={"film": 3, "book": 1, "": 1},
)  # fmt: skip


def test_counts_of_items_and_of_places(spark):
    lists = {
        ("next", "m", "ann"): ["hit", "rare", "deep"], ("next", "m", "bob"): ["hit", "mid"], ("next", "m", "cat"): ["foreign"],
        ("next", "other", "ann"): ["mid"], ("next", "cold", "ann"): ["unsold", "hit"],
    }  # fmt: skip
    rows = [(*key, item, rank) for key, items in lists.items() for rank, item in enumerate(items, start=1)]
    recommendations = spark.createDataFrame(rows, "task string, model string, user_id string, item_id string, rank int")
    stats = [("hit", 4, "film"), ("mid", 2, "book"), ("rare", 1, "film"), ("deep", 1, None), ("unsold", 0, "book")]
    items = spark.createDataFrame(stats, "item_id string, item_users long, category string")
    found = profiles(list_profile(recommendations, items, k=2, lists_cold=["cold"]).toPandas())
    expected = ListProfile(
        times_listed=SHAPE.times_listed, new_at_rank={1: 1, 2: 2, 3: 1}, places_by_item_users=SHAPE.places_by_item_users,
        places_by_category=SHAPE.places_by_category,
    )  # fmt: skip
    assert found["next", "m"] == expected
    assert found["next", "other"].times_listed == {1: 1}
    assert (found["next", "cold"].times_listed, found["next", "cold"].new_at_rank) == ({1: 2}, {1: 1, 2: 1})


def test_known_items_and_users(spark):
    pairs = [("ann", "hit", 3), ("bob", "hit", 1), ("ann", "mid", 1), ("cat", "odd", 2)]
    interactions = spark.createDataFrame(
        [(*pair, date(2024, 3, 1)) for pair in pairs],
        "user_id string, item_id string, count long, first_timestamp date",
    )
    categories = spark.createDataFrame(
        [("hit", "film"), ("mid", "film"), ("unsold", "book"), ("odd", None)], "item_id string, category string"
    )
    items, users = item_stats(interactions, categories), user_stats(interactions)
    rows = {row["item_id"]: tuple(row)[1:] for row in items.collect()}
    assert rows == {"hit": (2, 4, "film"), "mid": (1, 1, "film"), "unsold": (0, 0, "book"), "odd": (1, 2, None)}
    known = collect_known(items, users, num_categories=3)
    assert sorted(zip(known.item_users, known.item_events, strict=True)) == [(1, 1), (1, 2), (2, 4)]
    assert (known.user_counts, known.num_users) == ({1: 2, 2: 1}, 3)
    assert known.categories == {"film": 3}
    assert collect_known(item_stats(interactions, None), users, 3).categories == {}


def test_coverage_at_every_k_and_gini():
    frame = catalogue_rows({("next", "m"): SHAPE}, catalogue_size=5, ks=(2, 1))
    values = {(row["metric"], row["k"]): row["value"] for row in frame.to_dict("records")}
    # 2, 1, 1, 0, 0 listings: (-4 * 0 - 2 * 0 + 0 * 1 + 2 * 1 + 4 * 2) / 4 / 4
    assert values == {("coverage", 2): 3 / 5, ("coverage", 1): 1 / 5, ("gini", 2): pytest.approx(10 / 16)}
    assert frame["ci_low"].isna().all()


def test_popularity_curve_by_hand():
    curve = popularity_curve(SHAPE.places_by_item_users, KNOWN.item_users)
    # 4 of 10 interactions and 2 of 5 places; the two items of 2 users together; the rest; and what is in no catalogue
    assert curve == pytest.approx(np.array([[0, 0], [0.4, 0.4], [0.8, 0.6], [1, 0.8], [1, 1]]))


def test_lists_that_copy_the_interactions_lie_on_the_diagonal():
    curve = popularity_curve({4: 400, 2: 400, 1: 200}, KNOWN.item_users)
    assert curve[:, 0] == pytest.approx(curve[:, 1])


def test_tail_of_a_model():
    tail = tails({("next", "m"): SHAPE}, KNOWN.item_users, head_from=2, length=3)["next", "m"]
    assert tail.head_share == 3 / 5
    assert tail.coverage.tolist() == [1 / 5, 3 / 5, 3 / 5]


def test_categories_in_lists_and_interactions():
    sums = pd.DataFrame(
        [
            ("next", "m", "past_share", 5, 2, 1.1),
            ("next", "m", "list_share", 5, 2, 0.5),
            ("next", "m", "ndcg", 3, 2, 1.0),
        ],
        columns=["task", "model", "metric", "bucket", "users", "total"],
    )
    found = categories_of({("next", "m"): SHAPE}, KNOWN, sums)
    assert found.had == {"film": 0.6, "book": 0.3}
    assert found.listed == {("next", "m"): {"film": 0.6, "book": 0.2}}
    assert found.curves["next", "m"].tolist() == [[0.55, 0.25]]
    assert categories_of({}, Known(KNOWN.item_users, KNOWN.item_events, {}, {}), sums) is None
