"""The top-K engine: literal tables, and equality with a slow plain-Python reference where ties abound."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from recsys_spark.models.selection import TopK
from recsys_spark.models.top_k import (
    rows_per_block,
    top_k_dot_product,
    top_k_linear,
    top_k_of_scores,
    top_k_sparse,
)

INF = math.inf


def reference_top_k(scores, k, seen=None, excluded=None):
    """Sort each row's candidates by (-score, position) and take k: lists of (position, score)."""
    rows = []
    for user, row in enumerate(np.asarray(scores).tolist()):
        hidden = set() if seen is None else set(seen[user])
        hidden |= set() if excluded is None else {item for item, flag in enumerate(excluded) if flag}
        candidates = [(item, score) for item, score in enumerate(row) if item not in hidden and score > -INF]
        rows.append(sorted(candidates, key=lambda pair: (-pair[1], pair[0]))[:k])
    return rows


def csr(lists):
    """Ragged lists as (indptr, indices)."""
    indptr = np.cumsum([0] + [len(row) for row in lists])
    return indptr, np.array([item for row in lists for item in row], dtype=np.int32)


def as_lists(answer: TopK):
    """The filled part of an answer as lists of (position, score), after checking the padding."""
    rows = []
    for positions, scores, count in zip(answer.positions, answer.scores, answer.counts, strict=True):
        assert (positions[count:] == -1).all()
        assert (scores[count:] == -INF).all()
        rows.append(list(zip(positions[:count].tolist(), scores[:count].tolist(), strict=True)))
    return rows


def f32(rows):
    return np.array(rows, dtype=np.float32)


@st.composite
def problems(draw):
    """Small integer scores (with some -inf and -0.0), k around the number of items, seen and excluded items."""
    num_users, num_items = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    values = st.sampled_from([-INF, -2.0, -1.0, -0.0, 0.0, 1.0, 2.0])
    scores = draw(hnp.arrays(np.float32, (num_users, num_items), elements=values))
    items = st.lists(st.integers(0, num_items - 1), max_size=num_items)
    seen = draw(st.none() | st.lists(items, min_size=num_users, max_size=num_users))
    excluded = draw(st.none() | hnp.arrays(np.bool_, num_items))
    return scores, draw(st.integers(1, num_items + 2)), seen, excluded


# top_k_of_scores


def test_literal_table():
    scores = f32([[1, 5, 3, 5], [-1, -4, -2, -3], [0.5, -INF, 0.25, -INF]])
    answer = top_k_of_scores(scores, 3)
    assert answer.positions.tolist() == [[1, 3, 2], [0, 2, 3], [0, 2, -1]]
    assert answer.scores.tolist() == [[5, 5, 3], [-1, -2, -3], [0.5, 0.25, -INF]]
    assert answer.counts.tolist() == [3, 3, 2]
    assert [part.dtype for part in answer] == [np.int32, np.float32, np.int64]


def test_ties_at_the_cut_go_to_the_lowest_positions():
    scores = f32([[7, 2, 9, 7, 7, 9, 7], [1, 2, 3, 4, 5, 6, 7], [0, 1, 0, 0, 0, 0, 0]])
    assert top_k_of_scores(scores, 4).positions.tolist() == [[2, 5, 0, 3], [6, 5, 4, 3], [1, 0, 2, 3]]


def test_all_scores_equal_gives_the_first_positions():
    answer = top_k_of_scores(np.full((600, 1000), 3, dtype=np.float32), 10)
    assert (answer.positions == np.arange(10)).all()
    assert (answer.counts == 10).all()


def test_minus_zero_equals_zero():
    assert top_k_of_scores(f32([[0.0, -0.0, 0.0, -0.0]]), 3).positions.tolist() == [[0, 1, 2]]
    assert top_k_of_scores(f32([[-0.0, 0.0, -0.0, 0.0]]), 4).positions.tolist() == [[0, 1, 2, 3]]


def test_extreme_finite_scores_are_candidates():
    info = np.finfo(np.float32)
    scores = f32([[info.min, -INF, info.max, info.smallest_subnormal, -info.smallest_subnormal, 0]])
    assert top_k_of_scores(scores.copy(), 6).positions.tolist() == [[2, 3, 5, 4, 0, -1]]
    assert top_k_of_scores(scores, 5).positions.tolist() == [[2, 3, 5, 4, 0]]


