"""Quarantined lines come back after a fix, once, and only those that are good now."""

from __future__ import annotations

import gzip
import random
from datetime import date

import pytest
from factories import EVENT_COLUMNS, event_line, make_config, table_rows, write_lines
from pyspark.sql import functions as F

from recsys_spark.infra import tables
from recsys_spark.pipelines.ingest_events import ingest_events
from recsys_spark.pipelines.replay_quarantine import list_lines, quarantine_of, reason_counts, replay_quarantine

DAY = date(2024, 3, 5)


def shop_config(tmp_path, **source):
    defaults = {"name": "shop", "path": str(tmp_path / "raw"), "date_pattern": r"(\d{4}-\d{2}-\d{2})[^/]*$"}
    source = {**defaults, "columns": EVENT_COLUMNS, **source}
    return make_config(tmp_path / "lake", sources={"events": source}, ingest={"max_quarantined_share": 1})


def quarantined(spark, config, *columns):
    return table_rows(tables.read_table(spark, config, "events_quarantine", made_by="ingest_events"), *columns)


def test_lines_that_a_mended_config_can_read_leave_the_quarantine(spark, tmp_path):
    write_lines(
        tmp_path / "raw" / "2024-03-05.jsonl",
        event_line(event_id="e1"), event_line(event_id="e2", event_type="wish"), event_line(event_id="e2", event_type="wish"),
        event_line(event_id="e3", event_type="wish", timestamp="2023-01-01"), "torn",
    )  # fmt: skip
    strict = shop_config(tmp_path, event_types=["view"])
    assert ingest_events(spark, strict, DAY)["quarantined"] == 4
    assert reason_counts(quarantine_of(spark, strict, "events"), None).to_dict("records") == [
        {"reason": "unknown_event_type", "detail": "event_type", "lines": 3, "files": 1},
        {"reason": "malformed", "detail": None, "lines": 1, "files": 1},
    ]
    mended = shop_config(tmp_path, event_types=["view", "wish"])
    for expected in (
        {"read": 4, "inserted": 1, "duplicate": 1, "late": 1, "quarantined": 1, "removed": 3},
        {"read": 1, "inserted": 0, "duplicate": 0, "late": 0, "quarantined": 1, "removed": 0},
    ):
        counts = replay_quarantine(spark, mended)
        assert {name: counts[name] for name in expected} == expected
        assert quarantined(spark, mended, "reason") == [("malformed",)]
    assert table_rows(tables.read_table(spark, mended, "events", "ingest_events"), "event_id") == [("e1",), ("e2",)]
    assert table_rows(tables.read_table(spark, mended, "events_late", "ingest_events"), "event_id") == [("e3",)]


def test_a_csv_line_is_read_again_under_its_own_header(spark, tmp_path):
    header = "event_id,user_id,item_id,event_type,timestamp"
    write_lines(tmp_path / "raw" / "2024-03-05.csv", header, "e1,u1,i1,view,05.03.2024 10:00", "e2,u2,i2")
    swapped = "user_id,event_id,item_id,event_type,timestamp"
    write_lines(tmp_path / "raw" / "2024-03-06.csv", swapped, "u3,e3,i3,view,06.03.2024 10:00")
    assert ingest_events(spark, shop_config(tmp_path, format="csv"))["quarantined"] == 3
    columns = {**EVENT_COLUMNS, "timestamp": {"column": "timestamp", "timestamp_format": "dd.MM.yyyy HH:mm"}}
    mended = shop_config(tmp_path, format="csv", columns=columns)
    assert replay_quarantine(spark, mended)["removed"] == 2
    rows = table_rows(tables.read_table(spark, mended, "events", "ingest_events"), "event_id", "user_id")
    assert rows == [("e1", "u1"), ("e3", "u3")]
    assert quarantined(spark, mended, "reason", "delivery_date") == [("malformed", "2024-03-05")]


