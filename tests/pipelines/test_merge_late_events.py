"""Late events join the table when somebody decides so, once, and leave events_late."""

from __future__ import annotations

from datetime import date

import pytest
from factories import EVENT_COLUMNS, event_line, make_config, table_rows, write_lines

from recsys_spark.infra import tables
from recsys_spark.pipelines.ingest_events import ingest_events
from recsys_spark.pipelines.merge_late_events import merge_late_events


def late_config(tmp_path):
    source = {
        "name": "shop",
        "path": str(tmp_path / "raw"),
        "date_pattern": r"(\d{4}-\d{2}-\d{2})[^/]*$",
        "columns": EVENT_COLUMNS,
    }
    return make_config(tmp_path / "lake", sources={"events": source}, ingest={"horizon_days": 10})


def ids(spark, config, name):
    return table_rows(tables.read_table(spark, config, name, made_by="ingest_events"), "event_id", "user_id")


def test_late_events_are_merged_once_and_a_conflict_keeps_the_stored_row(spark, tmp_path):
    config = late_config(tmp_path)
    write_lines(tmp_path / "raw" / "2024-01-01.jsonl", event_line(event_id="known", timestamp="2024-01-01T10:00:00"))
    write_lines(
        tmp_path / "raw" / "2024-03-05.jsonl",
        event_line(event_id="known", user_id="other", timestamp="2024-01-02T10:00:00"),
        event_line(event_id="new", timestamp="2024-01-02T10:00:00"),
        event_line(event_id="later", timestamp="2024-02-01T10:00:00"),
    )
    ingest_events(spark, config, date(2024, 1, 1))
    assert ingest_events(spark, config, date(2024, 3, 5))["late"] == 3
    first = merge_late_events(spark, config, date(2024, 2, 1))
    assert first == {"read": 2, "inserted": 1, "duplicate": 1, "conflicts": 1, "removed": 2}
    assert ids(spark, config, "events") == [("known", "u1"), ("new", "u1")]
    assert ids(spark, config, "events_late") == [("later", "u1")]
    assert merge_late_events(spark, config)["inserted"] == 1
    assert merge_late_events(spark, config) == dict.fromkeys(first, 0)


def test_a_run_that_stopped_before_the_removal_is_repeated(spark, tmp_path, monkeypatch):
    config = late_config(tmp_path)
    write_lines(tmp_path / "raw" / "2024-03-05.jsonl", event_line(event_id="old", timestamp="2024-01-02T10:00:00"))
    ingest_events(spark, config)
    with monkeypatch.context() as patch:
        patch.setattr(tables, "delete_matching", lambda *_: (_ for _ in ()).throw(OSError("stopped")))
        with pytest.raises(OSError, match="stopped"):
            merge_late_events(spark, config)
    again = merge_late_events(spark, config)
    assert (again["inserted"], again["duplicate"], again["conflicts"], again["removed"]) == (0, 1, 0, 1)
    assert ids(spark, config, "events") == [("old", "u1")]
