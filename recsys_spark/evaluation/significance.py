"""Are two models different on the same users? Paired randomisation tests and bootstrap intervals, in numpy.

The units of every test are rows: a user, or a group of users whose values are added up (group_by_user_hash in evaluate.py).
Users are put into groups by a hash of their id, which knows nothing of the models, so flipping the sign of a group's
difference is as valid under the null hypothesis as flipping a user's. That keeps time and memory the same for any number of
users; docs/adr/0016 says what it costs in power (next to nothing with thousands of groups).
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

NUM_GROUPS = 4096
"""Groups of users; with fewer users most groups hold one user or none."""

_CELLS = 2**21
"""Signs or weights drawn at once: 16 MB of float64."""

_TIE = 1e-9
"""Statistics that differ by less than this share are equal: they are sums of the same numbers in another order."""


class Comparison(NamedTuple):
    """Two models on the same users. Every p-value is two-sided."""

    model: str
    other: str
    difference: float
    """Mean of model minus mean of other, over all users."""
    low: float
    high: float
    """Bootstrap interval of the difference, for this pair alone."""
    p_permutation: float
    """Of the sign-flip test."""
    p_bootstrap: float
    p_holm: float
    """p_permutation after Holm's correction for all pairs that were compared together: what a claim rests on."""
    p_bootstrap_holm: float


def verdict(comparisons: Sequence[Comparison], model: str, other: str, confidence: float) -> int | None:
    """Say how a model stands to another by the corrected permutation test: 1 above, -1 below, 0 no difference was shown.

    Null where the two were not compared.
    """
    for pair in comparisons:
        if {pair.model, pair.other} == {model, other} and model != other:
            sign = 1 if (pair.difference > 0) == (pair.model == model) else -1
            return sign if pair.p_holm <= 1 - confidence else 0
    return None


def best_models(comparisons: Sequence[Comparison], confidence: float) -> list[str]:
    """Give the model with the highest mean, then those that were not shown to be below it, in the order of the comparisons."""
    models = list(dict.fromkeys(name for pair in comparisons for name in (pair.model, pair.other)))
    behind = {pair.other if pair.difference >= 0 else pair.model for pair in comparisons}
    ahead = [model for model in models if model not in behind]
    if not ahead:
        return []
    return [ahead[0], *(model for model in models if verdict(comparisons, model, ahead[0], confidence) == 0)]


def compare_models(
    totals: ArrayLike,
    num_users: ArrayLike,
    models: Sequence[str],
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 42,
) -> list[Comparison]:
    """Compare every pair of models; the best one is then known from the same data, which all pairs together allow for.

    Args:
        totals: shape (units, models), the sum of the metric over the users of each unit; every model on the same users.
        num_users: shape (units,), the users of each unit, at least 1; all ones when units are users.
        models: the columns' names.
        confidence: level of the intervals.
        num_resamples: random draws of each test; raised to ten times what Holm's first step needs to reach 1 - confidence.
        seed: of the draws; the same arguments give the same numbers.

    Returns:
        One Comparison per pair, in the order of models.

    Raises:
        ValueError: fewer than two units, shapes that do not fit, NaN or infinite totals, units without users.
    """
    values, sizes = np.asarray(totals, dtype=np.float64), np.asarray(num_users, dtype=np.float64)
    if values.ndim != 2 or values.shape != (len(sizes), len(models)) or len(sizes) < 2:
        raise ValueError(
            f"expected totals of at least two units for {len(models)} models, found {values.shape} and {len(sizes)} sizes"
        )
    if not np.isfinite(values).all() or not (sizes >= 1).all():
        num_bad, num_empty = int((~np.isfinite(values)).sum()), int((~(sizes >= 1)).sum())
        raise ValueError(
            f"expected finite totals and units of at least one user, found {num_bad} totals that are not finite and {num_empty} units "
            "without users"
        )
    pairs = list(combinations(range(len(models)), 2))
    if not pairs:
        return []
    differences = np.stack([values[:, one] - values[:, other] for one, other in pairs], axis=1)
    num_resamples = max(num_resamples, ceil(10 * len(pairs) / (1 - confidence)))
    p_permutation = sign_flip_p_values(differences, num_resamples, seed)
    means = bootstrap_means(differences, sizes, num_resamples, seed)
    p_bootstrap = bootstrap_p_values(means)
    lows, highs = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    columns = (
        differences.sum(axis=0) / sizes.sum(), lows, highs, p_permutation, p_bootstrap, holm(p_permutation), holm(p_bootstrap)
    )  # fmt: skip
    return [
        Comparison(models[one], models[other], *(float(column[place]) for column in columns))
        for place, (one, other) in enumerate(pairs)
    ]


