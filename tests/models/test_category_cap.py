"""Caps per category: literal tables, and equality of every engine with greedy selection, one user and one item at a time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from recsys_spark.models.category_cap import NO_CATEGORY, CategoryCap, within_cap
from recsys_spark.models.top_k import top_k_dot_product, top_k_linear, top_k_of_scores, top_k_sparse

INF = math.inf


def cap_of(categories, limit):
    return CategoryCap(np.array(categories, dtype=np.int32), limit)


def greedy(scores, k, cap, hidden):
    """Walk the candidates from the best down and take what its category has room for: lists of (position, score)."""
    lists = []
    for row, row_hidden in zip(np.asarray(scores).tolist(), hidden, strict=True):
        taken, room = [], {}
        for item in sorted(range(len(row)), key=lambda item: (-row[item], item)):
            category = int(cap.categories[item])
            is_full = category != NO_CATEGORY and room.get(category, 0) == cap.limit
            if len(taken) == k or item in row_hidden or row[item] == -INF or is_full:
                continue
            room[category] = room.get(category, 0) + 1
            taken.append((item, row[item]))
        lists.append(taken)
    return lists


def as_lists(answer):
    return [
        list(zip(positions[:count].tolist(), scores[:count].tolist(), strict=True))
        for positions, scores, count in zip(answer.positions, answer.scores, answer.counts, strict=True)
    ]


def csr(lists):
    return np.cumsum([0] + [len(row) for row in lists]), np.array([i for row in lists for i in row], dtype=np.int32)


@st.composite
def problems(draw):
    """Up to 40 items in a few categories, small integer scores that tie, and lists from far too short to far too long."""
    num_users, num_items = draw(st.integers(1, 4)), draw(st.integers(1, 40))
    scores = draw(
        hnp.arrays(np.float32, (num_users, num_items), elements=st.sampled_from([-INF, -1.0, -0.0, 0.0, 1.0, 2.0]))
    )
    codes = st.integers(NO_CATEGORY, draw(st.integers(NO_CATEGORY, min(5, num_items - 1))))
    cap = CategoryCap(draw(hnp.arrays(np.int32, num_items, elements=codes)), draw(st.integers(1, 4)))
    seen = draw(st.lists(st.lists(st.integers(0, num_items - 1), max_size=5), min_size=num_users, max_size=num_users))
    excluded = draw(hnp.arrays(np.bool_, num_items))
    return scores, draw(st.integers(1, num_items + 2)), cap, seen, excluded


def test_full_categories_are_skipped_and_the_next_items_move_up():
    scores = np.array([[9, 8, 7, 6, 5, 4], [1, 2, 3, 4, 5, 6]], dtype=np.float32)
    answer = top_k_of_scores(scores, 3, cap=cap_of([0, 0, 0, 1, 1, 2], 1))
    assert answer.positions.tolist() == [[0, 3, 5], [5, 4, 2]]
    assert answer.scores.tolist() == [[9, 6, 4], [6, 5, 3]]
    assert answer.counts.tolist() == [3, 3]


def test_list_is_short_when_the_categories_are_full():
    answer = top_k_of_scores(np.array([[1, 2, 3, 4]], dtype=np.float32), 3, cap=cap_of([3, 3, 3, 3], 2))
    assert answer.positions.tolist() == [[3, 2, -1]]
    assert answer.scores.tolist() == [[4, 3, -INF]]


def test_items_without_a_category_are_not_limited():
    scores = np.array([[6, 5, 4, 3, 2, 1]], dtype=np.float32)
    answer = top_k_of_scores(scores, 4, cap=cap_of([NO_CATEGORY, 0, NO_CATEGORY, 0, NO_CATEGORY, 1], 1))
    assert answer.positions.tolist() == [[0, 1, 2, 4]]


def test_seen_and_excluded_items_take_no_room_of_their_category():
    scores = np.array([[6, 5, 4, 3]], dtype=np.float32)
    excluded = np.array([False, True, False, False])
    answer = top_k_of_scores(scores, 2, seen=csr([[0]]), excluded=excluded, cap=cap_of([0, 0, 0, 1], 1))
    assert answer.positions.tolist() == [[2, 3]]


def test_ties_at_the_cap_go_to_the_lowest_positions():
    answer = top_k_of_scores(np.ones((1, 6), dtype=np.float32), 4, cap=cap_of([0, 0, 0, 1, 1, 1], 2))
    assert answer.positions.tolist() == [[0, 1, 3, 4]]


def test_one_category_far_ahead_of_all_others():
    """The best 5,000 items share a category, so that the first tries of 2k and 8k items are not enough."""
    scores = np.arange(6000, 0, -1, dtype=np.float32)[None].repeat(3, axis=0)
    answer = top_k_of_scores(scores, 10, cap=cap_of([0] * 5000 + list(range(1, 1001)), 3))
    assert answer.positions.tolist() == [[0, 1, 2, *range(5000, 5007)]] * 3


def test_short_lists_where_all_categories_are_full_hold_the_best_of_each():
    scores = np.random.default_rng(3).permuted(np.arange(4000, dtype=np.float32)[None].repeat(5, axis=0), axis=1)
    categories = np.arange(4000, dtype=np.int32) % 40
    answer = top_k_of_scores(scores.copy(), 100, cap=CategoryCap(categories, 2))
    assert as_lists(answer) == greedy(scores, 100, CategoryCap(categories, 2), [()] * 5)
    assert answer.counts.tolist() == [80] * 5


def test_places_of_a_list_that_remain():
    positions = np.array([[4, 0, 2, 1, -1, -1], [3, 1, 0, 4, 2, -1]], dtype=np.int32)
    mask = within_cap(positions, cap_of([0, 0, 0, 1, NO_CATEGORY], 2))
    assert mask.tolist() == [[True, True, True, False, False, False], [True, True, True, True, False, False]]


@given(problems())
def test_equals_greedy_selection(problem):
    scores, k, cap, seen, excluded = problem
    hidden = [set(row) | set(np.flatnonzero(excluded).tolist()) for row in seen]
    expected = greedy(scores, k, cap, hidden)
    assert as_lists(top_k_of_scores(scores, k, csr(seen), excluded, cap)) == expected


@given(problems(), st.integers(0, 2**32 - 1), st.integers(1, 600))
def test_every_engine_equals_greedy_selection_for_every_block_size(problem, seed, max_block_bytes):
    shape, k, cap, seen, excluded = problem
    rng = np.random.default_rng(seed)
    users, items = (rng.integers(-2, 3, (n, 2)).astype(np.float32) for n in shape.shape)
    hidden = [set(row) | set(np.flatnonzero(excluded).tolist()) for row in seen]
    answer = top_k_dot_product(users, items, k, csr(seen), excluded, max_block_bytes, cap)
    assert as_lists(answer) == greedy(users @ items.T, k, cap, hidden)
    rows, item_item = rng.integers(0, 2, shape.shape), rng.integers(-1, 2, (shape.shape[1],) * 2)
    dense = (rows @ item_item).astype(np.float32)
    rows, item_item = (sparse.csr_matrix(matrix.astype(np.float32)) for matrix in (rows, item_item))
    positive, spoken_for = dense.copy(), dense.copy()
    positive[dense <= 0] = -INF
    spoken_for[~dense.any(axis=1)] = -INF
    answer = top_k_sparse(rows, item_item, k, csr(seen), excluded, max_block_bytes, cap)
    assert as_lists(answer) == greedy(positive, k, cap, hidden)
    answer = top_k_linear(rows, item_item.toarray(), k, csr(seen), excluded, max_block_bytes, cap)
    assert as_lists(answer) == greedy(spoken_for, k, cap, hidden)


def test_a_cap_that_no_category_reaches_changes_nothing():
    scores = np.random.default_rng(0).integers(0, 30, (50, 2000)).astype(np.float32)
    plain, capped = top_k_of_scores(scores.copy(), 50), top_k_of_scores(scores, 50, cap=cap_of([0] * 2000, 50))
    assert all((part == other).all() for part, other in zip(plain, capped, strict=True))


@pytest.mark.parametrize(
    ("cap", "message"),
    [
        (cap_of([0, 1], 1), "category code from -1 to below 3 for each of 3"),
        (CategoryCap(np.zeros(3), 1), "category code from -1 to below 3 for each of 3"),
        (cap_of([0, 1, 3], 1), "category code from -1 to below 3"),
        (cap_of([0, -2, 1], 1), "category code from -1 to below 3"),
        (cap_of([0, 1, 2], 0), "a limit of at least 1 item of one category, found 0"),
    ],
)
def test_a_cap_that_does_not_fit_raises(cap, message):
    with pytest.raises(ValueError, match=message):
        top_k_of_scores(np.zeros((2, 3), dtype=np.float32), 1, cap=cap)
