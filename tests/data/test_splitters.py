"""Splitters against plain Python: every row in exactly one part, whatever the partitions, and no part knows what it must not."""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from datetime import date, timedelta

import pytest
from factories import make_events
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from recsys_spark.config_split import WindowsConfig
from recsys_spark.data.splitters import TimeWindow, by_item, by_user, leave_last_k, rolling_windows
from recsys_spark.errors import DataError

SHARE = 0.4

# few times, so that many events are tied; ids whose UTF-8 order is not that of UTF-16 or of a dictionary
USERS = st.sampled_from(["a", "B", "b", "Ünal", "\uff5e", "\U0001f600", ""])
ITEMS = st.sampled_from(["x", "Y", "z", "zz", "\U0001f600", None])
HOURS = st.integers(0, 3)
ROWS = st.lists(st.tuples(USERS, ITEMS, HOURS), min_size=1, max_size=30)


def as_events(rows, order):
    """Rows with event ids whose order is not that of the rows."""
    ids = [
        f"e{hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()[:6]}" for number in range(len(rows))
    ]
    filled = [
        {"event_id": event_id, "user_id": user, "item_id": item, "timestamp": f"2024-03-05 {hour:02}:00:00"}
        for event_id, (user, item, hour) in zip(ids, rows, strict=True)
    ]
    return [filled[place] for place in order]


def is_held_out(seed, raw_id):
    return int(hashlib.sha256(f"{seed}:{raw_id}".encode()).hexdigest()[:8], 16) < SHARE * 2**32


def last_by_hand(events, k):
    """(train, test) as sets of event ids."""
    of_user = defaultdict(list)
    for event in events:
        of_user[event["user_id"]].append((event["timestamp"], event["event_id"]))
    test = {event_id for own in of_user.values() if len(own) > k for _, event_id in sorted(own)[-k:]}
    return {event["event_id"] for event in events} - test, test


def parts_by_hand(events, k, seed):
    train, test = last_by_hand(events, k)
    held_out = [event for event in events if is_held_out(seed, event["user_id"])]
    history, truth = last_by_hand(held_out, k)
    others = {event["event_id"] for event in events} - {event["event_id"] for event in held_out}
    cold = {
        event["event_id"] for event in events if event["item_id"] is not None and is_held_out(seed, event["item_id"])
    }
    return {
        "last.train": train, "last.test": test, "user.train": others, "user.history": history, "user.truth": truth,
        "item.train": {event["event_id"] for event in events} - cold, "item.test": cold,
    }  # fmt: skip


def parts_by_spark(frame, k, seed):
    last, users, items = leave_last_k(frame, k), by_user(frame, SHARE, seed, k), by_item(frame, SHARE, seed)
    parts = {
        "last.train": last.train, "last.test": last.test, "user.train": users.train, "user.history": users.history,
        "user.truth": users.truth, "item.train": items.train, "item.test": items.test,
    }  # fmt: skip
    found = {name: [] for name in parts}
    named = [part.select(F.lit(name).alias("part"), "event_id") for name, part in parts.items()]
    together = named[0]
    for part in named[1:]:
        together = together.unionByName(part)
    for row in together.collect():
        found[row["part"]].append(row["event_id"])
    assert all(len(ids) == len(set(ids)) for ids in found.values())
    return {name: set(ids) for name, ids in found.items()}


@pytest.mark.spark
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, k=st.integers(1, 3), seed=st.integers(0, 99), data=st.data())
def test_parts_are_those_of_the_plain_model_whatever_the_order_and_the_partitions(spark, rows, k, seed, data):
    order = data.draw(st.permutations(range(len(rows))))
    events = as_events(rows, order)
    frame = make_events(spark, events).repartition(data.draw(st.integers(1, 3)))
    expected = parts_by_hand(events, k, seed)
    assert parts_by_spark(frame, k, seed) == expected
    # and the model itself keeps what the protocols promise
    everything = {event["event_id"] for event in events}
    for names in (
        ("last.train", "last.test"),
        ("user.train", "user.history", "user.truth"),
        ("item.train", "item.test"),
    ):
        assert sum(len(expected[name]) for name in names) == len(everything)
        assert set().union(*[expected[name] for name in names]) == everything


