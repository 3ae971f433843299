"""Quarantined lines come back after a fix, once, and only those that are good now."""

from __future__ import annotations

from datetime import date

from factories import EVENT_COLUMNS, event_line, make_config, table_rows, write_lines

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
    import gzip
    import random

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


def test_the_text_of_lines_is_shown_only_when_asked_for(spark, tmp_path):
    write_lines(tmp_path / "raw" / "2024-03-05.jsonl", event_line(), "torn of u1")
    config = shop_config(tmp_path)
    ingest_events(spark, config, DAY)
    found = quarantine_of(spark, config, "events")
    assert "u1" not in list_lines(found, None, 10, show_lines=False).to_string()
    assert list(list_lines(found, "malformed", 10, show_lines=True)["line"]) == ["torn of u1"]
    assert list_lines(found, "wrong_type", 10, show_lines=True).empty
