"""Popularity: the items that most users had. As one-dimensional vectors, so that the one top-K engine serves it."""

from __future__ import annotations

from datetime import date, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.columns import ITEM_ID, USER_ID, VECTOR
from recsys_spark.data.split import events_before, events_between


def popular_item_vectors(
    events: DataFrame, catalogue: DataFrame, cutoff: date, last_days: int | None = None
) -> DataFrame:
    """Score every item of the catalogue by the number of distinct users who had it before the cutoff.

    Needs events (user_id, item_id, event_date) and catalogue (item_id). last_days counts the days before the cutoff only.
    Gives item_id, vector of one number; items without an event in that time score 0, so that lists can always be filled.
    """
    past = events_before(events, cutoff)
    if last_days is not None:
        past = events_between(events, cutoff - timedelta(days=last_days), cutoff)
    users = past.groupBy(ITEM_ID).agg(F.countDistinct(USER_ID).alias("_users"))
    scored = catalogue.join(users, on=ITEM_ID, how="left")
    return scored.select(ITEM_ID, F.array(F.coalesce("_users", F.lit(0)).cast("float")).alias(VECTOR))


def same_vector_for(users: DataFrame) -> DataFrame:
    """Give every user the vector [1.0], under which an item's score is its popularity. Gives user_id, vector."""
    return users.select(USER_ID, F.array(F.lit(1.0).cast("float")).alias(VECTOR))
