"""What was known of items and users at the cutoff: the ground of slices, novelty, coverage and calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.columns import CATEGORY, COUNT, FIRST_TIMESTAMP, ITEM_ID, USER_ID
from recsys_spark.evaluation.blocks import ITEM_USERS
from recsys_spark.evaluation.slices import NUM_INTERACTIONS

ITEM_EVENTS = "item_events"


@dataclass(frozen=True)
class Known:
    """Numbers of the interactions before the cutoff."""

    item_users: np.ndarray
    """Users of each item of the catalogue, any order."""
    item_events: np.ndarray
    """Events of each item of the catalogue, in the same order."""
    user_counts: dict[int, int]
    """Number of interactions -> users that have so many."""
    categories: dict[str, int]
    """The largest categories -> their interactions, largest first, equal ones by name."""

    @property
    def num_users(self) -> int:
        """Users with at least one interaction."""
        return sum(self.user_counts.values())


def item_stats(interactions: DataFrame, categories: DataFrame | None) -> DataFrame:
    """Give item_id, item_users, item_events (0 where nobody had the item) and category of every item.

    Needs interactions (user_id, item_id, count) and categories (item_id, category), null where there are none.
    """
    had = interactions.groupBy(ITEM_ID).agg(F.count("*").alias(ITEM_USERS), F.sum(COUNT).alias(ITEM_EVENTS))
    if categories is None:
        return had.select(ITEM_ID, ITEM_USERS, ITEM_EVENTS, F.lit(None).cast("string").alias(CATEGORY))
    items = had.join(categories.select(ITEM_ID, CATEGORY), on=ITEM_ID, how="full")
    numbers = [F.coalesce(name, F.lit(0)).alias(name) for name in (ITEM_USERS, ITEM_EVENTS)]
    return items.select(ITEM_ID, *numbers, CATEGORY)


def user_stats(interactions: DataFrame) -> DataFrame:
    """Give user_id, num_interactions (distinct items) and first_timestamp of every user with interactions."""
    return interactions.groupBy(USER_ID).agg(
        F.count("*").alias(NUM_INTERACTIONS), F.min(FIRST_TIMESTAMP).alias(FIRST_TIMESTAMP)
    )


def collect_known(items: DataFrame, users: DataFrame, num_categories: int) -> Known:
    """Collect the numbers of `item_stats` and `user_stats`. Runs Spark jobs."""
    catalogue = items.where(F.col(ITEM_USERS) > 0)
    columns = catalogue.select(ITEM_USERS, ITEM_EVENTS).toArrow()
    counts = users.groupBy(NUM_INTERACTIONS).agg(F.count("*").alias("_users")).collect()
    by_category = catalogue.where(F.col(CATEGORY).isNotNull()).groupBy(CATEGORY).agg(F.sum(ITEM_USERS).alias("_sum"))
    largest = by_category.orderBy(F.desc("_sum"), CATEGORY).limit(num_categories).collect()
    return Known(
        item_users=columns[ITEM_USERS].to_numpy(),
        item_events=columns[ITEM_EVENTS].to_numpy(),
        user_counts={row[NUM_INTERACTIONS]: row["_users"] for row in counts},
        categories={row[CATEGORY]: row["_sum"] for row in largest},
    )
