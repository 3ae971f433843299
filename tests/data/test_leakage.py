"""The leak counts: silent on what the splitters give, and every one of them fires on a leak that is planted."""

from __future__ import annotations

from datetime import date

import pytest
from factories import make_events

from recsys_spark.columns import Protocol
from recsys_spark.data.leakage import (
    IN_BOTH,
    ITEM_IN_BOTH,
    NOT_BEFORE_OWN_TEST,
    NOT_BEFORE_TEST,
    USER_IN_BOTH,
    check_no_leak,
    find_leaks,
    misdated_events,
)
from recsys_spark.data.split import events_before, events_between
from recsys_spark.data.splitters import by_item, by_user, leave_last_k
from recsys_spark.errors import DataError

CUTOFF, END = date(2024, 3, 5), date(2024, 3, 9)


def event(event_id, user, item, day, hour=10):
    return {"event_id": event_id, "user_id": user, "item_id": item, "timestamp": f"2024-03-{day:02} {hour:02}:00:00"}


@pytest.fixture(scope="module")
def events(spark_session):
    """Eight users with five events each on the days 1 to 8, two of them at one time."""
    rows = [event(f"{u}-{n}", f"u{u}", f"i{(u * 3 + n) % 9}", 1 + (u + n * 2) % 8) for u in range(8) for n in range(4)]
    rows += [event(f"{u}-twin", f"u{u}", f"i{u}", 1 + u % 8) for u in range(8)]
    return make_events(spark_session, rows).cache()


def split(events, protocol):
    """(learned from, truth) as the protocol cuts."""
    if protocol in (Protocol.GLOBAL_TIME_SPLIT, Protocol.ROLLING_WINDOWS):
        return events_before(events, CUTOFF), events_between(events, CUTOFF, END)
    if protocol == Protocol.BY_USER:
        parts = by_user(events, 0.4, 1, 1)
        return parts.train, parts.truth
    return leave_last_k(events, 1) if protocol == Protocol.LEAVE_LAST else by_item(events, 0.4, 1)


ALL = [value for name, value in vars(Protocol).items() if not name.startswith("_")]


@pytest.mark.parametrize("protocol", ALL)
def test_every_splitter_is_clean(spark, events, protocol):
    train, test = split(events, protocol)
    assert not train.isEmpty()
    assert not test.isEmpty()
    leaks = find_leaks(train, test, protocol)
    assert leaks
    assert set(leaks.values()) == {0}


def planted_in(train, test, protocol, leak):
    """The train part with one row too many."""
    one = test.orderBy("timestamp", "event_id").limit(1)
    changed = {
        NOT_BEFORE_TEST: {"event_id": "'new'", "user_id": "'nobody'"},
        NOT_BEFORE_OWN_TEST: {"event_id": "'zzz'"},  # same time, behind it by its id
        USER_IN_BOTH: {"event_id": "'new'"},
        ITEM_IN_BOTH: {"event_id": "'new'"},
        IN_BOTH: {"user_id": "'nobody'", "item_id": "'nothing'"},
    }[leak]
    return train.unionByName(one.selectExpr(*[f"{changed.get(name, name)} AS {name}" for name in one.columns]))


@pytest.mark.parametrize(
    ("protocol", "leak"),
    [
        (Protocol.GLOBAL_TIME_SPLIT, NOT_BEFORE_TEST),
        (Protocol.ROLLING_WINDOWS, NOT_BEFORE_TEST),
        (Protocol.LEAVE_LAST, IN_BOTH),
        (Protocol.LEAVE_LAST, NOT_BEFORE_OWN_TEST),
        (Protocol.BY_USER, IN_BOTH),
        (Protocol.BY_USER, USER_IN_BOTH),
        (Protocol.BY_ITEM, IN_BOTH),
        (Protocol.BY_ITEM, ITEM_IN_BOTH),
    ],
)
def test_planted_leak_is_found_and_no_other(spark, events, protocol, leak):
    train, test = split(events, protocol)
    leaks = find_leaks(planted_in(train, test, protocol, leak), test, protocol)
    assert {name: count for name, count in leaks.items() if count} == {leak: 1}


def test_truth_of_a_held_out_user_is_behind_the_history(spark, events):
    parts = by_user(events, 0.4, 1, 1)
    assert set(find_leaks(parts.history, parts.truth, Protocol.LEAVE_LAST).values()) == {0}


def test_event_that_is_dated_before_the_cutoff_and_happened_after_it_is_found(spark, events):
    assert misdated_events(events, CUTOFF).isEmpty()
    late = events.where("event_date >= '2024-03-05'").limit(1).selectExpr(
        *[name for name in events.columns if name != "event_date"], "DATE'2024-03-04' AS event_date"
    )  # fmt: skip
    midnight = make_events(spark, [event("midnight", "u", "i", 4, 23)]).selectExpr(
        *[name for name in events.columns if name not in ("timestamp", "event_date")],
        "TIMESTAMP'2024-03-05 00:00:00' AS timestamp", "DATE'2024-03-04' AS event_date",
    )  # fmt: skip
    assert misdated_events(events.unionByName(late).unionByName(midnight), CUTOFF).count() == 2


def test_leak_is_an_error_that_names_its_count():
    check_no_leak({IN_BOTH: 0, USER_IN_BOTH: 0}, Protocol.BY_USER)
    with pytest.raises(DataError, match=r"protocol by_user: .* found \{'test_users_in_train': 2\}"):
        check_no_leak({IN_BOTH: 0, USER_IN_BOTH: 2}, Protocol.BY_USER)


def test_protocol_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="'by_weekday' is not one of"):
        find_leaks(None, None, "by_weekday")
