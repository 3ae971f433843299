"""Item-item neighbours: similarities by hand, order, and that the block size changes nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import sparse

from recsys_spark.models.neighbours import similar_items


def user_items(*users):
    return sparse.csr_matrix(np.array(users, dtype=np.float32))


def neighbours(matrix, num_neighbours=10, shrink=0.0, first=0, stop=None):
    """Item to its (neighbour, similarity) pairs."""
    found: dict[int, list[tuple[int, float]]] = {}
    columns = similar_items(matrix, first, matrix.shape[1] if stop is None else stop, num_neighbours, shrink)
    for item, neighbour, similarity in zip(*columns, strict=True):
        found.setdefault(int(item), []).append((int(neighbour), float(similarity)))
    return found


# items: 0 had by users 0-3, 1 by users 0-1, 2 by user 0, 3 by user 4
FIVE_USERS = user_items([1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1])


def test_similarity_is_the_cosine_of_the_users():
    found = neighbours(FIVE_USERS)
    assert found[0] == [(1, pytest.approx(2 / math.sqrt(8))), (2, pytest.approx(1 / math.sqrt(4)))]
    assert found[2] == [(1, pytest.approx(1 / math.sqrt(2))), (0, pytest.approx(1 / math.sqrt(4)))]


def test_shrink_is_added_to_the_denominator():
    found = neighbours(FIVE_USERS, shrink=10.0)
    assert found[0] == [(1, pytest.approx(2 / (math.sqrt(8) + 10))), (2, pytest.approx(1 / (2 + 10)))]
    one_user_each = user_items([1, 1, 0], [1, 0, 1], [1, 0, 1], [1, 0, 0], [1, 0, 0])
    assert [item for item, _ in neighbours(one_user_each, shrink=0.0)[0]] == [2, 1]
    assert neighbours(one_user_each, shrink=100.0)[0][0][1] == pytest.approx(2 / (math.sqrt(10) + 100))


def test_item_without_common_users_has_no_neighbours_and_none_is_its_own():
    found = neighbours(FIVE_USERS)
    assert 3 not in found
    assert all(item not in [other for other, _ in pairs] for item, pairs in found.items())


def test_equal_similarities_go_by_position_also_at_the_cut():
    everything_together = user_items([1, 1, 1, 1, 1], [1, 1, 1, 1, 1])
    assert [item for item, _ in neighbours(everything_together, num_neighbours=3)[2]] == [0, 1, 3]


def test_similarities_are_float32():
    assert similar_items(FIVE_USERS, 0, 4, 2, 1.0)[2].dtype == np.float32


@pytest.mark.parametrize("block", [1, 7, 30, 1000])
def test_blocks_of_any_size_give_the_same_rows(block):
    matrix = sparse.csr_matrix((np.random.default_rng(3).random((50, 30)) < 0.2).astype(np.float32))
    whole = similar_items(matrix, 0, 30, 5, 2.0)
    parts = [similar_items(matrix, start, min(start + block, 30), 5, 2.0) for start in range(0, 30, block)]
    for name, column in zip(("item", "neighbour", "similarity"), whole, strict=True):
        joined = np.concatenate([part[("item", "neighbour", "similarity").index(name)] for part in parts])
        assert (joined == column).all(), name


def test_order_of_the_users_changes_nothing():
    shuffled = FIVE_USERS[np.array([4, 2, 0, 3, 1])]
    assert neighbours(shuffled, shrink=1.0) == neighbours(FIVE_USERS, shrink=1.0)


def test_empty_range_gives_nothing_and_one_outside_is_an_error():
    assert [len(column) for column in similar_items(FIVE_USERS, 2, 2, 3, 0.0)] == [0, 0, 0]
    with pytest.raises(ValueError, match="items 2 to 5 are not within the 4 items"):
        similar_items(FIVE_USERS, 2, 5, 3, 0.0)
