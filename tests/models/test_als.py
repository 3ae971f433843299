"""Implicit ALS on a few users: what the factors may depend on, and that broken ones are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from normal_equations import solve_rows

from recsys_spark.config import AlsConfig
from recsys_spark.errors import ConfigError, TrainingError
from recsys_spark.models.als import check_factors, fit_als

CONFIG = AlsConfig(rank=3, max_iter=2, num_blocks=2, alpha=2.0)
PAIRS = [(user, item, 1.0 + (user * item) % 3) for user in range(9) for item in range(7) if (user + item) % 3]


def interactions(spark, rows=PAIRS):
    return spark.createDataFrame(rows, "user_idx int, item_idx int, weight double")


def factors(frames):
    """Users' and items' vectors, each as idx -> vector."""
    users, items = frames
    return (
        {row["user_idx"]: row["vector"] for row in users.collect()},
        {row["item_idx"]: row["vector"] for row in items.collect()},
    )


def assert_close(left, right, tolerance=1e-6):
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for key, vector in one.items():
            np.testing.assert_allclose(vector, other[key], rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def fitted(spark_session):
    return factors(fit_als(interactions(spark_session), CONFIG))


def test_every_user_and_item_gets_a_vector_of_the_rank(spark, fitted):
    users, items = fitted
    assert sorted(users) == list(range(9))
    assert sorted(items) == list(range(7))
    assert {len(vector) for part in fitted for vector in part.values()} == {3}


def test_order_and_partitions_of_the_rows_do_not_change_the_factors(spark, fitted):
    spread = interactions(spark, PAIRS[::-1]).repartition(5, "item_idx")
    assert_close(factors(fit_als(spread, CONFIG)), fitted)


def test_seed_changes_the_factors(spark, fitted):
    other = factors(fit_als(interactions(spark), CONFIG.model_copy(update={"seed": 1})))
    with pytest.raises(AssertionError):
        assert_close(other, fitted, tolerance=1e-3)


def test_weight_scale_one_forgets_the_weights(spark):
    scale = CONFIG.model_copy(update={"weight_scale": "one"})
    all_ones = [(user, item, 1.0) for user, item, _ in PAIRS]
    assert_close(factors(fit_als(interactions(spark), scale)), factors(fit_als(interactions(spark, all_ones), scale)))


def test_weight_scale_log_is_linear_of_log1p(spark, fitted):
    logs = [(user, item, math.log1p(weight)) for user, item, weight in PAIRS]
    linear = factors(fit_als(interactions(spark, logs), CONFIG.model_copy(update={"weight_scale": "linear"})))
    assert_close(linear, fitted, tolerance=1e-5)


def test_observed_pairs_score_above_the_others(spark, fitted):
    users, items = fitted
    observed = {(user, item) for user, item, _ in PAIRS}
    scores = {(u, i): float(np.dot(users[u], items[i])) for u in users for i in items}
    mean_in = np.mean([score for pair, score in scores.items() if pair in observed])
    mean_out = np.mean([score for pair, score in scores.items() if pair not in observed])
    assert mean_in > mean_out


def test_users_solve_the_equations_that_the_other_engine_solves(fitted):
    users, items = fitted
    matrix = np.full((9, 7), np.nan)
    for user, item, weight in PAIRS:
        matrix[user, item] = math.log1p(weight)
    fixed = np.array([items[i] for i in range(7)])
    expected = solve_rows(matrix, fixed, CONFIG)
    np.testing.assert_allclose(np.array([users[u] for u in range(9)]), expected, atol=1e-4)


def test_engine_implicit_gives_the_same_columns_and_keys(spark, fitted):
    frames = fit_als(interactions(spark), CONFIG.model_copy(update={"engine": "implicit"}))
    assert [frame.dtypes for frame in frames] == [
        [("user_idx", "int"), ("vector", "array<float>")],
        [("item_idx", "int"), ("vector", "array<float>")],
    ]
    for own, other in zip(factors(frames), fitted, strict=True):
        assert own.keys() == other.keys()
        assert {len(vector) for vector in own.values()} == {3}


def test_engine_implicit_says_what_memory_it_needs(spark):
    config = CONFIG.model_copy(update={"engine": "implicit", "max_driver_bytes": 1000})
    with pytest.raises(ConfigError, match=r"needs about [\d,]+ bytes.*als.max_driver_bytes = 1,000.*als.engine=spark"):
        fit_als(interactions(spark), config)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_factor_that_is_not_finite_is_refused(spark, broken):
    vectors = spark.createDataFrame([(1, [0.5, 0.5]), (2, [0.5, broken])], "user_idx int, vector array<float>")
    with pytest.raises(TrainingError, match=r"1 users with factors that are not finite; lower als.alpha"):
        check_factors(vectors, "users")


def test_finite_factors_pass(spark):
    check_factors(spark.createDataFrame([(1, [0.0, -3e38])], "user_idx int, vector array<float>"), "users")
