"""Events -> one weighted row per user and item, as of a cutoff."""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.columns import (
    COUNT,
    CUTOFF,
    EVENT_TYPE,
    FIRST_TIMESTAMP,
    ITEM_ID,
    LAST_TIMESTAMP,
    TIMESTAMP,
    USER_ID,
    WEIGHT,
)
from recsys_spark.config import InteractionsConfig
from recsys_spark.config_base import WeightScale
from recsys_spark.data.cleaning import finite_number
from recsys_spark.data.split import events_before

_SECONDS_PER_DAY = 86_400
# ALS takes weights as float32, whose range ends at 3e38: so much is left for the sum over a user's events with an item
_MAX_FACTOR = 1e30


def build_interactions(events: DataFrame, config: InteractionsConfig, cutoff: date) -> DataFrame:
    """Sum the weights of a user's events with an item before the cutoff.

    Needs user_id, item_id, event_type, timestamp, event_date. Gives the columns of the interactions table: weight = sum of
    type weight * number of the weight column * 0.5^(age at the cutoff / half-life), count, first and last timestamp. A
    missing number counts as 1. Left out: events without an item, types of weight 0, events whose number is 0 or less, and
    items, then users, with fewer events than the config asks. So no weight is negative or NaN.
    """
    past = events_before(counted_events(events, config), cutoff)
    weight = _type_weight(config) * decay(cutoff, config.half_life_days)
    if config.weight_column is not None:
        factor = F.least(F.coalesce(finite_number(config.weight_column), F.lit(1.0)), F.lit(_MAX_FACTOR))
        past, weight = past.where(factor > 0), weight * factor
    pairs = past.groupBy(USER_ID, ITEM_ID).agg(
        F.sum(weight).alias(WEIGHT),
        F.count("*").alias(COUNT),
        F.min(TIMESTAMP).alias(FIRST_TIMESTAMP),
        F.max(TIMESTAMP).alias(LAST_TIMESTAMP),
    )
    pairs = _with_enough_events(pairs, ITEM_ID, config.min_item_events)
    pairs = _with_enough_events(pairs, USER_ID, config.min_user_events)
    return pairs.select(USER_ID, ITEM_ID, WEIGHT, COUNT, FIRST_TIMESTAMP, LAST_TIMESTAMP, F.lit(cutoff).alias(CUTOFF))


def counted_events(events: DataFrame, config: InteractionsConfig) -> DataFrame:
    """Give the events that say a user had an item: those with an item and of a type that weighs something.

    One rule for what is learned from, what is masked as seen, and what is a success in the evaluation.
    """
    return events.where(F.col(ITEM_ID).isNotNull() & (_type_weight(config) > 0))


def scaled_weight(scale: WeightScale) -> Column:
    """Give the weight of an interaction as models take it: as it is, log(1 + weight), or 1."""
    weight = F.col(WEIGHT)
    return {"linear": weight, "log": F.log1p(weight), "one": F.lit(1.0)}[scale]


def decay(cutoff: date, half_life_days: float | None) -> Column:
    """0.5^(days from timestamp to the cutoff / half-life); 1 without a half-life."""
    if half_life_days is None:
        return F.lit(1.0)
    age_days = (F.lit(cutoff).cast("timestamp").cast("double") - F.col(TIMESTAMP).cast("double")) / _SECONDS_PER_DAY
    return F.pow(F.lit(0.5), age_days / half_life_days)


def _type_weight(config: InteractionsConfig) -> Column:
    weight = F.lit(config.default_weight)
    for event_type, value in config.event_weights.items():
        weight = F.when(F.col(EVENT_TYPE) == event_type, F.lit(value)).otherwise(weight)
    return weight


def _with_enough_events(pairs: DataFrame, column: str, minimum: int) -> DataFrame:
    if minimum <= 1:
        return pairs
    enough = pairs.groupBy(column).agg(F.sum(COUNT).alias("_events")).where(F.col("_events") >= minimum)
    return pairs.join(enough.select(column), on=column, how="left_semi")
