"""Upkeep: fewer files, the same rows, also beside an ingest; a rerun finds nothing to do."""

from __future__ import annotations

import threading
from datetime import date

import pytest
from factories import make_config, make_events, table_rows
from pydantic import ValidationError

from recsys_spark.errors import ConfigError, DataError
from recsys_spark.infra import table_files, tables
from recsys_spark.pipelines.maintain_tables import maintain_tables

RUN_DATE = date(2024, 3, 7)
BOUNDS = ("event_date", date(2024, 3, 1), date(2024, 3, 9))


def ingest(spark, config, *ids):
    rows = [{"event_id": f"{name}-{day}", "timestamp": f"2024-03-0{day} 10:00:00"} for name in ids for day in (5, 7)]
    return tables.merge_new(spark, config, "events", make_events(spark, rows), BOUNDS)


def rows_of(spark, config, name):
    return table_rows(tables.read_table(spark, config, name, made_by="x"))


def test_closed_days_are_compacted_and_the_sizes_kept(spark, config, monkeypatch):
    for name in ("a", "b", "c"):
        ingest(spark, config, name)
    before = rows_of(spark, config, "events")
    counts = maintain_tables(spark, config, RUN_DATE)
    assert (counts["tables"], counts["files_removed"], counts["files_added"], counts["num_files"]) == (1, 3, 1, 4)
    assert rows_of(spark, config, "events") == before
    monkeypatch.setattr(table_files, "vacuum", lambda *_: None)
    again = maintain_tables(spark, config, RUN_DATE)
    assert (again["files_removed"], again["files_added"]) == (0, 0)
    stats = {row.table_name: row for row in tables.read_table(spark, config, "table_stats", made_by="x").collect()}
    assert (stats["events"].run_date, stats["events"].num_files, stats["events"].num_rows) == (RUN_DATE, 4, 6)
    assert stats["events"].size_bytes > 0
    assert stats["events"].delta_version == tables.delta_version(spark, config, "events")


def test_an_ingest_beside_it_loses_and_doubles_nothing(spark, tmp_path, monkeypatch):
    config = make_config(tmp_path, tables={"merge_attempts": 20})
    ingest(spark, config, "a")
    ingest(spark, config, "b")
    monkeypatch.setattr(table_files, "vacuum", lambda *_: None)
    start, inserted = threading.Barrier(2), []

    def deliver():
        start.wait(timeout=60)
        inserted.extend([ingest(spark, config, "b", "c"), ingest(spark, config, "c", "d")])

    writer = threading.Thread(target=deliver)
    writer.start()
    start.wait(timeout=60)
    for _ in range(2):
        maintain_tables(spark, config, RUN_DATE)
    writer.join(timeout=300)
    assert inserted == [2, 2]
    ids = [row[0] for row in table_rows(tables.read_table(spark, config, "events", made_by="x"), "event_id")]
    assert ids == sorted(f"{name}-{day}" for name in "abcd" for day in (5, 7))


def test_a_table_whose_newest_commit_is_gone_is_left_alone(spark, tmp_path):
    config = make_config(tmp_path)
    ingest(spark, config, "a")
    ingest(spark, config, "b")
    log = tmp_path / "tables" / "events" / "_delta_log"
    newest = max(log.glob("*.json"))
    newest.unlink()
    left = sorted(path.name for path in log.iterdir())
    with pytest.raises(DataError, match=r"is missing, but its \.crc is there"):
        maintain_tables(spark, config, RUN_DATE)
    assert sorted(path.name for path in log.iterdir()) == left  # nothing took the lost commit's number


def test_large_tables_without_days_are_left_as_they_are(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "vacuum", lambda *_: None)
    config = make_config(tmp_path, maintain={"whole_table_bytes": 0})
    schema = tables.TABLES["item_index"].schema
    for number in range(2):
        tables.merge_new(spark, config, "item_index", spark.createDataFrame([(f"i{number}", number)], schema))
    counts = maintain_tables(spark, config, RUN_DATE)
    assert (counts["files_removed"], counts["num_files"]) == (0, 2)


def train(spark, config, model, *days):
    for day in days:
        vectors = spark.createDataFrame([(f"i{day}", [1.0])], "item_id string, vector array<float>")
        tables.replace_model(spark, config, "item_vectors", vectors, model, f"{model}-{day}", date(2024, 3, day))


def test_only_the_newest_dates_of_every_model_are_kept(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "vacuum", lambda *_: None)
    config = make_config(tmp_path, maintain={"keep_dates": 2})
    train(spark, config, "als", 1, 2, 3, 4)
    train(spark, config, "ease", 1, 2)  # trained less often: its last dates are not the table's last ones
    ingest(spark, config, "a")
    assert maintain_tables(spark, config, RUN_DATE)["dates_removed"] == 2
    kept = {
        (row.model, row.run_date.day) for row in tables.read_table(spark, config, "item_vectors", made_by="x").collect()
    }
    assert kept == {("als", 3), ("als", 4), ("ease", 1), ("ease", 2)}
    assert tables.read_table(spark, config, "events", made_by="x").count() == 2
    assert maintain_tables(spark, config, RUN_DATE)["dates_removed"] == 0


def test_every_date_is_kept_unless_a_number_is_given(spark, config, monkeypatch):
    monkeypatch.setattr(table_files, "vacuum", lambda *_: None)
    train(spark, config, "als", 1, 2, 3)
    assert maintain_tables(spark, config, RUN_DATE)["dates_removed"] == 0
    assert tables.read_table(spark, config, "item_vectors", made_by="x").count() == 3


def test_without_a_date_nothing_is_closed(config):
    with pytest.raises(ConfigError, match="--date"):
        maintain_tables(None, config)


def test_a_short_retention_needs_a_second_word(tmp_path):
    with pytest.raises(ValidationError, match="allow_short_retention"):
        make_config(tmp_path, maintain={"vacuum_hours": 24})
    assert (
        make_config(tmp_path, maintain={"vacuum_hours": 24, "allow_short_retention": True}).maintain.vacuum_hours == 24
    )