def test_a_damaged_file_gives_its_prefix_and_all_of_it_when_it_was_mended(spark, tmp_path):
    numbers = random.Random(5)  # so that the archive is long enough to be cut between lines
    lines = [event_line(event_id=f"e{i}", note=str(numbers.random())) for i in range(2000)]
    whole = gzip.compress("".join(line + "\n" for line in lines).encode())
    (tmp_path / "raw").mkdir()
    damaged = tmp_path / "raw" / "2024-03-05.jsonl.gz"
    damaged.write_bytes(whole[: len(whole) // 2])
    write_lines(tmp_path / "raw" / "2024-03-05-b.jsonl", event_line(event_id="healthy"))
    config = shop_config(tmp_path)
    counts = ingest_events(spark, config, DAY)
    assert counts["quarantined"] == 1
    assert 500 < counts["inserted"] < 1500
    assert counts["read"] == counts["inserted"] + 1
    assert quarantined(spark, config, "reason", "raw_line", "occurrence") == [("damaged_file", None, "1")]
    assert ingest_events(spark, config, DAY)["duplicate"] == counts["inserted"]
    assert len(quarantined(spark, config)) == 1

    assert replay_quarantine(spark, config).get("read") is None  # the file is as it was
    damaged.write_bytes(whole)
    again = replay_quarantine(spark, config)
    assert (again["read"], again["removed"]) == (2000, 1)
    assert again["inserted"] == 2001 - counts["inserted"]
    assert quarantined(spark, config) == []


@pytest.mark.parametrize("cut", [0, 12, 0.8], ids=["no gzip at all", "before the header ends", "behind the header"])
def test_a_damaged_csv_archive_beside_a_healthy_one_is_never_passed_over(spark, tmp_path, cut):
    header = "user_id,event_id,item_id,event_type,timestamp"  # not in the order of the config's columns
    numbers = random.Random(5)
    lines = [f"u{numbers.random()},e{i},i1,view,2024-03-05T10:00:00" for i in range(40)]
    whole = gzip.compress("".join(f"{line}\n" for line in [header, *lines]).encode())
    healthy = tmp_path / "raw" / "2024-03-05-a.csv.gz"
    healthy.parent.mkdir()
    healthy.write_bytes(gzip.compress(f"{header}\nu1,good,i1,view,2024-03-05T10:00:00\n".encode()))
    damaged = healthy.with_name("2024-03-05-b.csv.gz")
    damaged.write_bytes(b"<html>not found</html>" if cut == 0 else whole[: cut if cut > 1 else int(len(whole) * cut)])
    config = shop_config(tmp_path, format="csv")
    counts = ingest_events(spark, config, DAY)
    assert counts["quarantined.damaged_file"] == 1
    assert counts["read"] == counts["inserted"] + 1
    assert (counts["inserted"] > 1) == (cut == 0.8)
    rows = table_rows(tables.read_table(spark, config, "events", "ingest_events"), "event_id", "user_id")
    assert {event[0] for event, _ in rows if event != "good"} <= {"e"}  # no user id in the event's place
    damaged.write_bytes(whole)
    assert replay_quarantine(spark, config)["removed"] == 1
    rows = table_rows(tables.read_table(spark, config, "events", "ingest_events"), "event_id")
    assert len(rows) == len(lines) + 1


def test_a_line_saved_from_a_damaged_file_is_one_line_when_the_file_is_whole(spark, tmp_path):
    numbers = random.Random(5)
    lines = ["torn", *[event_line(event_id=f"e{i}", note=str(numbers.random())) for i in range(2000)]]
    whole = gzip.compress("".join(line + "\n" for line in lines).encode())
    file = tmp_path / "raw" / "2024-03-05 50% [shop]+1.jsonl.gz"  # a name that Spark and Hadoop spell in two ways
    file.parent.mkdir()
    file.write_bytes(whole[: len(whole) // 2])
    config = shop_config(tmp_path)
    assert ingest_events(spark, config, DAY)["quarantined.malformed"] == 1
    file.write_bytes(whole)
    again = replay_quarantine(spark, config)
    assert (again["read"], again["quarantined"], again["removed"]) == (2001, 1, 1)
    assert quarantined(spark, config, "reason", "occurrence") == [("malformed", "1")]


def test_equal_lines_with_numbered_ids_keep_their_numbers_in_a_replay(spark, tmp_path):
    event_id = {"hash_of": ["user_id", "item_id"], "numbered": True}
    line, bad = (event_line(event_id=..., **{"price": price}) for price in ("1", "two"))
    write_lines(tmp_path / "raw" / "2024-03-05.jsonl", line, line, bad, bad)
    columns = {name: field for name, field in EVENT_COLUMNS.items() if name != "event_id"}
    config = shop_config(tmp_path, columns={**columns, "value": "price"}, event_id=event_id)
    assert ingest_events(spark, config, DAY)["inserted"] == 2
    mended = shop_config(tmp_path, columns=columns, event_id=event_id)
    counts = replay_quarantine(spark, mended)
    # the ids are made of user and item: another price is a conflict, seen and counted, and no new event
    assert (counts["duplicate"], counts["conflicts"], counts["removed"]) == (2, 2, 2)


def test_a_replay_is_held_by_no_limit_and_leaves_the_history_of_deliveries_alone(spark, tmp_path):
    write_lines(tmp_path / "raw" / "2024-03-05.jsonl", event_line(event_id="e1"), "torn")
    config = shop_config(tmp_path)
    ingest_events(spark, config, DAY)
    limits = {
        "events": {"quarantined_share": {"malformed": {"fail": 0.1}}, "duplicate_share": {"warn": None, "fail": 0.1}}
    }
    strict = config.model_copy(update={"checks": type(config.checks).model_validate(limits)})
    assert replay_quarantine(spark, strict, DAY)["quarantined"] == 1
    runs = tables.read_table(spark, config, "ingest_runs", "ingest_events")
    assert table_rows(runs, "feed", "status") == [("events", "ok"), ("events_replay", "ok")]


def test_lines_kept_without_their_header_stay_and_hold_up_nobody(spark, tmp_path, caplog):
    header = "event_id,user_id,item_id,event_type,timestamp"
    write_lines(tmp_path / "raw" / "2024-03-05.csv", header, "e1,u1,i1,view,05.03.2024 10:00")
    config = shop_config(tmp_path, format="csv")
    ingest_events(spark, config, DAY)
    stored = tables.read_table(spark, config, "events_quarantine", "ingest_events").toPandas()
    old = stored.assign(header=None, source_file="old.csv")
    rows = spark.createDataFrame(old, tables.read_table(spark, config, "events_quarantine", "ingest_events").schema)
    tables.merge_new(spark, config, "events_quarantine", rows.withColumn("header", F.lit(None).cast("string")))
    columns = {**EVENT_COLUMNS, "timestamp": {"column": "timestamp", "timestamp_format": "dd.MM.yyyy HH:mm"}}
    assert replay_quarantine(spark, shop_config(tmp_path, format="csv", columns=columns))["inserted"] == 1
    assert quarantined(spark, config, "source_file") == [("old.csv",)]
    assert "lines=1" in caplog.text


def test_only_the_feed_that_is_asked_for_is_replayed(spark, tmp_path):
    write_lines(tmp_path / "raw" / "2024-03-05.jsonl", "torn")
    config = shop_config(tmp_path)
    ingest_events(spark, config, DAY)
    assert replay_quarantine(spark, config, feeds=["items"]) == {"removed": 0.0}


def test_the_text_of_lines_is_shown_only_when_asked_for(spark, tmp_path):
    write_lines(tmp_path / "raw" / "2024-03-05.jsonl", event_line(), "torn of u1")
    config = shop_config(tmp_path)
    ingest_events(spark, config, DAY)
    found = quarantine_of(spark, config, "events")
    assert "u1" not in list_lines(found, None, 10, show_lines=False).to_string()
    assert list(list_lines(found, "malformed", 10, show_lines=True)["line"]) == ["torn of u1"]
    assert list_lines(found, "wrong_type", 10, show_lines=True).empty
