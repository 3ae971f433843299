"""What all lists of a model hold together: how often each item is listed, how far down the tail, which categories."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.columns import (
    CATEGORY,
    CI_HIGH,
    CI_LOW,
    ITEM_ID,
    METRIC,
    MODEL,
    NUM_USERS,
    RANK,
    SLICE,
    TASK,
    VALUE,
    K,
)
from recsys_spark.evaluation import metrics
from recsys_spark.evaluation.blocks import ITEM_USERS
from recsys_spark.evaluation.known import Known
from recsys_spark.evaluation.run_results import ALL_USERS, Categories, Tail
from recsys_spark.evaluation.sums import calibration_curves

SHOWN_CATEGORIES = 8
"""Rows of the plot of categories: more would not be read."""

_KIND, _KEY, _ITEMS, _PLACES = "kind", "key", "num_items", "num_places"
_TIMES, _FIRST_RANK = "times_listed", "first_rank"


@dataclass(frozen=True)
class ListProfile:
    """The lists of one model on one task. Keys -> number; everything but new_at_rank is about the top k."""

    times_listed: Mapping[int, int]
    """How often an item of the catalogue is listed -> items that are listed so often."""
    new_at_rank: Mapping[int, int]
    """Rank -> items of the catalogue that are in nobody's list further up; at any rank."""
    places_by_item_users: Mapping[int, int]
    """Users of an item before the cutoff -> list places that such items take; 0: not in the catalogue."""
    places_by_category: Mapping[str, int]
    """Category ("" where it is missing) -> list places of its items."""

    def counts(self) -> np.ndarray:
        """Give how often each listed item is listed, most often first."""
        times = sorted(self.times_listed, reverse=True)
        return np.repeat(times, [self.times_listed[value] for value in times]).astype(np.int64)

    def coverage_by_length(self, catalogue_size: int, length: int) -> np.ndarray:
        """Give coverage of the top 1, 2, ... length."""
        new = [self.new_at_rank.get(rank, 0) for rank in range(1, length + 1)]
        return np.array([metrics.coverage(int(listed), catalogue_size) for listed in np.cumsum(new)])


def list_profile(
    recommendations: DataFrame, item_stats: DataFrame, k: int, lists_cold: Collection[str] = ()
) -> DataFrame:
    """Count the items and places of lists by four keys; `profiles` reads the collected rows.

    Needs the recommendations table and item_stats (item_id, item_users, category). Gives task, model, kind (times_listed,
    first_rank, item_users, category), key (as text), num_items, num_places (in the top k). An item that nobody had is of the
    catalogue of the models in lists_cold only.
    """
    per_item = recommendations.groupBy(TASK, MODEL, ITEM_ID).agg(
        F.count_if(F.col(RANK) <= k).alias(_TIMES), F.min(RANK).alias(_FIRST_RANK)
    )
    known = per_item.join(item_stats, on=ITEM_ID, how="left").withColumns({
        ITEM_USERS: F.coalesce(ITEM_USERS, F.lit(0)), CATEGORY: F.coalesce(CATEGORY, F.lit("")),
    })  # fmt: skip
    keys = F.array(*[
        F.struct(F.lit(name).alias(_KIND), F.col(name).cast("string").alias(_KEY))
        for name in (_TIMES, _FIRST_RANK, ITEM_USERS, CATEGORY)
    ])  # fmt: skip
    in_catalogue = (F.col(ITEM_USERS) > 0) | F.col(MODEL).isin(list(lists_cold))
    is_counted = F.col(_KIND).isin(ITEM_USERS, CATEGORY) | in_catalogue
    rows = known.select(TASK, MODEL, _TIMES, ITEM_USERS, F.inline(keys)).where(is_counted)
    return rows.groupBy(TASK, MODEL, _KIND, _KEY).agg(F.count("*").alias(_ITEMS), F.sum(_TIMES).alias(_PLACES))


