"""Buckets of a batch: one winner per event id, whatever the order of the lines and their partitions."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from datetime import date, timedelta

from factories import utc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_spark.config import IngestConfig
from recsys_spark.data.dedupe import lookup_bounds, sort_into_buckets

SCHEMA = (
    "source_file string, line_hash string, delivery_date date, filter_rule string, reason string, detail string, "
    "event_id string, user_id string, item_id string, event_type string, timestamp timestamp, session_id string, "
    "query string, value double, attributes map<string,string>, event_date date, source string"
)


def batch(spark, rows, num_partitions=2):
    """A frame like `parse_events` gives it; each dict names what matters. line_hash is made of the event unless it is given."""
    filled = []
    for row in rows:
        timestamp = utc(row.get("timestamp", "2024-03-05 10:00:00"))
        event = {
            "event_id": "e1", "user_id": "u1", "item_id": "i1", "event_type": "view", "timestamp": timestamp,
            "session_id": None, "query": None, "value": None, "attributes": {}, "event_date": timestamp.date(),
        }  # fmt: skip
        event |= {name: value for name, value in row.items() if name in event and name != "timestamp"}
        line = {
            "source_file": "f", "line_hash": hashlib.sha256(repr(sorted(row.items())).encode()).hexdigest(),
            "delivery_date": None, "filter_rule": None, "reason": None, "detail": None, "source": "shop",
        }  # fmt: skip
        line |= {name: value for name, value in row.items() if name in line}
        full = event | line
        filled.append(tuple(full[name.split()[0]] for name in SCHEMA.replace(", ", ",").split(",") if " " in name))
    return spark.createDataFrame(filled, SCHEMA).repartition(num_partitions)


def buckets(spark, rows, config=None, num_partitions=2):
    """Give (event_id, line_hash, bucket, is_conflict) of every line, sorted."""
    sorted_lines = sort_into_buckets(batch(spark, rows, num_partitions), config or IngestConfig())
    found = sorted_lines.select("event_id", "line_hash", "bucket", "is_conflict").collect()
    return sorted((tuple(row) for row in found), key=str)


def test_of_one_event_id_the_earliest_wins_and_conflicts_are_marked(spark):
    rows = [
        # one event delivered twice: the same line
        {"event_id": "same", "line_hash": "a"},
        {"event_id": "same", "line_hash": "a"},
        # another time: the earliest wins against the smaller hash
        {"event_id": "time", "line_hash": "b", "timestamp": "2024-03-05 10:00:00"},
        {"event_id": "time", "line_hash": "a", "timestamp": "2024-03-05 10:00:01"},
        # the same time: the smaller hash wins; it says the same in other words, so nothing is in conflict
        {"event_id": "hash", "line_hash": "b"},
        {"event_id": "hash", "line_hash": "a"},
        # what one line says differs
        {"event_id": "value", "line_hash": "a", "value": 1.0},
        {"event_id": "value", "line_hash": "b", "value": 2.0},
        {"event_id": "value", "line_hash": "c", "value": 1.0},
        {"event_id": "null", "line_hash": "a", "query": None},
        {"event_id": "null", "line_hash": "b", "query": ""},
        {"event_id": "other column", "line_hash": "a", "session_id": "x", "query": None},
        {"event_id": "other column", "line_hash": "b", "session_id": None, "query": "x"},
        {"event_id": "order of attributes", "line_hash": "a", "attributes": {"a": "1", "b": "2"}},
        {"event_id": "order of attributes", "line_hash": "b", "attributes": {"b": "2", "a": "1"}},
    ]
    assert buckets(spark, rows) == [
        ("hash", "a", "inserted", False),
        ("hash", "b", "duplicate", False),
        ("null", "a", "inserted", False),
        ("null", "b", "duplicate", True),
        ("order of attributes", "a", "inserted", False),
        ("order of attributes", "b", "duplicate", False),
        ("other column", "a", "inserted", False),
        ("other column", "b", "duplicate", True),
        ("same", "a", "duplicate", False),
        ("same", "a", "inserted", False),
        ("time", "a", "duplicate", True),
        ("time", "b", "inserted", False),
        ("value", "a", "inserted", False),
        ("value", "b", "duplicate", True),
        ("value", "c", "duplicate", False),
    ]


def test_lateness_is_measured_from_the_delivery_and_a_copy_in_time_wins(spark):
    march_5 = date(2024, 3, 5)
    rows = [
        {"event_id": "last day in time", "line_hash": "a", "timestamp": "2024-03-03 00:00:00", "delivery_date": march_5},
        {"event_id": "first day late", "line_hash": "a", "timestamp": "2024-03-02 23:59:59", "delivery_date": march_5},
        {"event_id": "late twice", "line_hash": "a", "timestamp": "2024-01-01 10:00:00", "delivery_date": march_5},
        {"event_id": "late twice", "line_hash": "b", "timestamp": "2024-01-01 10:00:00", "delivery_date": march_5},
        {"event_id": "late and in time", "line_hash": "a", "timestamp": "2024-03-01 10:00:00", "delivery_date": march_5},
        {"event_id": "late and in time", "line_hash": "b", "timestamp": "2024-03-04 10:00:00", "delivery_date": march_5},
        {"event_id": "old but delivered then", "line_hash": "a", "timestamp": "2014-03-01 10:00:00",
         "delivery_date": date(2014, 3, 1)},
        {"event_id": "delivery unknown", "line_hash": "a", "timestamp": "2014-03-01 10:00:00"},
    ]  # fmt: skip
    found = {
        (event_id, line_hash): bucket
        for event_id, line_hash, bucket, _ in buckets(spark, rows, IngestConfig(horizon_days=2))
    }
    assert found == {
        ("last day in time", "a"): "inserted",
        ("first day late", "a"): "late",
        ("late twice", "a"): "late",
        ("late twice", "b"): "duplicate",
        ("late and in time", "a"): "duplicate",
        ("late and in time", "b"): "inserted",
        ("old but delivered then", "a"): "inserted",
        ("delivery unknown", "a"): "inserted",
    }


def test_lines_that_are_no_events_are_copies_of_nothing(spark):
    rows = [
        {"event_id": None, "reason": "malformed", "line_hash": "a"},
        {"event_id": None, "reason": "malformed", "line_hash": "a"},
        {"event_id": "e1", "filter_rule": "no customer", "line_hash": "b"},
        {"event_id": "e1", "reason": "wrong_type", "filter_rule": "no customer", "line_hash": "c"},
        {"event_id": "e1", "reason": "wrong_type", "line_hash": "d"},
        {"event_id": "e1", "line_hash": "e"},
    ]
    found = Counter(bucket for _, _, bucket, _ in buckets(spark, rows))
    assert found == {"quarantined": 3, "filtered": 2, "inserted": 1}


def test_an_event_repeated_within_seconds_is_a_near_duplicate(spark):
    rows = [
        {"event_id": "first", "timestamp": "2024-03-05 10:00:00"},
        {"event_id": "two seconds on", "timestamp": "2024-03-05 10:00:02"},
        {"event_id": "a bit more", "timestamp": "2024-03-05 10:00:04.1"},
        {"event_id": "another item", "item_id": "i2", "timestamp": "2024-03-05 10:00:01"},
        {"event_id": "another user", "user_id": "u2", "timestamp": "2024-03-05 10:00:01"},
        {"event_id": "another act", "event_type": "buy", "timestamp": "2024-03-05 10:00:01"},
        {"event_id": "search", "event_type": "search", "item_id": None, "query": "shoe"},
        {"event_id": "same search", "event_type": "search", "item_id": None, "query": "shoe", "timestamp": "2024-03-05 10:00:01"},
        {"event_id": "another search", "event_type": "search", "item_id": None, "query": "sock", "timestamp": "2024-03-05 10:00:01"},
        {"event_id": "quarantined before", "user_id": "u3", "reason": "wrong_type"},
        {"event_id": "good after", "user_id": "u3", "timestamp": "2024-03-05 10:00:01"},
    ]  # fmt: skip
    found = {
        event_id: bucket for event_id, _, bucket, _ in buckets(spark, rows, IngestConfig(near_duplicate_seconds=2))
    }
    near = {event_id for event_id, bucket in found.items() if bucket == "near_duplicate"}
    assert near == {"two seconds on", "same search"}
    off = buckets(spark, rows, IngestConfig())
    assert [bucket for _, _, bucket, _ in off if bucket == "near_duplicate"] == []


def test_bounds_reach_one_horizon_around_the_batch():
    bounds = lookup_bounds(date(2024, 3, 1), date(2024, 3, 5), IngestConfig(horizon_days=2))
    assert bounds == (date(2024, 2, 28), date(2024, 3, 7))


HORIZON = 1
DAY = date(2024, 3, 5)

events = st.fixed_dictionaries({
    "event_id": st.sampled_from([f"e{number}" for number in range(30)]),
    "user_id": st.sampled_from(["u1", "u2", "用户"]),
    "value": st.sampled_from([None, 0.0, 1.5]),
    "timestamp": st.sampled_from(["2024-03-05 00:00:00", "2024-03-04 23:59:59", "2024-03-03 10:00:00", "2024-02-01 10:00:00"]),
    "delivery_date": st.sampled_from([None, DAY, DAY - timedelta(days=1)]),
    "reason": st.sampled_from([None, None, None, "malformed"]),
})  # fmt: skip


def model(rows):
    """What the contract says, row by row: how often each (event_id, payload, bucket, is_conflict) is expected."""
    by_id, expected = defaultdict(list), Counter()
    for row in rows:
        payload = (row["user_id"], row["value"], row["timestamp"])
        if row["reason"]:
            expected[row["event_id"], payload, "quarantined", False] += 1
            continue
        delivered = row["delivery_date"]
        is_late = delivered is not None and utc(row["timestamp"]).date() < delivered - timedelta(days=HORIZON)
        by_id[row["event_id"]].append((is_late, row["timestamp"], row["line_hash"], payload))
    for event_id, copies in by_id.items():
        (is_late, _, _, kept), *others = sorted(copies, key=lambda copy: copy[:3])
        expected[event_id, kept, "late" if is_late else "inserted", False] += 1
        for *_, payload in others:
            expected[event_id, payload, "duplicate", payload != kept] += 1
    return expected


@settings(
    max_examples=4,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rows=st.lists(events, min_size=60, max_size=150), shuffled=st.randoms(), num_partitions=st.integers(1, 5))
def test_buckets_are_those_of_a_plain_model_in_any_order_and_partitioning(spark, rows, shuffled, num_partitions):
    for row in rows:
        content = repr((row["event_id"], row["user_id"], row["value"], row["timestamp"], row["reason"]))
        row["line_hash"] = hashlib.sha256(content.encode()).hexdigest()
    shuffled.shuffle(rows)
    sorted_lines = sort_into_buckets(batch(spark, rows, num_partitions), IngestConfig(horizon_days=HORIZON))
    found = sorted_lines.selectExpr(
        "event_id", "user_id", "value", "date_format(timestamp, 'yyyy-MM-dd HH:mm:ss') t", "bucket", "is_conflict"
    ).collect()
    assert Counter((row[0], (row[1], row[2], row[3]), row[4], row[5]) for row in found) == model(rows)
