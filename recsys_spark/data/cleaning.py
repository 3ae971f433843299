"""Cleaning of the events that models learn from: robots, missing numbers, outliers, ratings on one scale.

The steps need statistics of many events, so they run on the events before the cutoff and never inside ingest, where their
result would depend on how a delivery was split into files (docs/adr/0011). `cleaning_steps` gives their order. A step takes and
gives a *marked* frame: events with boolean columns `cleaning.*` that say whether an event is dropped and what was done to it.
A step is lazy and pure, and leaves alone what a step before it dropped.

A *number* is the column `value` or an attribute by its name, see `finite_number`. Statistics leave out missing numbers and
dropped events; an event whose group column is null (an event without an item, by item_id) is in no group. No statistic
depends on the order or the partitions of the events, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.columns import ATTRIBUTES, EVENT_TYPE, TIMESTAMP, USER_ID, VALUE
from recsys_spark.config_cleaning import CleaningConfig, MissingConfig, OutliersConfig
from recsys_spark.data.sources import as_double

Step = Callable[[DataFrame], DataFrame]

_MARKER = "cleaning."
_DROPPED = "cleaning.dropped"
_ROBOT_EVENTS = "cleaning.robots.events"
_ROBOT_USERS = "cleaning.robots.users"
_SECONDS_PER_HOUR = 3600

_NUMBER = "_number"
_COUNT = "_count"
_PAIRS = "_pairs"
_TOTAL = "_total"
_MEAN = "_mean"
_DEVIATION = "_deviation"
_LOW = "_low"
_HIGH = "_high"
_FILL = "_fill"
_IS_ROBOT = "_is_robot"


def clean_events(events: DataFrame, config: CleaningConfig) -> DataFrame:
    """Give the events that are left, with their numbers cleaned, in the columns of `events`. See `cleaning_steps`."""
    return kept_events(mark_events(events, config)) if cleaning_steps(config) else events


def without_robots(events: DataFrame, config: CleaningConfig) -> DataFrame:
    """Give the events without those of robots, for models that count users and read no number. Events before the cutoff only."""
    return clean_events(events, CleaningConfig(robots=config.robots))


def mark_events(events: DataFrame, config: CleaningConfig) -> DataFrame:
    """Apply the configured steps in their order.

    Needs the columns of the events table that the steps name, of events before the cutoff only. Gives every event with its
    numbers cleaned, and the markers; events that are dropped keep the numbers they had then.
    """
    marked = reduce(
        lambda marked, step: step(marked), cleaning_steps(config), events.withColumn(_DROPPED, F.lit(False))
    )
    return marked.select(*events.columns, *map(_quoted, _markers(marked)))


def cleaning_steps(config: CleaningConfig) -> list[Step]:
    """Give the configured steps in this order: robots, drop what is incomplete, clip, fill in, normalise ratings.

    So robots and incomplete events count in no statistic, a mean that is filled in is not drawn away by outliers, and a
    user's mean rating is that of the numbers that are used.
    """
    fills = {name: rule for name, rule in config.missing.items() if rule.method != "drop"}
    robots, ratings = config.robots.max_events_per_hour, config.ratings
    return [
        *([partial(drop_robots, max_events_per_hour=robots)] if robots is not None else []),
        *[partial(drop_missing, name=name) for name in config.missing if name not in fills],
        *[partial(clip_outliers, name=name, rule=rule) for name, rule in config.outliers.items()],
        *[partial(fill_missing, name=name, rule=rule) for name, rule in fills.items()],
        *(
            [partial(normalise_ratings, name=ratings.column, offset=ratings.offset)]
            if ratings.column is not None
            else []
        ),
    ]


def kept_events(marked: DataFrame) -> DataFrame:
    """Give the events that no step dropped, without the markers."""
    columns = [_quoted(name) for name in marked.columns if not name.startswith(_MARKER)]
    return marked.where(_is_kept()).select(*columns)


def count_cleaned(marked: DataFrame) -> DataFrame:
    """Count what the steps did, in one aggregation over a marked frame. Gives one row.

    `cleaning.dropped` counts the events that are left out, `cleaning.robots.users` and `cleaning.robots.events` the users over
    the limit and their events; per number `cleaning.missing.NAME` the events that were dropped or filled in,
    `cleaning.outliers.NAME` those whose number was moved, `cleaning.ratings.NAME` those whose rating was normalised. A step
    that is not configured has no count; one that found nothing counts 0.
    """
    counts = [F.count_if(_quoted(name)).alias(name) for name in _markers(marked)]
    if _ROBOT_EVENTS in marked.columns:
        robots = F.count_distinct(F.when(F.col(_quoted(_ROBOT_EVENTS)), F.col(USER_ID)))
        counts.insert(1, robots.alias(_ROBOT_USERS))
    return marked.agg(*counts)


def finite_number(name: str) -> Column:
    """Give `value` or an attribute as double; null where it is missing, no decimal number, NaN or infinite."""
    if name == VALUE:
        return F.when(F.abs(VALUE) < float("inf"), F.col(VALUE))  # Spark orders NaN above infinity
    return as_double(f"{ATTRIBUTES}.{_quoted(name)}")


def drop_robots(marked: DataFrame, max_events_per_hour: int) -> DataFrame:
    """Drop every event of a user with more than max_events_per_hour events in any clock hour (UTC), of whatever type.

    A user who just reaches the limit stays. An hour runs from hh:00 to hh:59:59.999999, so a burst over the full hour is
    counted in two parts.
    """
    hour = F.floor(F.unix_seconds(TIMESTAMP) / _SECONDS_PER_HOUR).alias("_hour")  # whatever the session's time zone
    events_per_hour = marked.where(_is_kept()).groupBy(USER_ID, hour).agg(F.count("*").alias(_COUNT))
    robots = events_per_hour.where(F.col(_COUNT) > max_events_per_hour).select(USER_ID).distinct()
    joined = marked.join(robots.withColumn(_IS_ROBOT, F.lit(True)), on=USER_ID, how="left")
    return _mark_dropped(joined, _ROBOT_EVENTS, F.col(_IS_ROBOT).isNotNull()).drop(_IS_ROBOT)


def drop_missing(marked: DataFrame, name: str) -> DataFrame:
    """Drop the events whose number is missing, whatever their type."""
    return _mark_dropped(marked, f"{_MARKER}missing.{name}", finite_number(name).isNull())


def clip_outliers(marked: DataFrame, name: str, rule: OutliersConfig) -> DataFrame:
    """Move numbers beyond a bound of their group to the bound. Missing numbers stay missing.

    quantile (winsorising): the bounds are numbers of the group. The upper one is the least number that at most the share
    1 - high of the numbers exceeds, the lower one the greatest that at most the share `low` falls below. So clipping again
    by the same rule moves nothing, and a group of fewer than 1 / (1 - high) numbers is not clipped above. Exact, not
    approximate: a worker holds the distinct numbers of a group with their counts.

    z_score: mean +- limit * population standard deviation. A group of one number, or of equal ones, is not clipped. Clipping
    again may move more, since the deviation is smaller then.
    """
    numbers = _numbers(marked, name, rule.by)
    if rule.method == "quantile":
        upper = _quantile(rule.high, "ASC")
        lower = _quantile(None if rule.low is None else 1 - rule.low, "DESC")
        bounds = numbers.groupBy(*rule.by).agg(lower.alias(_LOW), upper.alias(_HIGH))
    else:
        spread = F.lit(rule.limit) * F.col(_DEVIATION)
        bounds = _moments(numbers, rule.by).withColumns({_LOW: F.col(_MEAN) - spread, _HIGH: F.col(_MEAN) + spread})
    joined = _join_groups(marked, bounds.select(*rule.by, _LOW, _HIGH), rule.by)
    number = finite_number(name)
    clipped = F.least(F.greatest(number, _LOW), _HIGH)  # a bound that is null is left out
    moved = number.isNotNull() & (clipped != number)
    return _with_number(joined, name, clipped, moved, "outliers").drop(_LOW, _HIGH)


def fill_missing(marked: DataFrame, name: str, rule: MissingConfig) -> DataFrame:
    """Fill in missing numbers: the rule's default, or the mean or the exact median of the event's group.

    The median of an even number of values is the mean of the two in the middle. Where the group has no number at all, or
    the event has no group, the default is filled in; without a default the number stays missing.
    """
    default = F.lit(rule.default).cast("double")
    if rule.method == "default":
        joined = marked.withColumn(_FILL, default)
    else:
        numbers = _numbers(marked, name, rule.by)
        groups = (
            _moments(numbers, rule.by).withColumnRenamed(_MEAN, _FILL)
            if rule.method == "mean"
            else numbers.groupBy(*rule.by).agg(F.median(_NUMBER).alias(_FILL))
        )
        joined = _join_groups(marked, groups.select(*rule.by, _FILL), rule.by)
        joined = joined.withColumn(_FILL, F.coalesce(_FILL, default))
    is_filled = finite_number(name).isNull() & F.col(_FILL).isNotNull()
    return _with_number(joined, name, F.col(_FILL), is_filled, "missing").drop(_FILL)


def normalise_ratings(marked: DataFrame, name: str, offset: float) -> DataFrame:
    """Replace a rating by (rating - mean) / deviation + offset, with the user's mean and population standard deviation.

    A user with one rating, or with equal ones, has no deviation: their ratings become the offset. Missing ratings stay
    missing. The scaling is that of the z-score in Herlocker, Konstan, Borchers, Riedl 1999.
    """
    moments = _moments(_numbers(marked, name, (USER_ID,)), (USER_ID,))
    joined = _join_groups(marked, moments.select(USER_ID, _MEAN, _DEVIATION), (USER_ID,))
    number, deviation = finite_number(name), F.col(_DEVIATION)
    has_deviation = (deviation > 0) & (deviation < float("inf"))  # infinite where squares leave the range of double
    score = F.when(has_deviation, (number - F.col(_MEAN)) / deviation).otherwise(0.0) + offset
    return _with_number(joined, name, score, number.isNotNull(), "ratings").drop(_MEAN, _DEVIATION)


def _markers(marked: DataFrame) -> list[str]:
    return [name for name in marked.columns if name.startswith(_MARKER)]


def _quoted(name: str) -> str:
    """The SQL name of a column with dots, or whatever else an attribute's name holds."""
    return "`" + name.replace("`", "``") + "`"


