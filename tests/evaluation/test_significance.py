"""Tests of the tests: their false alarms under the null hypothesis, their power, scipy's numbers, and Holm by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recsys_spark.evaluation.significance import (
    bootstrap_means,
    bootstrap_p_values,
    compare_models,
    holm,
    sign_flip_p_values,
)

DRAWS = 999


def null_differences(units, tests, seed=0):
    """Differences of two models that are equally good, as metrics have them: mostly 0, skewed, few values."""
    rng = np.random.default_rng(seed)
    ours, theirs = (rng.choice([0, 0, 0, 0.39, 0.63, 1], size=(units, tests)) for _ in range(2))
    return ours - theirs


def grouped(values, groups, seed=0):
    """Sums over groups of rows, as the Spark edge makes them by a hash, and the groups' sizes."""
    group_of = np.random.default_rng(seed).integers(0, groups, len(values))
    sizes = np.bincount(group_of, minlength=groups)
    sums = np.stack([np.bincount(group_of, weights=column, minlength=groups) for column in values.T], axis=1)
    return sums[sizes > 0], sizes[sizes > 0]


def false_alarms(p_values, level):
    return np.count_nonzero(p_values <= level)


def within_chance(count, tests, level):
    """Whether so many alarms are likely (0.1 % each side) when each comes with probability `level`."""
    low, high = stats.binom.ppf([0.001, 0.999], tests, level)
    return low <= count <= high


@pytest.mark.parametrize("level", [0.01, 0.05, 0.2])
def test_sign_flips_keep_their_level_under_the_null(level):
    p_values = sign_flip_p_values(null_differences(150, 1500), DRAWS, seed=1)
    assert within_chance(false_alarms(p_values, level), 1500, level)


def test_p_values_are_uniform_under_the_null():
    p_values = sign_flip_p_values(null_differences(150, 1500, seed=5), DRAWS, seed=2)
    assert stats.kstest(p_values, "uniform").pvalue > 0.001


def test_groups_of_users_keep_the_level():
    sums, _ = grouped(null_differences(6000, 1000), groups=200)
    p_values = sign_flip_p_values(sums, DRAWS, seed=1)
    assert within_chance(false_alarms(p_values, 0.05), 1000, 0.05)


def test_bootstrap_keeps_its_level_under_the_null_with_many_users():
    p_values = bootstrap_p_values(bootstrap_means(null_differences(400, 1000), np.ones(400), DRAWS, seed=1))
    assert within_chance(false_alarms(p_values, 0.05), 1000, 0.05)


def test_groups_lose_next_to_no_power():
    shift = np.random.default_rng(4).choice([0, 0.2], p=[0.9, 0.1], size=(5000, 300))
    shifted = null_differences(5000, 300, seed=3) + shift
    by_user = false_alarms(sign_flip_p_values(shifted, DRAWS, seed=1), 0.05)
    by_group = false_alarms(sign_flip_p_values(grouped(shifted, 500)[0], DRAWS, seed=1), 0.05)
    assert 150 < by_user < 290  # a shift that is found often, not always, or there is nothing to lose
    assert by_group > by_user - 25


def test_a_shift_is_found_by_both():
    shifted = null_differences(2000, 1) + 0.05
    assert sign_flip_p_values(shifted, DRAWS, seed=1)[0] == 1 / (1 + DRAWS)
    assert bootstrap_p_values(bootstrap_means(shifted, np.ones(2000), DRAWS, seed=1))[0] == 2 / (1 + DRAWS)


def test_sign_flips_equal_scipys_exact_permutation_test():
    differences = np.array([0.3, -0.1, 0.63, 0.2, 0.0, 0.5, -0.05, 0.39])
    exact = stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    ).pvalue
    found = sign_flip_p_values(differences[:, None], 40_000, seed=1)[0]
    assert found == pytest.approx(exact, abs=0.01)


def test_ties_count_as_as_large():
    # every draw of three equal differences is +-3 or +-1: abs >= 3 in a quarter of them
    assert sign_flip_p_values(np.full((3, 1), 0.1), 20_000, seed=1)[0] == pytest.approx(0.25, abs=0.02)
    assert sign_flip_p_values(np.zeros((5, 1)), DRAWS, seed=1)[0] == 1
    assert bootstrap_p_values(np.zeros((9, 1))).tolist() == [1]


def test_bootstrap_interval_equals_scipys():
    differences = null_differences(300, 1, seed=8) + 0.02
    means = bootstrap_means(differences, np.ones(300), 20_000, seed=1)
    found = np.quantile(means[:, 0], [0.025, 0.975])
    expected = stats.bootstrap((differences[:, 0],), np.mean, n_resamples=20_000, method="percentile", rng=3)
    assert found == pytest.approx(list(expected.confidence_interval), abs=0.003)


def test_bootstrap_p_value_by_hand():
    means = np.array([[0.1], [0.2], [-0.1], [0.0], [0.3], [0.4], [0.2], [0.1], [0.5]])
    assert bootstrap_p_values(means).tolist() == [2 * 3 / 10]  # two at or below 0, nine draws