def test_seen_and_excluded_never_appear_and_do_not_shorten_the_list():
    scores = f32([[9, 8, 7, 6, 5], [9, 8, 7, 6, 5], [9, 8, 7, 6, 5]])
    excluded = np.array([False, True, False, False, False])
    answer = top_k_of_scores(scores, 3, seen=csr([[0, 0], [], [0, 2, 3]]), excluded=excluded)
    assert answer.positions.tolist() == [[2, 3, 4], [0, 2, 3], [4, -1, -1]]
    assert answer.counts.tolist() == [3, 3, 1]


def test_user_who_has_seen_everything_gets_nothing():
    answer = top_k_of_scores(f32([[1, 2]]), 1, seen=csr([[1, 0]]))
    assert as_lists(answer) == [[]]


def test_k_larger_than_the_number_of_items_is_padded():
    answer = top_k_of_scores(f32([[1, 2]]), 4)
    assert answer.positions.tolist() == [[1, 0, -1, -1]]
    assert answer.scores.tolist() == [[2, 1, -INF, -INF]]


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_empty_input_gives_empty_output_of_the_right_shape(shape):
    for answer in (
        top_k_of_scores(np.zeros(shape, dtype=np.float32), 5),
        top_k_dot_product(np.zeros((shape[0], 4), np.float32), np.zeros((shape[1], 4), np.float32), 5),
        top_k_sparse(sparse.csr_matrix(shape), sparse.csr_matrix((shape[1], shape[1])), 5),
    ):
        assert answer.positions.shape == answer.scores.shape == (shape[0], 5)
        assert answer.counts.tolist() == [0] * shape[0]
        assert as_lists(answer) == [[]] * shape[0]


@given(problems())
def test_equals_the_reference(problem):
    scores, k, seen, excluded = problem
    expected = reference_top_k(scores, k, seen, excluded)
    answer = top_k_of_scores(scores, k, None if seen is None else csr(seen), excluded)
    assert as_lists(answer) == expected


@given(
    hnp.arrays(np.float32, (3, 40), elements=st.floats(-(2**80), 2**80, width=32) | st.just(-INF)), st.integers(1, 41)
)
def test_equals_the_reference_on_any_floats(scores, k):
    assert as_lists(top_k_of_scores(scores.copy(), k)) == reference_top_k(scores, k)


def test_equals_a_stable_sort_on_many_strips():
    rng = np.random.default_rng(0)
    for scores in (rng.normal(size=(300, 5000)), rng.integers(0, 30, (300, 5000)), rng.poisson(0.01, (300, 5000))):
        expected = np.argsort(-scores.astype(np.float32), axis=1, kind="stable")[:, :50]
        assert (top_k_of_scores(scores.astype(np.float32), 50).positions == expected).all()


@pytest.mark.parametrize("bad", [math.nan, INF])
@pytest.mark.parametrize("seen", [None, [[], [1]]])
def test_nan_and_infinity_raise_even_where_masked(bad, seen):
    with pytest.raises(ValueError, match="scores must"):
        top_k_of_scores(f32([[1, 2], [3, bad]]), 1, None if seen is None else csr(seen))


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_raises(k):
    vectors = np.ones((2, 2), dtype=np.float32)
    with pytest.raises(ValueError, match="k >= 1"):
        top_k_of_scores(vectors, k)
    with pytest.raises(ValueError, match="k >= 1"):
        top_k_dot_product(vectors, vectors, k)
    with pytest.raises(ValueError, match="k >= 1"):
        top_k_sparse(sparse.csr_matrix(vectors), sparse.csr_matrix(vectors), k)


@pytest.mark.parametrize(
    ("seen", "excluded"),
    [
        ((np.array([0, 1]), np.array([0])), None),
        ((np.array([0, 1, 1]), np.array([0, 1])), None),
        ((np.array([0, 2, 1]), np.array([0])), None),
        ((np.array([0, 1, 1]), np.array([-1])), None),
        ((np.array([0, 1, 1]), np.array([3])), None),
        (None, np.array([True, False])),
        (None, np.array([0, 1, 0])),
    ],
)
def test_masks_that_do_not_fit_raise(seen, excluded):
    with pytest.raises(ValueError, match="expected"):
        top_k_of_scores(np.zeros((2, 3), dtype=np.float32), 1, seen, excluded)


