"""Parts of the users and of the truth that are measured on their own: what each slice is, precisely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.columns import CATEGORY, FIRST_TIMESTAMP, ITEM_ID, TASK, USER_ID
from recsys_spark.evaluation.blocks import ITEM_USERS, SLICES, TRUTH
from recsys_spark.evaluation.run_results import ALL_USERS, CATEGORY_SLICE

NUM_INTERACTIONS = "num_interactions"


@dataclass(frozen=True)
class SliceLimits:
    """Where the slices begin, as found in the interactions before the cutoff."""

    heavy_from: int
    """Users with at least so many interactions are heavy."""
    head_from: int
    """Items with at least so many users are head items."""
    new_since: date | None = None
    """Known users whose first interaction lies on this day or later are new; null: there is no such slice."""
    categories: tuple[str, ...] = ()
    """Categories with a slice of their own."""


def top_share_limit(values: np.ndarray, weights: np.ndarray, share: float) -> int:
    """Give the largest limit so that the entries with a value of at least limit hold at least `share` of all weight.

    Entries of equal value are together above or below it, so the share may be larger. Raises ValueError without weight.
    """
    order = np.argsort(-values, kind="stable")
    held = np.cumsum(weights[order].astype(np.float64))
    if not len(held) or held[-1] <= 0:
        raise ValueError("expected at least one entry with a weight above 0")
    # a share such as 0.1 of 30 is a little more than 3 in floating point
    return int(values[order][np.searchsorted(held, share * held[-1] * (1 - 1e-12))])


def slice_limits(
    user_counts: Mapping[int, int], item_users: np.ndarray, heavy_user_share: float, head_share: float
) -> SliceLimits:
    """Find heavy users and head items; the rest of the limits is the caller's.

    user_counts: number of interactions -> users that have so many. item_users: users of each item of the catalogue.
    """
    counts, users = (np.array(list(part), dtype=np.int64) for part in (user_counts.keys(), user_counts.values()))
    return SliceLimits(
        heavy_from=top_share_limit(counts, users, heavy_user_share),
        head_from=top_share_limit(item_users, item_users, head_share),
    )


def slice_truth(truth: DataFrame, limits: SliceLimits | None) -> DataFrame:
    """Group truth into sets of items, each with the slices that it counts in.

    Needs task, user_id, item_id and, of the interactions before the cutoff, num_interactions and first_timestamp (null:
    unknown user), item_users (null or 0: not in the catalogue) and the item's category. Gives task, user_id, truth
    array<string>, slices array<string>. Without limits there is the slice `all` only.

    Slices of users share their whole truth: warm_users and cold_users split everybody, heavy_users and new_users are parts of
    the warm. Slices of items have rows of their own, since they cut each user's truth down: warm_items and cold_items,
    head_items and tail_items (which split the warm), category:NAME.
    """
    if limits is None:
        of_user, of_item = F.array(F.lit(ALL_USERS)), F.array(F.lit(ALL_USERS))
    else:
        of_user, of_item = _user_slices(limits), _item_slices(limits)
    part = "_part"
    rows = truth.select(TASK, USER_ID, ITEM_ID, of_user.alias(SLICES), F.explode(of_item).alias(part))
    sets = rows.groupBy(TASK, USER_ID, SLICES, part).agg(F.collect_set(ITEM_ID).alias(TRUTH))
    slices = F.when(F.col(part) == ALL_USERS, F.col(SLICES)).otherwise(F.array(part))
    return sets.select(TASK, USER_ID, TRUTH, slices.alias(SLICES))


def _user_slices(limits: SliceLimits) -> Column:
    known = F.col(NUM_INTERACTIONS) > 0
    names = [
        F.lit(ALL_USERS),
        F.when(known, "warm_users").otherwise("cold_users"),
        F.when(F.col(NUM_INTERACTIONS) >= limits.heavy_from, "heavy_users"),
    ]
    if limits.new_since is not None:
        names.append(F.when(known & (F.col(FIRST_TIMESTAMP) >= F.lit(limits.new_since)), "new_users"))
    return F.array_compact(F.array(*names))


def _item_slices(limits: SliceLimits) -> Column:
    known = F.col(ITEM_USERS) > 0
    is_listed = F.col(CATEGORY).isin(list(limits.categories))
    return F.array_compact(F.array(
        F.lit(ALL_USERS),
        F.when(known, "warm_items").otherwise("cold_items"),
        F.when(F.col(ITEM_USERS) >= limits.head_from, "head_items").when(known, "tail_items"),
        F.when(is_listed, F.concat(F.lit(CATEGORY_SLICE), CATEGORY)),
    ))  # fmt: skip
