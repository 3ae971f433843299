"""Which users and which part of the truth a slice holds, on literal tables."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
from factories import utc
from hypothesis import given
from hypothesis import strategies as st

from recsys_spark.evaluation.slices import SliceLimits, slice_limits, slice_truth, top_share_limit

TRUTH = (
    "task string, user_id string, item_id string, num_interactions long, first_timestamp timestamp, item_users long, "
    "category string"
)
LIMITS = SliceLimits(heavy_from=5, head_from=10, new_since=date(2024, 3, 1), categories=("film", "book"))


def sliced(spark, rows, limits):
    """(user, slice) -> truth; every row counts once in each slice."""
    frame = slice_truth(spark.createDataFrame([("next", *row) for row in rows], TRUTH), limits)
    assert frame.columns == ["task", "user_id", "truth", "slices"]
    pairs = [((row["user_id"], name), set(row["truth"])) for row in frame.collect() for name in row["slices"]]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_slices_of_users_and_of_items(spark):
    old, fresh = utc("2024-02-29 23:59"), utc("2024-03-01 00:00")
    rows = [
        ("regular", "top", 4, old, 10, "film"), ("regular", "rare", 4, old, 9, "song"), ("regular", "rare", 4, old, 9, "song"),
        ("regular", "never sold", 4, old, 0, "book"), ("regular", "unheard of", 4, old, None, None),
        ("heavy", "top", 5, old, 10, "film"), ("fresh", "rare", 1, fresh, 9, "song"), ("nobody", "top", None, None, 10, "film"),
    ]  # fmt: skip
    found = sliced(spark, rows, LIMITS)
    users = {}
    for user, name in found:
        users.setdefault(name, set()).add(user)
    assert users["all"] == {"regular", "heavy", "fresh", "nobody"}
    assert (users["warm_users"], users["cold_users"]) == ({"regular", "heavy", "fresh"}, {"nobody"})
    assert (users["heavy_users"], users["new_users"]) == ({"heavy"}, {"fresh"})
    everything = {"top", "rare", "never sold", "unheard of"}
    assert found["regular", "all"] == found["regular", "warm_users"] == everything
    assert (found["regular", "head_items"], found["regular", "tail_items"]) == ({"top"}, {"rare"})
    assert found["regular", "warm_items"] == {"top", "rare"}
    assert found["regular", "cold_items"] == {"never sold", "unheard of"}
    assert (found["regular", "category:film"], found["regular", "category:book"]) == ({"top"}, {"never sold"})
    assert not any(name == "category:song" for _, name in found)
    assert ("heavy", "tail_items") not in found  # a slice holds users that keep some truth


def test_without_limits_there_is_one_slice(spark):
    rows = [("ann", "a", None, None, None, None), ("ann", "b", None, None, None, None)]
    assert sliced(spark, rows, None) == {("ann", "all"): {"a", "b"}}


@pytest.mark.parametrize(
    ("values", "weights", "share", "limit"),
    [
        ([5, 3, 1], [1, 1, 8], 0.1, 5),  # one of ten
        ([5, 3, 1], [1, 1, 8], 0.11, 3),
        ([5, 3, 1], [1, 1, 8], 0.2, 3),
        ([5, 3, 1], [1, 1, 8], 0.9, 1),
        ([2, 2, 2], [1, 1, 1], 0.1, 2),  # equal values are all in
        ([7], [1], 0.5, 7),
        (list(range(30, 0, -1)), [1] * 30, 0.1, 28),  # 0.1 of 30 is three, whatever floating point says
    ],
)
def test_top_share_limit_by_hand(values, weights, share, limit):
    assert top_share_limit(np.array(values), np.array(weights), share) == limit


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.floats(0.01, 0.99), st.randoms())
def test_top_share_limit_is_the_largest_that_holds_the_share(values, share, random):
    shuffled = random.sample(values, len(values))
    limit = top_share_limit(np.array(shuffled), np.array(shuffled), share)
    total = sum(values)
    assert sum(v for v in values if v >= limit) >= share * total * (1 - 1e-9)
    assert sum(v for v in values if v > limit) < share * total
    assert limit in values


def test_limits_come_from_users_and_from_interactions_of_items():
    # ten users; items with 6, 3, 2 and 1 users, 12 interactions in all
    limits = slice_limits({1: 7, 4: 2, 9: 1}, np.array([1, 6, 2, 3]), heavy_user_share=0.2, head_share=0.5)
    assert (limits.heavy_from, limits.head_from) == (4, 6)  # the two of 4 are both in
    with pytest.raises(ValueError, match="weight above 0"):
        slice_limits({}, np.array([], dtype=np.int64), 0.1, 0.5)
