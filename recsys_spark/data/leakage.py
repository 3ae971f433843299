"""Whether a split keeps what its protocol promises: each count below is 0, or the models have seen what they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.columns import EVENT_ID, ITEM_ID, TIMESTAMP, USER_ID, Protocol
from recsys_spark.data.split import events_before
from recsys_spark.errors import DataError

IN_BOTH = "events_in_both"
NOT_BEFORE_TEST = "train_events_not_before_test"
NOT_BEFORE_OWN_TEST = "train_events_not_before_the_users_test"
USER_IN_BOTH = "test_users_in_train"
ITEM_IN_BOTH = "test_items_in_train"

_FIRST = "_first"


def find_leaks(train: DataFrame, test: DataFrame, protocol: str) -> dict[str, int]:
    """Count what the protocol (a value of `Protocol`, without its k) forbids; 0 everywhere means clean. Runs Spark jobs.

    Needs event_id, user_id, item_id, timestamp in both. The counts: events in both parts, by event_id; train events at or
    after the first test event (time splits); train events at or after the user's own first test event, equal times ordered
    by event_id (leave_last); users (by_user) or items (by_item) of test that train knows.
    """
    if protocol not in _CHECKS:
        raise ValueError(f"protocol {protocol!r} is not one of {sorted(_CHECKS)}")
    return {name: count(train, test) for name, count in _CHECKS[protocol].items()}


def check_no_leak(leaks: Mapping[str, int], protocol: str) -> None:
    """Raise DataError when a count of `find_leaks` is not 0."""
    found = {name: count for name, count in leaks.items() if count}
    if found:
        raise DataError(
            f"protocol {protocol}: expected nothing of the truth in what is learned from, found {found}; event ids that are "
            "used twice, or an event_date that is not the timestamp's day, do that; look at the events table"
        )


def misdated_events(events: DataFrame, cutoff: date) -> DataFrame:
    """Give the events that a cutoff by event_date would let through although their timestamp is not before it."""
    return events_before(events, cutoff).where(F.col(TIMESTAMP) >= F.lit(cutoff).cast("timestamp"))


def _in_both(train: DataFrame, test: DataFrame) -> int:
    return train.join(test.select(EVENT_ID).distinct(), on=EVENT_ID, how="left_semi").count()


def _not_before_test(train: DataFrame, test: DataFrame) -> int:
    first = test.agg(F.min(TIMESTAMP).alias(_FIRST))
    return train.join(F.broadcast(first), on=F.col(TIMESTAMP) >= F.col(_FIRST), how="inner").count()


def _not_before_own_test(train: DataFrame, test: DataFrame) -> int:
    first = test.groupBy(USER_ID).agg(F.min(_moment()).alias(_FIRST))
    return train.join(first, on=USER_ID, how="inner").where(_moment() >= F.col(_FIRST)).count()


def _moment() -> Column:
    return F.struct(TIMESTAMP, EVENT_ID)


def _ids_in_both(column: str) -> Callable[[DataFrame, DataFrame], int]:
    def count(train: DataFrame, test: DataFrame) -> int:
        known = train.select(column).distinct()
        return test.select(column).distinct().join(known, on=column, how="left_semi").count()

    return count


# what is before the first test event in time cannot be among the test events, so time splits need no look at the ids
_CHECKS: dict[str, dict[str, Callable[[DataFrame, DataFrame], int]]] = {
    Protocol.GLOBAL_TIME_SPLIT: {NOT_BEFORE_TEST: _not_before_test},
    Protocol.ROLLING_WINDOWS: {NOT_BEFORE_TEST: _not_before_test},
    Protocol.LEAVE_LAST: {IN_BOTH: _in_both, NOT_BEFORE_OWN_TEST: _not_before_own_test},
    Protocol.BY_USER: {IN_BOTH: _in_both, USER_IN_BOTH: _ids_in_both(USER_ID)},
    Protocol.BY_ITEM: {IN_BOTH: _in_both, ITEM_IN_BOTH: _ids_in_both(ITEM_ID)},
}