def _is_kept() -> Column:
    return ~F.col(_quoted(_DROPPED))


def _mark_dropped(marked: DataFrame, marker: str, condition: Column) -> DataFrame:
    drops = marked.withColumn(marker, _is_kept() & condition)
    return drops.withColumn(_DROPPED, F.col(_quoted(_DROPPED)) | F.col(_quoted(marker)))


def _with_number(marked: DataFrame, name: str, number: Column, condition: Column, step: str) -> DataFrame:
    """Put a number in its place where the condition holds, and mark it; an attribute that does not change keeps its text."""
    marker = f"{_MARKER}{step}.{name}"
    changes = marked.withColumn(marker, _is_kept() & F.coalesce(condition, F.lit(False)))
    is_changed = F.col(_quoted(marker))
    if name == VALUE:
        return changes.withColumn(VALUE, F.when(is_changed, number).otherwise(finite_number(VALUE)))
    others = F.map_filter(F.coalesce(ATTRIBUTES, F.create_map().cast("map<string,string>")), lambda key, _: key != name)
    changed = F.map_concat(others, F.create_map(F.lit(name), number.cast("string")))
    return changes.withColumn(ATTRIBUTES, F.when(is_changed, changed).otherwise(F.col(ATTRIBUTES)))


def _numbers(marked: DataFrame, name: str, by: Sequence[str]) -> DataFrame:
    """The numbers that statistics are made of: group columns and _number, none of them null."""
    numbers = marked.where(_is_kept()).select(*by, finite_number(name).alias(_NUMBER))
    return numbers.dropna(subset=[*by, _NUMBER])


