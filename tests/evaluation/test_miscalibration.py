"""Calibration against values by hand and against scipy's entropy; the other metrics are in test_metrics.py."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from recsys_spark.evaluation.metrics import miscalibration

BIG = 2**62
CATEGORIES = st.sampled_from([-BIG, -1, 0, 1, 2, BIG])
LISTS = st.lists(CATEGORIES, min_size=1, max_size=8)
PASTS = st.lists(st.tuples(CATEGORIES, st.integers(1, 9)), min_size=1, max_size=5)


def ragged(rows):
    return np.array([x for row in rows for x in row], dtype=np.int64), np.cumsum([0, *map(len, rows)])


def of_users(lists, pasts, k):
    categories, offsets = ragged(lists)
    past, past_offsets = ragged([[category for category, _ in row] for row in pasts])
    counts = [count for row in pasts for _, count in row]
    return miscalibration(categories, offsets, past, counts, past_offsets, k)


def test_literal_cases():
    drama, comedy, horror = 1, 2, 3
    past = [(drama, 70), (comedy, 30)]  # the example of the paper: 70 % drama, 30 % comedy
    all_drama = 0.7 * math.log(0.7 / (0.99 * 1 + 0.01 * 0.7)) + 0.3 * math.log(0.3 / (0.01 * 0.3))
    lists = [[drama] * 7 + [comedy] * 3, [drama] * 10, [horror] * 10]
    assert of_users(lists, [past] * 3, 10).tolist() == pytest.approx([0, all_drama, math.log(100)])


def test_only_the_top_k_and_the_length_of_shorter_lists_count():
    past = [[(1, 1), (2, 1)]] * 2
    assert of_users([[1, 2, 3, 3], [2, 1]], past, 2).tolist() == [0, 0]
    assert of_users([[2, 1]], past[:1], 10).tolist() == [0]


def test_a_category_that_comes_twice_in_the_past_is_added_up():
    assert of_users([[1, 1, 2]], [[(1, 1), (2, 1), (1, 1)]], 3).tolist() == pytest.approx([0], abs=1e-12)


@given(st.lists(st.tuples(LISTS, PASTS), max_size=5), st.integers(1, 10))
def test_equals_scipy_user_by_user(users, k):
    found = of_users([items for items, _ in users], [past for _, past in users], k)
    for value, (items, past) in zip(found, users, strict=True):
        names = sorted({*items, *(category for category, _ in past)})
        p = np.array([sum(count for category, count in past if category == name) for name in names], dtype=float)
        q = np.array([items[:k].count(name) for name in names], dtype=float)
        p, q = p / p.sum(), q / q.sum()
        assert value == pytest.approx(entropy(p, 0.99 * q + 0.01 * p), abs=1e-9)
        assert 0 <= value <= math.log(100) + 1e-9


def test_users_with_nothing_to_compare_and_bad_counts_raise():
    for lists, pasts in (([[]], [[(1, 1)]]), ([[1]], [[]]), ([[1]], [])):
        with pytest.raises(ValueError, match="a list and a past of every user"):
            of_users(lists, pasts, 1)
    for count, message in ((0, "above 0"), (-1, "above 0"), (math.nan, "NaN")):
        with pytest.raises(ValueError, match=message):
            of_users([[1]], [[(1, count)]], 1)
    with pytest.raises(ValueError, match="k >= 1"):
        of_users([[1]], [[(1, 1)]], 0)
