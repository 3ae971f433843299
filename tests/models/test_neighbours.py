"""The nearest rows of a matrix: similarities by hand, order of ties, and that blocks change nothing."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_spark.models.neighbours import BYTES_PER_PAIR, BYTES_PER_PLACE, Pairs, Similarity, nearest_rows

MEBIBYTE = 2**20


def as_blocks(matrix, starts=(0,)):
    """The entries of a dense matrix (rows are compared), cut into ranges of rows; rows and blocks without entries are left out."""
    rows, columns = np.nonzero(matrix)
    entries = np.stack([rows, columns]).astype(np.int32)
    block = np.searchsorted(starts, rows, side="right")
    return [
        Pairs(*entries[:, block == number], matrix[rows, columns][block == number].astype(np.float32))
        for number in np.unique(block)
    ]


def nearest(matrix, num_neighbours, similarity, starts=(0,), max_bytes=MEBIBYTE):
    """(row, neighbour, similarity) of all rows, with every range of rows compared with all."""
    blocks = as_blocks(np.asarray(matrix, dtype=float), starts)
    found = [nearest_rows(own, blocks, num_neighbours, similarity, max_bytes) for own in blocks]
    return [np.concatenate(columns) for columns in zip(*found, strict=True)]


def neighbours(matrix, similarity, num_neighbours=10):
    """Row to its (neighbour, similarity) pairs."""
    found: dict[int, list[tuple[int, float]]] = {}
    for row, neighbour, value in zip(*nearest(matrix, num_neighbours, similarity), strict=True):
        found.setdefault(int(row), []).append((int(neighbour), float(value)))
    return found


def by_definition(matrix, num_neighbours, similarity):
    """The same from the formula of a dense matrix, with every row sorted in whole."""
    matrix = np.asarray(matrix, dtype=float)
    means = matrix.mean(axis=1, keepdims=True) if similarity.kind == "pearson" else 0.0
    centred = matrix - means
    common, norms = centred @ centred.T, (centred**2).sum(axis=1)
    ratio = common / np.maximum(np.sqrt(np.outer(norms, norms)) + similarity.shrink, 1e-300)
    rows = []
    for row, values in enumerate(ratio):
        near = [
            (-np.float32(v), other) for other, v in enumerate(values) if v > 1e-9 and other != row and norms[row] > 1e-9
        ]
        rows += [(row, other, -value) for value, other in sorted(near)[:num_neighbours]]
    return rows


# items as rows: 0 had by users 0-3, 1 by users 0-1, 2 by user 0, 3 by user 4
ITEMS = [[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]
COSINE = Similarity("cosine", shrink=0.0)


def test_cosine_of_ones_is_the_common_users_over_the_root_of_the_users():
    found = neighbours(ITEMS, COSINE)
    assert found[0] == [(1, pytest.approx(2 / math.sqrt(8))), (2, pytest.approx(1 / math.sqrt(4)))]
    assert found[2] == [(1, pytest.approx(1 / math.sqrt(2))), (0, pytest.approx(1 / math.sqrt(4)))]


def test_cosine_weighs_the_values():
    found = neighbours([[3, 4, 0], [0, 1, 1], [2, 0, 0]], Similarity("cosine", shrink=1.0))
    expected = [(2, pytest.approx(6 / (5 * 2 + 1))), (1, pytest.approx(4 / (5 * math.sqrt(2) + 1)))]
    assert found[0] == sorted(expected, key=lambda pair: -pair[1].expected)


def test_shrink_is_added_to_the_denominator():
    found = neighbours(ITEMS, Similarity("cosine", shrink=10.0))
    assert found[0] == [(1, pytest.approx(2 / (math.sqrt(8) + 10))), (2, pytest.approx(1 / (2 + 10)))]
    # item 1 shares two of five users, item 2 the only one that it has
    one_user_each = [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 1]]
    assert neighbours(one_user_each, COSINE)[0][0] == (1, pytest.approx(3 / math.sqrt(15)))
    assert neighbours(one_user_each, Similarity("cosine", shrink=100.0))[0][0][1] == pytest.approx(
        3 / (math.sqrt(15) + 100)
    )


def test_pearson_is_the_correlation_over_all_columns_absent_ones_too():
    users = [[2, 1, 0, 0, 3], [1, 2, 0, 0, 1], [0, 0, 4, 1, 0]]
    found = neighbours(users, Similarity("pearson", shrink=0.0, num_columns=5))
    assert found == {
        0: [(1, pytest.approx(np.corrcoef(users)[0, 1]))],
        1: [(0, pytest.approx(np.corrcoef(users)[0, 1]))],
    }  # user 2 is correlated negatively with both


def test_pearson_of_a_user_who_had_everything_alike_says_nothing():
    weight = math.log(3)  # whose sums of squares are not exact
    found = neighbours([[weight] * 7, [1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0]], Similarity("pearson", 0.0, 7))
    assert found.keys() == {1, 2}
    assert [neighbour for neighbour, _ in found[1] + found[2]] == [2, 1]


def test_row_without_a_common_column_has_no_neighbours_and_none_is_its_own():
    found = neighbours(ITEMS, COSINE)
    assert 3 not in found
    assert all(row not in [other for other, _ in pairs] for row, pairs in found.items())


@pytest.mark.parametrize("starts", [(0,), (0, 1, 2, 3, 4)])
def test_equal_similarities_go_by_number_also_at_the_cut(starts):
    rows, others, _ = nearest(np.ones((5, 2)), 3, COSINE, starts)
    assert others[rows == 2].tolist() == [0, 1, 3]


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 25), st.integers(1, 15)),
    share=st.sampled_from([0.05, 0.3, 0.9]),
    cuts=st.sets(st.integers(1, 24)),
    num_neighbours=st.integers(1, 30),
    max_bytes=st.sampled_from([1, 2_000, MEBIBYTE]),
)
def test_blocks_and_strips_of_any_size_give_the_definitions_rows(seed, shape, share, cuts, num_neighbours, max_bytes):
    rng = np.random.default_rng(seed)
    matrix = (rng.random(shape) < share) * rng.integers(1, 3, shape)
    if not matrix.any():
        return
    for similarity in (Similarity("cosine", 2.0), Similarity("pearson", 0.5, shape[1])):
        rows, others, values = nearest(matrix, num_neighbours, similarity, (0, *sorted(cuts)), max_bytes)
        whole = nearest(matrix, num_neighbours, similarity)
        assert [column.tolist() for column in whole] == [rows.tolist(), others.tolist(), values.tolist()]
        expected = by_definition(matrix, num_neighbours, similarity)
        assert rows.tolist() == [row for row, _, _ in expected]
        np.testing.assert_allclose(values, [value for _, _, value in expected], rtol=1e-5)


def float32_similarities(matrix, shrink):
    """The formula as it was computed while the whole matrix was in one place: float32 throughout."""
    matrix = np.asarray(matrix, dtype=np.float32)
    users = matrix.sum(axis=1)
    found = (matrix @ matrix.T) / (np.sqrt(np.outer(users, users)) + np.float32(shrink))
    found[np.diag_indices_from(found)] = 0
    return found


@pytest.mark.parametrize("num_blocks", [1, 3, 40])
def test_similarities_of_ones_are_bit_for_bit_those_of_one_matrix_in_float32(num_blocks):
    matrix = np.random.default_rng(3).random((40, 200)) < 0.15
    rows, others, values = nearest(matrix, 12, Similarity("cosine", 7.0), np.linspace(0, 40, num_blocks + 1)[:-1])
    expected = float32_similarities(matrix, 7.0)
    assert values.dtype == np.float32
    assert (values == expected[rows, others]).all()
    for row in range(40):
        best = sorted(range(40), key=lambda other: (-expected[row, other], other))
        assert others[rows == row].tolist() == [other for other in best[:12] if expected[row, other] > 0]


def test_order_of_the_entries_changes_nothing():
    (pairs,) = as_blocks(np.array(ITEMS, dtype=float))
    shuffled = Pairs(*[column[np.array([4, 6, 2, 0, 7, 3, 1, 5])] for column in pairs])
    found, expected = (nearest_rows(block, [block], 3, COSINE, MEBIBYTE) for block in (shuffled, pairs))
    assert all((left == right).all() for left, right in zip(found, expected, strict=True))


def test_blocks_out_of_order_are_an_error_since_ties_would_be():
    first, second = as_blocks(np.array(ITEMS, dtype=float), (0, 2))
    with pytest.raises(ValueError, match="ascending rows: found row 0 after row 3"):
        nearest_rows(first, [second, first], 3, COSINE, MEBIBYTE)


def test_memory_stays_near_the_limit_with_many_rows_of_one_entry_and_many_neighbours():
    num_rows, k, limit = 20_000, 200, 8 * MEBIBYTE
    rows = np.arange(num_rows, dtype=np.int32)
    pairs = Pairs(rows, rows // 2, np.ones(num_rows, np.float32))  # every row has one other to be near to
    tracemalloc.start()
    try:
        found = nearest_rows(pairs, [pairs], k, COSINE, limit)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.rows) == num_rows
    assert peak < BYTES_PER_PLACE * num_rows * k + limit + BYTES_PER_PAIR * 2 * num_rows
    assert peak < 60 * MEBIBYTE, "32 MB are the places of the answer; all rows in one strip would take 160"
