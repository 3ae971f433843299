"""Shares of categories and their distance, against values by hand and against scipy's entropy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from recsys_spark.evaluation.calibration import category_shares, miscalibration

BIG = 2**62
CATEGORIES = st.sampled_from([-BIG, -1, 0, 1, 2, BIG])
LISTS = st.lists(CATEGORIES, min_size=1, max_size=8)
PASTS = st.lists(st.tuples(CATEGORIES, st.integers(1, 9)), min_size=1, max_size=5, unique_by=lambda entry: entry[0])


def ragged(rows):
    return np.array([x for row in rows for x in row], dtype=np.int64), np.cumsum([0, *map(len, rows)])


def shares_of(lists, pasts, k):
    categories, offsets = ragged(lists)
    past, past_offsets = ragged([[category for category, _ in row] for row in pasts])
    counts = [count for row in pasts for _, count in row]
    return category_shares(categories, offsets, past, counts, past_offsets, k)


def of_users(lists, pasts, k):
    return miscalibration(shares_of(lists, pasts, k), len(lists))


def test_shares_of_every_category_of_the_past():
    shares = shares_of([[1, 1, 2, 3], [9]], [[(1, 3), (5, 1)], [(9, 2)]], 4)
    assert shares.users.tolist() == [0, 0, 1]
    assert shares.past.tolist() == [0.75, 0.25, 1]
    assert shares.listed.tolist() == [0.5, 0, 1]


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
    for count in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="above 0"):
            of_users([[1]], [[(1, count)]], 1)
    with pytest.raises(ValueError, match="1 duplicate items in a past, the first in row 0"):
        of_users([[1, 1, 2]], [[(1, 1), (2, 1), (1, 1)]], 3)
    with pytest.raises(ValueError, match="k >= 1"):
        of_users([[1]], [[(1, 1)]], 0)