def sign_flip_p_values(differences: ArrayLike, num_resamples: int, seed: int) -> Floats:
    """Permutation test of paired differences: were the two models' names exchanged at random, how rare is such a sum?

    p = (1 + number of draws with abs(sum of s_u d_u) >= abs(sum of d_u)) / (1 + draws), signs s_u = +1 or -1 with equal
    chances; ties count as at least as large, and the 1 is the data itself, so p is never 0 and the test keeps its level
    (Smucker, Allan & Carterette, CIKM 2007; Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010).

    Args:
        differences: shape (units, tests); one column per test, all with the same signs.
        num_resamples: draws, at least 1.
        seed: of the signs.
    """
    rows = _checked_differences(differences, num_resamples)
    observed = np.abs(rows.sum(axis=0))
    rng = np.random.default_rng([seed, 0])
    as_large = np.zeros(rows.shape[1], dtype=np.int64)
    for size in _blocks(num_resamples, len(rows)):
        bits = np.unpackbits(
            np.frombuffer(rng.bytes(-(-size * len(rows) // 8)), dtype=np.uint8), count=size * len(rows)
        )
        signs = bits.reshape(size, len(rows)) * 2.0 - 1.0
        as_large += np.count_nonzero(np.abs(signs @ rows) >= observed * (1 - _TIE), axis=0)
    return (1 + as_large) / (1 + num_resamples)


def bootstrap_means(differences: ArrayLike, num_users: ArrayLike, num_resamples: int, seed: int) -> Floats:
    """Give the mean difference per user in samples of as many units, drawn with replacement: shape (draws, tests).

    Efron & Tibshirani, An Introduction to the Bootstrap, 1993. The same sample serves every column, so tests stay paired.
    """
    rows, sizes = _checked_differences(differences, num_resamples), np.asarray(num_users, dtype=np.float64)
    rng = np.random.default_rng([seed, 1])
    units, means = len(rows), []
    for size in _blocks(num_resamples, units):
        drawn = rng.integers(0, units, size=(size, units)) + np.arange(size)[:, None] * units
        weights = np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units).astype(np.float64)
        means.append(weights @ rows / (weights @ sizes)[:, None])
    return np.concatenate(means)


def bootstrap_p_values(means: Floats) -> Floats:
    """Give 2 (1 + number of means on the rarer side of 0) / (1 + draws), at most 1; a mean of 0 lies on both sides.

    It is below 1 - confidence where the percentile interval leaves 0 out. With few units (say below 30) it is too small.
    """
    rarer = np.minimum(np.count_nonzero(means <= 0, axis=0), np.count_nonzero(means >= 0, axis=0))
    return np.minimum(1.0, 2 * (1 + rarer) / (1 + len(means)))


def holm(p_values: ArrayLike) -> Floats:
    """Adjust p-values of tests that are looked at together, so that any false alarm at level a has a chance of at most a.

    The i-th smallest of m is multiplied by m - i + 1, then raised to the adjusted one before it, at most 1 (Holm, Scand. J.
    Statist. 6, 1979). Holds for any dependence of the tests. Gives them in the order of the argument.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or not ((values > 0) & (values <= 1)).all():
        raise ValueError(f"expected one row of p-values above 0, at most 1, found {values.tolist()[:10]}")
    order = np.argsort(values, kind="stable")
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return adjusted


def _checked_differences(differences: ArrayLike, num_resamples: int) -> Floats:
    rows = np.asarray(differences, dtype=np.float64)
    if rows.ndim != 2 or not len(rows) or not np.isfinite(rows).all():
        raise ValueError(f"expected finite differences of shape (units, tests), found {rows.shape}")
    if num_resamples < 1:
        raise ValueError(f"expected num_resamples >= 1, found {num_resamples}")
    return rows


def _blocks(num_resamples: int, units: int) -> Iterator[int]:
    """Sizes of blocks of draws that fit the memory; at least one draw each."""
    block = max(1, _CELLS // units)
    for start in range(0, num_resamples, block):
        yield min(block, num_resamples - start)