def test_groups_of_unequal_size_weigh_by_their_users():
    rows = bootstrap_means(np.array([[3.0], [0.0]]), np.array([3, 1]), DRAWS, seed=1)[:, 0]
    assert set(rows) == {1.0, 0.75, 0.0}  # twice the large group, both, twice the small one


def test_holm_worked_by_hand():
    # ordered .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04, which may not fall: .02 .03 .06 .06
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]).tolist() == [1, 1]
    assert holm([0.02]).tolist() == [0.02]
    assert holm([]).tolist() == []


@given(st.lists(st.floats(0.0001, 1), min_size=1, max_size=8))
def test_holm_equals_stepping_down(p_values):
    for level in (0.01, 0.05, 0.3):
        rejected, left = set(), sorted(range(len(p_values)), key=lambda i: p_values[i])
        while left and p_values[left[0]] * len(left) <= level:
            rejected.add(left.pop(0))
        assert {i for i, value in enumerate(holm(p_values)) if value <= level} == rejected


def test_families_have_at_most_the_level_of_false_alarms():
    rng = np.random.default_rng(7)
    alarms = 0
    for seed in range(200):
        values = rng.choice([0, 0, 0.39, 1], size=(80, 4))
        found = compare_models(values, np.ones(80), "abcd", num_resamples=1200, seed=seed)
        alarms += any(pair.p_holm <= 0.05 for pair in found)
    assert alarms <= stats.binom.ppf(0.999, 200, 0.05)


def test_pairs_their_differences_and_intervals():
    rng = np.random.default_rng(2)
    base = rng.random(500)
    values = np.stack([base, base + 0.1 + 0.01 * rng.normal(size=500), base], axis=1)
    found = {(pair.model, pair.other): pair for pair in compare_models(values, np.ones(500), ["a", "b", "c"])}
    assert list(found) == [("a", "b"), ("a", "c"), ("b", "c")]
    better = found["b", "c"]
    assert better.difference == pytest.approx((values[:, 1] - base).mean())
    assert better.low < better.difference < better.high
    assert better.low > 0.09
    assert better.p_holm < 0.001
    assert better.p_bootstrap_holm < 0.001
    assert found["a", "c"][2:] == (0, 0, 0, 1, 1, 1, 1)


def test_paired_values_find_what_intervals_of_each_model_do_not():
    rng = np.random.default_rng(3)
    base = rng.choice([0.0, 1.0], size=400)
    better = np.where(rng.random(400) < 0.03, 1.0, base)
    pair = compare_models(np.stack([better, base], axis=1), np.ones(400), ["better", "base"])[0]
    half = 1.96 * base.std() / 20
    assert better.mean() - half < base.mean() + half  # the two intervals overlap
    assert pair.p_holm < 0.05


def test_same_seed_same_numbers_and_swapped_models_turn_the_sign():
    values = np.random.default_rng(1).random((200, 2))
    one = compare_models(values, np.ones(200), ["a", "b"], seed=5)[0]
    assert compare_models(values, np.ones(200), ["a", "b"], seed=5)[0] == one
    assert compare_models(values, np.ones(200), ["a", "b"], seed=6)[0] != one
    other = compare_models(values[:, ::-1], np.ones(200), ["b", "a"], seed=5)[0]
    assert (other.difference, other.p_permutation) == (pytest.approx(-one.difference), one.p_permutation)
    assert (other.low, other.high) == (pytest.approx(-one.high), pytest.approx(-one.low))


def test_many_pairs_get_enough_draws_for_holm_to_decide():
    values = np.random.default_rng(1).random((50, 8)) * 0.1 + np.arange(8)
    assert all(pair.p_holm < 0.05 for pair in compare_models(values, np.ones(50), list("abcdefgh"), num_resamples=100))


def test_one_model_has_nothing_to_compare():
    assert compare_models(np.ones((3, 1)), np.ones(3), ["a"]) == []


@pytest.mark.parametrize(
    ("totals", "num_users", "message"),
    [
        ([[1.0, 2.0]], [1], "at least two units"),
        ([[1.0], [2.0]], [1, 1], "for 2 models"),
        ([[1.0, 2.0], [1.0, 2.0]], [1], "at least two units"),
        ([[1.0, np.nan], [1.0, 2.0]], [1, 1], "finite"),
        ([[1.0, 2.0], [1.0, 2.0]], [1, 0], "at least one user"),
    ],
)
def test_totals_that_do_not_fit_raise(totals, num_users, message):
    with pytest.raises(ValueError, match=message):
        compare_models(totals, num_users, ["a", "b"])


def test_functions_refuse_nonsense():
    with pytest.raises(ValueError, match="p-values"):
        holm([0.0])
    with pytest.raises(ValueError, match="p-values"):
        holm([np.nan])
    with pytest.raises(ValueError, match="num_resamples"):
        sign_flip_p_values([[1.0]], 0, seed=1)
    with pytest.raises(ValueError, match="finite"):
        bootstrap_means([[np.inf]], [1], 10, seed=1)
