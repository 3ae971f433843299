"""Ids and features as a matrix: who is in it, in which order, and what is left out."""

from __future__ import annotations

import pyarrow as pa
import pytest

from recsys_spark.models.feature_matrix import build_side

INTERACTING = ["b", "a", "b", "e"]
PAIRS = [("a", "x"), ("a", "y"), ("b", "y"), ("c", "x"), ("c", "z"), ("d", "z")]


def texts(values):
    return pa.chunked_array([values], pa.string())


def side_of(interacting=INTERACTING, pairs=PAIRS, own_ids=True):
    return build_side(texts(interacting), texts([i for i, _ in pairs]), texts([f for _, f in pairs]), own_ids)


def test_warm_ids_come_first_and_every_interaction_has_its_row():
    side = side_of()
    assert side.ids.to_pylist() == ["a", "b", "e", "c"]
    assert side.num_warm == 3
    assert side.rows.tolist() == [1, 0, 1, 2]


def test_own_ids_are_the_first_features_and_of_warm_ids_only():
    # columns: the ids a, b, e, then x, y
    assert side_of().features.toarray().tolist() == [
        [1, 0, 0, 1, 1],
        [0, 1, 0, 0, 1],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
    ]


def test_without_own_ids_only_shared_features_are_left():
    side = side_of(own_ids=False)
    assert side.features.toarray().tolist() == [[1, 1], [0, 1], [0, 0], [1, 0]]
    assert side.has_features().tolist() == [True, True, False, True]


def test_features_that_no_warm_id_has_are_left_out_with_the_ids_that_have_nothing_else():
    side = side_of()
    assert "d" not in side.ids.to_pylist()  # has z only, of which nothing is learned
    assert side.features.shape == (4, 5)  # c's z is no column


def test_order_of_the_pairs_makes_no_difference():
    other = side_of(pairs=PAIRS[::-1])
    assert other.ids == side_of().ids
    assert (other.features != side_of().features).nnz == 0


def test_ids_and_features_are_in_utf8_order():
    ids = ["\uff5e", "\U0001f600", "zz", "Zz"]  # UTF-16 would swap the last two of the sorted ones
    assert side_of(ids, []).ids.to_pylist() == ["Zz", "zz", "\uff5e", "\U0001f600"]


@pytest.mark.parametrize("own_ids", [True, False])
def test_no_features_at_all(own_ids):
    side = side_of(pairs=[], own_ids=own_ids)
    assert side.ids.to_pylist() == ["a", "b", "e"]
    assert side.features.shape == (3, 3 if own_ids else 0)
    assert side.has_features().all() == own_ids