@pytest.mark.parametrize("scores", [np.zeros(3, dtype=np.float32), np.zeros((2, 3))])
def test_scores_of_another_shape_or_type_raise(scores):
    with pytest.raises(ValueError, match="float32 scores"):
        top_k_of_scores(scores, 1)


# rows_per_block


def test_rows_per_block():
    assert rows_per_block(1000, max_bytes=12_000) == 3
    assert rows_per_block(1000, max_bytes=11_999) == 2
    assert rows_per_block(1000, max_bytes=1) == 1
    assert rows_per_block(0, max_bytes=40) == 10
    assert rows_per_block(3706) * 3706 * 4 <= 256 * 2**20 < (rows_per_block(3706) + 1) * 3706 * 4


@pytest.mark.parametrize(("num_items", "max_bytes"), [(-1, 10), (10, 0)])
def test_rows_per_block_refuses_nonsense(num_items, max_bytes):
    with pytest.raises(ValueError, match="max_bytes >= 1"):
        rows_per_block(num_items, max_bytes)


# top_k_dot_product


def test_dot_product_literal_table():
    users, items = f32([[1, 0], [0, 1], [1, 1]]), f32([[3, 0], [2, 2], [0, 4]])
    answer = top_k_dot_product(users, items, 2, seen=csr([[], [2], []]))
    assert answer.positions.tolist() == [[0, 1], [1, 0], [1, 2]]
    assert answer.scores.tolist() == [[3, 2], [2, 0], [4, 4]]


@given(problems(), st.integers(1, 3), st.integers(0, 2**32 - 1), st.integers(1, 200))
def test_dot_product_equals_the_reference_for_every_block_size(problem, size, seed, max_block_bytes):
    scores, k, seen, excluded = problem
    rng = np.random.default_rng(seed)
    users = rng.integers(-2, 3, (scores.shape[0], size)).astype(np.float32)
    items = rng.integers(-2, 3, (scores.shape[1], size)).astype(np.float32)
    answer = top_k_dot_product(users, items, k, None if seen is None else csr(seen), excluded, max_block_bytes)
    assert as_lists(answer) == reference_top_k(users @ items.T, k, seen, excluded)


def test_dot_product_of_real_vectors_does_not_depend_on_block_size_beyond_rounding():
    rng = np.random.default_rng(1)
    users, items = (rng.normal(size=(n, 16)).astype(np.float32) for n in (50, 200))
    whole = top_k_dot_product(users, items, 20)
    for max_block_bytes in (1, 4 * 200 * 7, 4 * 200 * 49):
        parts = top_k_dot_product(users, items, 20, max_block_bytes=max_block_bytes)
        np.testing.assert_allclose(parts.scores, whole.scores, atol=1e-5)
        exact = (users.astype(np.float64) @ items.T.astype(np.float64))[np.arange(50)[:, None], parts.positions]
        np.testing.assert_allclose(exact, parts.scores, atol=1e-5)


