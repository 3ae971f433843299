"""The profile of a batch: lines by part, values per column and field, and the newest timestamps."""

from __future__ import annotations

from datetime import date

import pytest
from factories import event_source, item_source, utc

from recsys_spark.columns import TIMESTAMP, UPDATED_AT
from recsys_spark.data import profile
from recsys_spark.data.outcome import bucket_counts, count_lines

SCHEMA = (
    "bucket string, reason string, detail string, filter_rule string, user_id string, item_id string, value double, "
    "timestamp timestamp, attributes map<string,string>"
)
COLUMNS = ("user_id", "item_id", "value")


def batch(spark, *rows):
    """Lines as `dedupe.sort_into_buckets` gives them; each dict names what matters to the test."""
    good = {"bucket": "inserted", "user_id": "u1", "item_id": "i1", "timestamp": "2024-03-05 10:00", "attributes": {}}
    names = [column.split()[0] for column in SCHEMA.split(", ")]
    filled = [{**dict.fromkeys(names), **good, **row} for row in rows]
    for row in filled:
        row["timestamp"] = row["timestamp"] and utc(row["timestamp"])
    return spark.createDataFrame([tuple(row[name] for name in names) for row in filled], SCHEMA)


def profiled(lines, columns=COLUMNS, run_date=None, source=None):
    rows = profile.profile_lines(lines, TIMESTAMP, run_date, columns).collect()
    return profile.to_profile(rows, source or event_source(columns={"value": "price"}), columns is not None)


LINES = (
    {"attributes": {"colour": "red", "note": ""}},
    {"attributes": {"note": "x", "colour": "red"}, "item_id": " ", "value": 0.0},  # other order, blank item, a number of 0
    {"bucket": "duplicate", "attributes": None, "timestamp": "2024-03-06 23:59:59"},
    {"bucket": "late", "timestamp": "2020-01-01 00:00", "value": 2.0},
    {"bucket": "quarantined", "reason": "missing_field", "detail": "user_id", "user_id": None, "attributes": {"colour": "red"},
     "timestamp": "2025-01-01 00:00"},
    {"bucket": "quarantined", "reason": "malformed", "user_id": None, "attributes": {"broken": "x"}, "timestamp": None},
    {"bucket": "filtered", "filter_rule": "robots", "attributes": {"agent": "bot"}, "timestamp": "2024-03-07 10:00"},
    {"bucket": "filtered", "filter_rule": "robots", "reason": "missing_field", "detail": "item_id", "item_id": None},
)  # fmt: skip


def test_fields_and_columns_are_counted_over_the_readable_lines(spark):
    found = profiled(batch(spark, *LINES))
    assert (found.read, found.readable) == (8, 5)
    assert found.columns == {"user_id": 4, "item_id": 4, "value": 2}
    # price is the field behind value; filtered and malformed lines do not count
    assert found.fields == {"colour": 3, "note": 1, "user_id": 4, "item_id": 4, "price": 2}
    assert found.field_shares()["colour"] == pytest.approx(0.6)


@pytest.mark.parametrize("columns", [COLUMNS, None])
def test_counts_are_those_of_count_lines_with_and_without_fields(spark, columns):
    lines = batch(spark, *LINES)
    found = profiled(lines, columns)
    assert found.counts == bucket_counts(count_lines(lines).collect())
    assert (found.columns is None, found.fields is None) == (columns is None, columns is None)


@pytest.mark.parametrize("columns", [COLUMNS, None])
def test_timestamps_are_those_of_events_and_newest_ends_with_the_run_date(spark, columns):
    found = profiled(batch(spark, *LINES), columns, date(2024, 3, 5))
    assert found.first == utc("2020-01-01 00:00")
    assert found.last == utc("2024-03-06 23:59:59")
    assert found.newest == utc("2024-03-05 10:00")
    assert profiled(batch(spark, *LINES), columns).newest == utc("2024-03-06 23:59:59")


def test_an_empty_batch_and_one_without_events(spark):
    empty = profiled(batch(spark).limit(0))
    assert (empty.read, empty.readable, empty.columns, empty.fields, empty.newest) == (0, 0, {}, {}, None)
    assert empty.field_shares() == {}
    torn = profiled(
        batch(spark, {"bucket": "quarantined", "reason": "malformed", "timestamp": None, "attributes": None})
    )
    assert (torn.read, torn.readable, torn.columns, torn.first) == (1, 0, {}, None)


def test_the_most_frequent_fields_are_kept_and_no_count_is_lost(spark, monkeypatch):
    monkeypatch.setattr(profile, "MAX_FIELDS", 5)
    keys = [{f"id{number}": "x", "colour": "red"} for number in range(20)]
    found = profiled(batch(spark, *[{"attributes": attributes} for attributes in keys]))
    assert found.read == 20
    assert found.columns == {"user_id": 20, "item_id": 20}
    assert found.fields == {"colour": 20, "id0": 1, "user_id": 20, "item_id": 20}


def test_items_are_profiled_by_their_own_columns(spark):
    schema = (
        "bucket string, reason string, detail string, filter_rule string, item_id string, title string, "
        "updated_at timestamp, attributes map<string,string>"
    )
    row = ("inserted", None, None, None, "i1", None, utc("2024-03-01 00:00"), {"size": "L"})
    lines = spark.createDataFrame([row], schema)
    rows = profile.profile_lines(lines, UPDATED_AT, date(2024, 3, 5), ("item_id", "title")).collect()
    found = profile.to_profile(rows, item_source(), has_fields=True)
    assert (found.columns, found.fields) == ({"item_id": 1}, {"item_id": 1, "size": 1})
    assert found.newest == utc("2024-03-01 00:00")
