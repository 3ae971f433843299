"""EASE's closed form against the problem that it solves, and its memory."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from recsys_spark.errors import TrainingError
from recsys_spark.models import ease
from recsys_spark.models.ease import add_to_gram, driver_bytes, item_weights, worker_bytes


@pytest.fixture(scope="module")
def user_items():
    return (
        (np.random.default_rng(1).random((60, 17)) < 0.3) * np.random.default_rng(2).integers(1, 4, (60, 17))
    ).astype(np.float32)


def gram_of(matrix):
    gram = np.zeros((matrix.shape[1], matrix.shape[1]))
    add_to_gram(gram, sparse.csr_matrix(matrix))
    return gram


@pytest.fixture(params=[1, 10_000, 64 * 2**20], ids=["strips of a row", "a few strips", "one strip"])
def strips(request, monkeypatch):
    monkeypatch.setattr(ease, "_STRIP_BYTES", request.param)


@pytest.mark.usefixtures("strips")
def test_gram_sums_over_blocks_of_users(user_items):
    gram = gram_of(user_items[:20])
    add_to_gram(gram, sparse.csr_matrix(user_items[20:]))
    assert (gram == user_items.T.astype(float) @ user_items).all()


def loss(user_items, weights, regularization):
    return ((user_items - user_items @ weights) ** 2).sum() + regularization * (weights**2).sum()


@pytest.mark.usefixtures("strips")
@pytest.mark.parametrize("largest_factor", [17, 9, 3], ids=["at once", "in halves", "in halves of halves"])
def test_weights_solve_each_items_ridge_regression_without_the_item_itself(user_items, monkeypatch, largest_factor):
    monkeypatch.setattr(ease, "_LARGEST_FACTOR", largest_factor)
    weights = item_weights(gram_of(user_items), 5.0)
    assert weights.dtype == np.float32
    assert (np.diag(weights) == 0).all()
    assert (weights < 0).any()
    for item in range(17):
        others = np.delete(user_items.astype(float), item, axis=1)
        solved = np.linalg.solve(others.T @ others + 5.0 * np.eye(16), others.T @ user_items[:, item])
        np.testing.assert_allclose(np.delete(weights[:, item], item), solved, rtol=1e-5, atol=1e-7)


def test_two_items_by_hand():
    # X'X = [[2, 1], [1, 1]]: the best weight of item 0 for item 1 is 1 / (2 + regularization)
    weights = item_weights(gram_of(np.array([[1, 1], [1, 0]], np.float32)), 0.5)
    np.testing.assert_allclose(weights, [[0, 1 / 2.5], [1 / 1.5, 0]], rtol=1e-6)


@pytest.mark.parametrize("largest_factor", [8, 4])
def test_items_without_common_users_have_a_weight_of_exactly_0(monkeypatch, largest_factor):
    monkeypatch.setattr(ease, "_LARGEST_FACTOR", largest_factor)
    weights = item_weights(gram_of(np.kron(np.eye(2), np.ones((3, 4))).astype(np.float32)), 1.0)
    assert (weights[:4, 4:] == 0).all()
    assert (weights[4:, :4] == 0).all()
    assert (weights[:4, :4][~np.eye(4, dtype=bool)] > 0).all()


def test_weights_lie_in_the_memory_of_the_gram_matrix(user_items):
    gram = gram_of(user_items)
    assert np.shares_memory(item_weights(gram, 5.0), gram)
    assert driver_bytes(17) == gram.nbytes
    assert driver_bytes(16_385) > 1.49 * driver_bytes(16_384), "halves need room beside them"
    assert worker_bytes(17) == item_weights(gram_of(user_items), 5.0).nbytes


@pytest.mark.parametrize("broken", [np.nan, np.inf, -1e9])
def test_matrix_that_cannot_be_inverted_says_what_to_do(user_items, broken):
    gram = gram_of(user_items)
    gram[3, 3] = broken
    with pytest.raises(TrainingError, match=r"raise ease.regularization.*ease.weight_scale"):
        item_weights(gram, 5.0)
