"""Do lists hold a user's categories in the shares of the user's past? In numpy, on the ragged lists of ragged.py.

Steck, Calibrated Recommendations, RecSys 2018.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_spark.evaluation.ragged import (
    Ints,
    check_no_duplicates,
    checked_ragged,
    compact,
    count_keys,
    rows_of,
    top_k_part,
)

Floats = NDArray[np.float64]

SMOOTHING = 0.01
"""The share of the past that is mixed into the list's categories before they are compared; the paper's value."""


class CategoryShares(NamedTuple):
    """One entry for every category of every user's past, user by user."""

    users: Ints
    """Row of the user."""
    past: Floats
    """Share of the category in the user's past, above 0; the shares of a user sum to 1."""
    listed: Floats
    """Its share of the top k."""


def category_shares(
    list_categories: ArrayLike,
    list_offsets: ArrayLike,
    past_categories: ArrayLike,
    past_counts: ArrayLike,
    past_offsets: ArrayLike,
    k: int,
) -> CategoryShares:
    """Compare the categories of each top k (of its length, when the list is shorter) with those of the user's past.

    Args:
        list_categories: category code of each recommended item, each list in rank order.
        list_offsets: where each list starts and ends.
        past_categories: categories of each user's past, each once, of the same codes.
        past_counts: how much of the past each of them is, above 0.
        past_offsets: where each user's past starts and ends.
        k: list length, at least 1.

    Raises:
        ValueError: arguments that do not fit, and users without a list or without a past (there is nothing to
            compare), a category that comes twice in a past.
    """
    categories, offsets = checked_ragged(list_categories, list_offsets, "category")
    past, past_bounds = checked_ragged(past_categories, past_offsets, "past")
    counts = np.asarray(past_counts, dtype=np.float64)
    if len(offsets) != len(past_bounds) or not (np.diff(offsets) > 0).all() or not (np.diff(past_bounds) > 0).all():
        raise ValueError(
            f"expected a list and a past of every user, found {len(offsets) - 1} lists ({int((np.diff(offsets) <= 0).sum())} empty) and "
            f"{len(past_bounds) - 1} pasts ({int((np.diff(past_bounds) <= 0).sum())} empty): leave the others out"
        )
    if counts.shape != past.shape or not ((counts > 0) & np.isfinite(counts)).all():
        raise ValueError(
            f"expected one finite past_count above 0 per category of the past, found {counts.size} for {past.size} categories, "
            f"{int((~((counts > 0) & np.isfinite(counts))).sum())} of them 0, negative or not finite"
        )
    rows, past_rows = rows_of(offsets), rows_of(past_bounds)
    in_top_k, lengths = top_k_part(rows, offsets, k)
    codes, past_codes, num_codes = compact(categories, past, len(offsets))
    listed, sizes = count_keys((rows * num_codes + codes)[in_top_k])
    keys = past_rows * num_codes + past_codes
    check_no_duplicates(keys, num_codes, "past")
    found = np.minimum(np.searchsorted(listed, keys), len(listed) - 1)
    past_shares = counts / np.bincount(past_rows, weights=counts)[past_rows]
    return CategoryShares(past_rows, past_shares, np.where(listed[found] == keys, sizes[found], 0) / lengths[past_rows])


def miscalibration(shares: CategoryShares, num_users: int) -> Floats:
    """Distance of each user's list from the past: 0 = the same shares, at most ln(1 / SMOOTHING) = 4.6 (nothing in common).

    KL(p || q') = sum over categories c of p(c) ln(p(c) / q'(c)), with p(c) the share of c in the past, q(c) its share of
    the list, and q' = (1 - a) q + a p, a = SMOOTHING, so that a category that the list lacks costs much but not infinity.
    """
    mixed = (1 - SMOOTHING) * shares.listed + SMOOTHING * shares.past
    distances = np.bincount(shares.users, weights=shares.past * np.log(shares.past / mixed), minlength=num_users)
    # Equal shares may leave a rounding residue, also a negative one.
    return np.maximum(0, distances)