def profiles(profile_pdf: pd.DataFrame) -> dict[tuple[str, str], ListProfile]:
    """Give (task, model) -> profile from the collected rows of `list_profile`."""
    return {
        (str(task), str(model)): ListProfile(
            times_listed={int(times): items for times, items in _numbers(rows, _TIMES, _ITEMS).items() if times != "0"},
            new_at_rank={int(rank): items for rank, items in _numbers(rows, _FIRST_RANK, _ITEMS).items()},
            places_by_item_users={int(users): places for users, places in _numbers(rows, ITEM_USERS, _PLACES).items()},
            places_by_category=_numbers(rows, CATEGORY, _PLACES),
        )
        for (task, model), rows in profile_pdf.groupby([TASK, MODEL], sort=False)
    }


def _numbers(rows: pd.DataFrame, kind: str, column: str) -> dict[str, int]:
    of_kind = rows[rows[_KIND] == kind]
    return {str(key): int(number) for key, number in zip(of_kind[_KEY], of_kind[column], strict=True) if number}


def catalogue_rows(
    shapes: Mapping[tuple[str, str], ListProfile], catalogue_size: int, ks: tuple[int, ...],
    larger_catalogues: Mapping[str, int] = MappingProxyType({}),
) -> pd.DataFrame:  # fmt: skip
    """Give coverage at every k, and gini at the first, for which the profiles were counted, as rows of the metrics frame.

    larger_catalogues: model -> size, for models that can list more items than the catalogue has.

    They describe all lists together, so they have no interval and no number of users.
    """
    rows = []
    for (task, model), shape in shapes.items():
        size = larger_catalogues.get(model, catalogue_size)
        by_length = shape.coverage_by_length(size, max(ks))
        rows += [(task, model, ALL_USERS, "coverage", k, by_length[k - 1]) for k in ks]
        rows.append((task, model, ALL_USERS, "gini", ks[0], metrics.gini(shape.counts(), size)))
    frame = pd.DataFrame(rows, columns=[TASK, MODEL, SLICE, METRIC, K, VALUE])
    return frame.assign(**{CI_LOW: np.nan, CI_HIGH: np.nan, NUM_USERS: 0})


def tails(
    shapes: Mapping[tuple[str, str], ListProfile], item_users: np.ndarray, head_from: int, length: int,
    larger_catalogues: Mapping[str, int] = MappingProxyType({}),
) -> dict[tuple[str, str], Tail]:  # fmt: skip
    """Give how popular each model's lists are; items with at least head_from users are the head."""
    found = {}
    for key, shape in shapes.items():
        size = larger_catalogues.get(key[1], len(item_users))
        places = shape.places_by_item_users
        head = sum(number for users, number in places.items() if users >= head_from)
        found[key] = Tail(
            head_share=head / max(1, sum(places.values())),
            popularity=popularity_curve(places, item_users),
            coverage=shape.coverage_by_length(size, length),
        )
    return found


def categories_of(
    shapes: Mapping[tuple[str, str], ListProfile], known: Known, sums_pdf: pd.DataFrame
) -> Categories | None:
    """Give the shares of the largest categories in interactions and lists, and the calibration curves; null without any."""
    if not known.categories:
        return None
    names, interactions = list(known.categories)[:SHOWN_CATEGORIES], int(known.item_users.sum())
    listed = {}
    for key, shape in shapes.items():
        places = shape.places_by_category
        listed[key] = {name: places.get(name, 0) / max(1, sum(places.values())) for name in names}
    return Categories(
        had={name: known.categories[name] / interactions for name in names},
        listed=listed,
        curves=calibration_curves(sums_pdf),
    )


def popularity_curve(places_by_item_users: Mapping[int, int], item_users: np.ndarray) -> np.ndarray:
    """Give points (share of all interactions, share of all list places) of the most popular items, more and more of them.

    Shape (points, 2), from (0, 0) to (1, 1); items of equal popularity come together. Above the diagonal lists are more
    popular than what users had. item_users are the users of each item of the catalogue; places of other items come last.
    """
    values, num_items = np.unique(item_users, return_counts=True)
    values, num_items = values[::-1], num_items[::-1]
    places = np.array([places_by_item_users.get(int(value), 0) for value in values], dtype=np.float64)
    total = max(1, sum(places_by_item_users.values()))
    points = np.stack([np.cumsum(values * num_items) / (values * num_items).sum(), np.cumsum(places) / total], axis=1)
    return np.concatenate([[[0.0, 0.0]], points, [[1.0, 1.0]]])