@pytest.mark.parametrize(
    ("users", "items", "message"),
    [
        (f32([[math.nan]]), f32([[1]]), "finite"),
        (f32([[1]]), f32([[-INF]]), "finite"),
        (f32([[3e38]]), f32([[-3e38]]), "overflows"),
        (f32([[3e38]]), f32([[3e38]]), "below"),
        (f32([[1, 2]]), f32([[1]]), "one size"),
        (np.ones((1, 1)), f32([[1]]), "float32 user_vectors"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_dot_product_refuses_bad_vectors(users, items, message):
    with pytest.raises(ValueError, match=message):
        top_k_dot_product(users, items, 1)


# top_k_sparse


def test_sparse_literal_table():
    user_rows = sparse.csr_matrix(f32([[1, 0, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0]]))
    item_item = sparse.csr_matrix(f32([[0, 2, 1, 0], [2, 0, -1, 0], [1, -1, 0, 0], [0, 0, 0, 0]]))
    answer = top_k_sparse(user_rows, item_item, 3)
    assert as_lists(answer) == [[(1, 2), (2, 1)], [(0, 4), (1, 2)], []]


@given(
    problems(),
    st.integers(0, 2**32 - 1),
    st.integers(1, 400),
    st.sampled_from([np.float32, np.float64]),
    st.integers(1, 9),
)
def test_sparse_equals_dense_for_every_block_size(problem, seed, max_block_bytes, dtype, num_neighbours):
    scores, k, seen, excluded = problem
    rng = np.random.default_rng(seed)
    user_rows = rng.integers(0, 3, (scores.shape[0], num_neighbours))
    item_item = rng.integers(-1, 3, (num_neighbours, scores.shape[1]))
    dense = (user_rows @ item_item).astype(np.float32)
    dense[dense <= 0] = -INF
    seen_csr = None if seen is None else csr(seen)
    for container in (sparse.csr_matrix, sparse.csr_array):
        matrices = (container(user_rows.astype(dtype)), container(item_item.astype(dtype)))
        answer = top_k_sparse(*matrices, k, seen_csr, excluded, max_block_bytes)
        assert as_lists(answer) == reference_top_k(dense, k, seen, excluded)


def test_sparse_real_weights_give_the_same_bits_for_every_block_size():
    user_rows = sparse.random(40, 60, 0.2, format="csr", dtype=np.float32, random_state=0)
    item_item = sparse.random(60, 60, 0.2, format="csr", dtype=np.float32, random_state=1)
    whole = top_k_sparse(user_rows, item_item, 15)
    for max_block_bytes in (1, 60 * 20 * 7):
        blocked = top_k_sparse(user_rows, item_item, 15, max_block_bytes=max_block_bytes)
        assert all((part == whole_part).all() for part, whole_part in zip(blocked, whole, strict=True))


def test_sparse_refuses_bad_matrices():
    ones = sparse.csr_matrix(np.ones((2, 2), dtype=np.float32))
    with pytest.raises(ValueError, match="NaN"):
        top_k_sparse(sparse.csr_matrix(f32([[math.nan, 0]])), ones, 1)
    with pytest.raises(ValueError, match="CSR"):
        top_k_sparse(ones, ones.tocsc(), 1)
    with pytest.raises(ValueError, match="CSR"):
        top_k_sparse(np.ones((2, 2)), ones, 1)
    with pytest.raises(ValueError, match="item_item with 2 rows, found 1"):
        top_k_sparse(ones, ones[:1], 1)


# top_k_linear


def test_linear_keeps_negative_scores_and_zeros_and_knows_no_user_without_any_score():
    user_rows = sparse.csr_matrix(f32([[1, 0, 0], [0, 2, 0], [0, 0, 1], [0, 0, 0]]))
    weights = f32([[0, -1, 0], [3, 0, -1], [0, 0, 0]])
    answer = top_k_linear(user_rows, weights, 3)
    assert as_lists(answer) == [[(0, 0), (2, 0), (1, -1)], [(0, 6), (1, 0), (2, -2)], [], []]


@given(problems(), st.integers(0, 2**32 - 1), st.integers(1, 400))
def test_linear_equals_the_reference_for_every_block_size(problem, seed, max_block_bytes):
    scores, k, seen, excluded = problem
    rng = np.random.default_rng(seed)
    user_rows = rng.integers(0, 3, scores.shape).astype(np.float32)
    weights = rng.integers(-2, 3, (scores.shape[1], scores.shape[1])).astype(np.float32)
    dense = user_rows @ weights
    dense[(dense == 0).all(axis=1)] = -INF
    seen_csr = None if seen is None else csr(seen)
    answer = top_k_linear(sparse.csr_matrix(user_rows), weights, k, seen_csr, excluded, max_block_bytes)
    assert as_lists(answer) == reference_top_k(dense, k, seen, excluded)


def test_linear_real_weights_give_the_same_bits_for_every_block_size():
    user_rows = sparse.random(40, 60, 0.2, format="csr", dtype=np.float32, random_state=0)
    weights = np.random.default_rng(1).normal(size=(60, 60)).astype(np.float32)
    whole = top_k_linear(user_rows, weights, 15)
    for max_block_bytes in (1, 60 * 4 * 7):
        blocked = top_k_linear(user_rows, weights, 15, max_block_bytes=max_block_bytes)
        assert all((part == whole_part).all() for part, whole_part in zip(blocked, whole, strict=True))


@pytest.mark.parametrize("weights", [np.ones((2, 2)), f32([[1, 2]]), f32([[math.nan, 0], [0, 0]])])
def test_linear_refuses_bad_weights(weights):
    with pytest.raises(ValueError, match=r"float32 user_rows|NaN"):
        top_k_linear(sparse.csr_matrix(f32([[1, 0]])), weights, 1)