def _quantile(share: float | None, order: str) -> Column:
    """The first number in the order up to which at least this share of the group's numbers lies; null without a share."""
    if share is None:
        return F.max(F.lit(None).cast("double"))
    return F.expr(f"percentile_disc({share!r}D) WITHIN GROUP (ORDER BY {_NUMBER} {order})")


def _moments(numbers: DataFrame, by: Sequence[str]) -> DataFrame:
    """Mean and population standard deviation per group, in two passes over its distinct numbers in ascending order.

    The fixed order makes the floating point sums the same however the events are partitioned, which avg and stddev do not
    promise. The mean is held between the least and the greatest number, so that equal numbers have exactly that mean and no
    deviation, and so that a sum beyond the range of double gives no infinity.
    """
    counted = numbers.groupBy(*by, _NUMBER).agg(F.count("*").alias(_COUNT))
    pairs = F.sort_array(F.collect_list(F.struct(_NUMBER, _COUNT)))
    groups = counted.groupBy(*by).agg(pairs.alias(_PAIRS), F.sum(_COUNT).cast("double").alias(_TOTAL),
                                      F.min(_NUMBER).alias(_LOW), F.max(_NUMBER).alias(_HIGH))  # fmt: skip
    mean = F.try_divide(_weighted_sum(lambda number: number), _TOTAL)
    groups = groups.withColumn(_MEAN, F.least(F.greatest(mean, _LOW), _HIGH))
    variance = F.try_divide(_weighted_sum(lambda number: F.pow(number - F.col(_MEAN), F.lit(2.0))), _TOTAL)
    return groups.withColumn(_DEVIATION, F.sqrt(variance)).select(*by, _MEAN, _DEVIATION)


def _weighted_sum(term: Callable[[Column], Column]) -> Column:
    return F.aggregate(_PAIRS, F.lit(0.0), lambda total, pair: total + term(pair[_NUMBER]) * pair[_COUNT])


def _join_groups(marked: DataFrame, groups: DataFrame, by: Sequence[str]) -> DataFrame:
    """Put a group's statistics beside its events; null where the event has no group or the group no number."""
    if not by:
        return marked.crossJoin(F.broadcast(groups))
    # there are few types, and most events are of one: shuffled by type they would meet in one task
    return marked.join(F.broadcast(groups) if tuple(by) == (EVENT_TYPE,) else groups, on=list(by), how="left")
