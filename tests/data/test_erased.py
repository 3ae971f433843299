"""Events of erased users stay out; those of a user who came back come in."""

from __future__ import annotations

from datetime import UTC, datetime

from factories import utc

from recsys_spark.data.erased import LINE, USER, key_hash, leave_out_erased, lines_that_name
from recsys_spark.data.id_search import index_ids

SALT = "a1b2"


def test_events_from_before_the_erasure_and_erased_lines_are_filtered(spark):
    keys = spark.createDataFrame([(USER, "u1"), (LINE, "h1")], "kind string, key string")
    erased = keys.select("kind", key_hash("key", SALT).alias("key_hash")).crossJoin(
        spark.createDataFrame([(datetime(2024, 3, 10, tzinfo=UTC),)], "erased_at timestamp")
    )
    before, after = utc("2024-03-09 23:59:59"), utc("2024-03-10 00:00:00")
    lines = {
        "before": ("u1", before, "h9", None, None),
        "came back": ("u1", after, "h9", None, None),
        "no time": ("u1", None, "h9", "bad_timestamp", None),
        "other rule": ("u1", before, "h9", None, "blank_line"),
        "someone else": ("u2", before, "h9", None, None),
        "nobody": (None, None, "h9", "malformed", None),
        "erased line": (None, None, "h1", "malformed", None),
        "readable line": ("u2", before, "h1", None, None),
    }
    schema = "name string, user_id string, timestamp timestamp, line_hash string, reason string, filter_rule string"
    frame = spark.createDataFrame([(name, *values) for name, values in lines.items()], schema)
    marked = leave_out_erased(frame, erased, SALT)
    assert marked.columns == frame.columns
    rules = {row["name"]: row["filter_rule"] for row in marked.collect()}
    assert rules == {
        "before": "erased_user", "came back": None, "no time": "erased_user", "other rule": "blank_line", "someone else": None,
        "nobody": None, "erased line": "erased_user", "readable line": None,
    }  # fmt: skip


def test_another_salt_gives_other_hashes(spark):
    frame = spark.createDataFrame([("u1",), (None,)], "user_id string")
    hashes = [frame.select(key_hash("user_id", salt)).collect() for salt in ("a", "b", "a")]
    assert hashes[0] == hashes[2] != hashes[1]
    assert hashes[0][1][0] is None


def test_lines_that_name_a_user_are_found_by_their_bytes(spark):
    lines = [("h1", bytearray(b'{"u": "u1')), ("h1", bytearray(b'{"u": "u1')), ("h2", bytearray(b"u12")), ("h3", None)]
    frame = spark.createDataFrame(lines, "line_hash string, raw_line binary")
    found = lines_that_name(frame, spark.sparkContext.broadcast(index_ids(["u1"])))
    assert [row.line_hash for row in found.collect()] == ["h1"]
