"""ALS by the solvers of the package `implicit`: what it minimises, what the result may depend on, and what it needs."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from normal_equations import solve_rows

from recsys_spark.config import AlsConfig
from recsys_spark.errors import ConfigError, TrainingError
from recsys_spark.models import als_implicit
from recsys_spark.models.als_implicit import Factors, fit_implicit, needed_bytes

CONFIG = AlsConfig(engine="implicit", rank=3, max_iter=3, alpha=2.0, cg_steps=0, num_threads=1)
# user 10 has six items, user 40 a single one; numbers are not dense
PAIRS = [(10, i, 1.0 + i % 2) for i in range(0, 60, 10)] + [(20, 0, 3.0), (20, 50, 1.0), (30, 20, 0.5), (40, 30, 1.0)]
USERS, ITEMS, RATINGS = (np.array(column) for column in zip(*PAIRS, strict=True))


def fit(config=CONFIG, users=USERS, items=ITEMS, ratings=RATINGS):
    return fit_implicit(users, items, ratings, config)


def as_matrix(users, items):
    """The ratings with rows and columns in the order of the factors; nan where there is none."""
    matrix = np.full((len(users.idx), len(items.idx)), np.nan)
    matrix[np.searchsorted(users.idx, USERS), np.searchsorted(items.idx, ITEMS)] = RATINGS
    return matrix


def predictions(factors):
    return factors[0].vectors @ factors[1].vectors.T


def test_factors_are_named_by_the_numbers_of_users_and_items_ascending():
    users, items = fit()
    assert users.idx.tolist() == [10, 20, 30, 40]
    assert items.idx.tolist() == [0, 10, 20, 30, 40, 50]
    assert users.vectors.shape == (4, 3)
    assert users.vectors.dtype == np.float32


def test_users_solve_the_normal_equations_with_regularization_scaled_by_their_ratings():
    users, items = fit()
    expected = solve_rows(as_matrix(users, items), items.vectors, CONFIG)
    np.testing.assert_allclose(users.vectors, expected, atol=1e-5)


def test_at_the_end_items_solve_theirs_too():
    users, items = fit(CONFIG.model_copy(update={"max_iter": 300}))
    expected = solve_rows(as_matrix(users, items).T, users.vectors, CONFIG)
    np.testing.assert_allclose(items.vectors, expected, atol=1e-4)


def test_without_regularization_the_same_equations_hold():
    config = CONFIG.model_copy(update={"reg_param": 0.0, "rank": 2})
    users, items = fit(config)
    np.testing.assert_allclose(
        users.vectors, solve_rows(as_matrix(users, items), items.vectors, config), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("steps", [1, 3])
def test_conjugate_gradients_come_to_the_same_predictions(steps):
    long = {"max_iter": 300}
    exact = predictions(fit(CONFIG.model_copy(update=long)))
    np.testing.assert_allclose(predictions(fit(CONFIG.model_copy(update=long | {"cg_steps": steps}))), exact, atol=1e-3)


@pytest.mark.parametrize("steps", [0, 3])
def test_order_of_the_pairs_and_threads_do_not_change_a_bit(steps):
    config = CONFIG.model_copy(update={"cg_steps": steps})
    shuffled = np.random.default_rng(0).permutation(len(PAIRS))
    other = fit(config.model_copy(update={"num_threads": 3}), USERS[shuffled], ITEMS[shuffled], RATINGS[shuffled])
    for left, right in zip(fit(config), other, strict=True):
        assert (left.vectors == right.vectors).all()


def test_seed_changes_the_factors():
    assert np.abs(fit(CONFIG.model_copy(update={"seed": 1}))[0].vectors - fit()[0].vectors).max() > 1e-3


def test_ratings_of_0_are_no_ratings():
    more = (np.append(USERS, [20, 99]), np.append(ITEMS, [10, 10]), np.append(RATINGS, [0.0, 0.0]))
    for left, right in zip(fit(), fit(CONFIG, *more), strict=True):
        assert left.idx.tolist() == right.idx.tolist()
        assert (left.vectors == right.vectors).all()


@pytest.mark.parametrize("cause", [{"alpha": 1e300}, {"reg_param": 0.0, "rank": 6}], ids=["infinite", "singular"])
def test_matrix_that_cannot_be_solved_gives_advice(cause):
    config = CONFIG.model_copy(update=cause)
    with pytest.raises(TrainingError, match=r"cannot solve; lower als.alpha, raise als.reg_param"):
        fit(config)


def test_missing_package_is_an_error_of_the_configuration(monkeypatch):
    def no_implicit(name):
        if name.startswith("implicit"):
            raise ImportError(name)
        return importlib.import_module(name)

    monkeypatch.setattr(als_implicit, "import_module", no_implicit)
    with pytest.raises(ConfigError, match=r"pip install recsys_spark\[implicit\].*als.engine=spark"):
        fit()


def test_needed_memory_grows_with_ratings_and_with_factors():
    assert needed_bytes(2_000, 10, 8) - needed_bytes(1_000, 10, 8) == 1_000 * needed_bytes(1, 0, 8)
    assert needed_bytes(0, 10, 16) == 2 * needed_bytes(0, 10, 8)


def test_no_ratings_give_no_factors():
    nothing = np.array([], dtype=np.int64)
    assert [len(part.idx) for part in fit(CONFIG, nothing, nothing, nothing.astype(float))] == [0, 0]
    assert isinstance(fit()[0], Factors)