@pytest.mark.spark
def test_parts_keep_the_columns_and_interactions_are_cut_by_their_own_time(spark):
    interactions = spark.createDataFrame(
        [("u", "b", 2), ("u", "c", 2), ("u", "a", 1), ("w", "a", 1)],
        "user_id string, item_id string, last_timestamp int",
    )
    train, test = leave_last_k(interactions, 1, order_by=("last_timestamp", "item_id"))
    assert train.columns == test.columns == interactions.columns
    assert [tuple(row) for row in test.collect()] == [("u", "c", 2)]
    assert {tuple(row) for row in train.collect()} == {("u", "a", 1), ("u", "b", 2), ("w", "a", 1)}


@pytest.mark.spark
def test_another_seed_holds_out_others_and_about_the_asked_share(spark):
    users = spark.range(4000).select(F.format_string("user-%d", "id").alias("user_id"), F.lit("i").alias("item_id"))
    rows = users.select("*", F.lit("e").alias("event_id"), F.lit(0).alias("timestamp"))
    first, second = (
        {
            row[0]
            for row in rows.join(by_user(rows, 0.2, seed, 1).train, "user_id", "left_anti").select("user_id").collect()
        }
        for seed in (1, 2)
    )
    assert 700 < len(first) < 900
    assert 100 < len(first & second) < 220  # a fifth of a fifth is 160


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_share_outside_of_0_to_1_is_refused(share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        by_item(None, share, 1)


def test_no_last_events_are_refused():
    with pytest.raises(ValueError, match="k >= 1"):
        leave_last_k(None, 0)


# windows: dates only

START = date(2023, 1, 1)


@given(
    count=st.integers(1, 6), test_days=st.integers(1, 40), gap=st.integers(0, 10), extra=st.none() | st.integers(0, 20),
    train_days=st.none() | st.integers(1, 60),
)  # fmt: skip
def test_windows_lie_in_order_and_truth_never_begins_before_the_cutoff(count, test_days, gap, extra, train_days):
    step = None if extra is None else test_days + extra
    config = WindowsConfig(count=count, test_days=test_days, gap_days=gap, step_days=step, train_days=train_days)
    end = START + timedelta(days=600)
    windows = rolling_windows(START, end, config)
    assert len(windows) == count
    assert windows[-1].truth_end == end
    for window in windows:
        assert window.truth_start - window.cutoff == timedelta(days=gap)
        assert window.truth_end - window.truth_start == timedelta(days=test_days)
        assert window.cutoff > (window.train_start or START)
        assert train_days is None or window.cutoff - window.train_start == timedelta(days=train_days)
    for earlier, later in itertools.pairwise(windows):
        assert later.truth_start - earlier.truth_start == timedelta(days=step or test_days)
        assert earlier.truth_end <= later.truth_start  # no day is truth twice


def test_windows_by_hand():
    config = WindowsConfig(count=2, test_days=7, gap_days=1, train_days=30)
    assert rolling_windows(START, date(2023, 3, 1), config) == [
        TimeWindow(date(2023, 1, 15), date(2023, 2, 14), date(2023, 2, 15), date(2023, 2, 22)),
        TimeWindow(date(2023, 1, 22), date(2023, 2, 21), date(2023, 2, 22), date(2023, 3, 1)),
    ]


@pytest.mark.parametrize(("train_days", "needed"), [(None, "2023-01-03"), (10, "2022-12-25")])
def test_too_few_days_say_which_are_missing(train_days, needed):
    config = WindowsConfig(count=3, test_days=7, train_days=train_days)
    first = date(2023, 1, 4)
    with pytest.raises(
        DataError, match=rf"3 windows that end on 2023-01-25 need events from {needed} on, .* 2023-01-04"
    ):
        rolling_windows(first, date(2023, 1, 25), config)


def test_steps_shorter_than_the_truth_are_refused():
    with pytest.raises(ValueError, match="the same days would be truth twice"):
        WindowsConfig(test_days=7, step_days=6)
