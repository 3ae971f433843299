"""What happens to the files of a table: each step of an erasure is needed, old logs are cut, compacting changes no row."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from factories import make_events, table_rows
from personal_bytes import files_that_hold

from recsys_spark.infra import table_files, tables

GONE = "erase-me-Ünïque-77"
WEEK = 168


def set_properties(spark, config, name, pairs):
    spark.sql(f"ALTER TABLE {tables.table_address(config, name)} {pairs}")


def users(spark, *ids):
    return spark.createDataFrame([(name,) for name in ids], "user_id string")


def add_users(spark, config, *ids):
    rows = [{"event_id": name, "user_id": name} for name in ids]
    tables.merge_new(spark, config, "events", make_events(spark, rows))


def in_data(config, text):
    return [name for name in files_that_hold(Path(config.data_root), text) if "_delta_log" not in name]


def in_log(config, text):
    return [name for name in files_that_hold(Path(config.data_root), text) if "_delta_log" in name]


def let_a_day_pass(folder):
    """Date the log's files back, in the order in which they were written: Delta goes by their times."""
    for seconds, file in enumerate(sorted(folder.iterdir(), key=lambda file: file.name.lstrip("."))):
        yesterday = time.time() - 30 * 3600 + seconds
        os.utime(file, (yesterday, yesterday))


def test_with_deletion_vectors_deleting_and_vacuuming_leave_the_bytes_and_purging_does_not(spark, config):
    tables.ensure_table(spark, config, "events")
    set_properties(spark, config, "events", "SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    add_users(spark, config, GONE, "u2", "u3")
    assert tables.delete_matching(spark, config, "events", users(spark, GONE, "stranger")) == 1
    table_files.vacuum(spark, config, "events", 0)
    assert in_data(config, GONE)
    table_files.forget_removed_rows(spark, config, "events", WEEK)
    assert in_data(config, GONE) == []
    assert spark.conf.get(table_files.RETENTION_CHECK) == "true"


def test_every_commit_of_an_erasure_waits_for_the_process_that_writes_to_the_table(spark, config, monkeypatch):
    tables.ensure_table(spark, config, "events")
    set_properties(spark, config, "events", "SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    add_users(spark, config, GONE, "u2")
    tables.delete_matching(spark, config, "events", users(spark, GONE))
    alone, outside, run_sql = tables.one_process_at_a_time, [], type(spark).sql
    inside = []

    @contextmanager
    def in_turn(lock_file):
        with alone(lock_file):
            inside.append(lock_file)
            yield
            inside.pop()

    def sql(self, statement, *rest, **named):
        if statement.startswith(("VACUUM", "REORG")) and not inside:
            outside.append(statement)
        return run_sql(self, statement, *rest, **named)

    monkeypatch.setattr(tables, "one_process_at_a_time", in_turn)
    monkeypatch.setattr(type(spark), "sql", sql)
    version = tables.delta_version(spark, config, "events")
    table_files.forget_removed_rows(spark, config, "events", WEEK)
    assert tables.delta_version(spark, config, "events") >= version + 3  # REORG, and VACUUM's start and end
    assert outside == []


def test_files_that_no_log_names_are_deleted_after_the_hours_asked_for(spark, config):
    add_users(spark, config, "u1")
    folder = Path(config.data_root) / "tables" / "events"
    for hours in (20, 30, 300):
        (folder / f"left-{hours}.parquet").write_bytes(b"x")
        written = time.time() - hours * 3600
        os.utime(folder / f"left-{hours}.parquet", (written, written))

    def left_after(hours):
        table_files.vacuum(spark, config, "events", hours)
        return sorted(path.stem for path in folder.glob("left-*"))

    assert left_after(1000) == ["left-20", "left-30", "left-300"]  # longer than Delta's own 168
    assert left_after(WEEK) == ["left-20", "left-30"]
    assert left_after(24) == ["left-20"]


def test_a_log_with_personal_statistics_is_told_and_cut_once_it_is_a_day_old(spark, config):
    tables.ensure_table(spark, config, "events")
    stats_columns = "delta.dataSkippingStatsColumns"
    set_properties(spark, config, "events", f"UNSET TBLPROPERTIES ('{stats_columns}')")  # as an older version made it
    add_users(spark, config, GONE, "u2", "u3")
    assert in_log(config, GONE)
    set_properties(spark, config, "events", f"SET TBLPROPERTIES ('{stats_columns}' = 'timestamp')")
    tables.delete_matching(spark, config, "events", users(spark, GONE))
    assert table_files.forget_removed_rows(spark, config, "events", WEEK)  # commits of today stay
    assert in_log(config, GONE)
    let_a_day_pass(Path(config.data_root) / "tables/events/_delta_log")
    assert not table_files.forget_removed_rows(spark, config, "events", WEEK)
    assert files_that_hold(Path(config.data_root), GONE) == []
    # and with the log cut, the next erasure still finds its files
    assert tables.delete_matching(spark, config, "events", users(spark, "u2")) == 1
    assert not table_files.forget_removed_rows(spark, config, "events", WEEK)
    assert in_data(config, "u2") == []
    assert table_rows(tables.read_table(spark, config, "events", made_by="x"), "user_id") == [("u3",)]
    properties = spark.sql(f"SHOW TBLPROPERTIES {tables.table_address(config, 'events')}").collect()
    assert not {row.key for row in properties} & {"delta.logRetentionDuration", "delta.checkpointInterval"}


def test_compacting_leaves_open_days_alone(spark, config):
    for number in range(2):
        rows = [{"event_id": f"{day}{number}", "timestamp": f"2024-03-0{day} 10:00:00"} for day in (5, 6)]
        tables.merge_new(spark, config, "events", make_events(spark, rows))
    before = table_rows(tables.read_table(spark, config, "events", made_by="x"))
    assert table_files.compact(spark, config, "events", ("event_date", date(2024, 3, 6))) == (2, 1)
    assert table_files.compact(spark, config, "events", ("event_date", date(2024, 3, 6))) == (0, 0)
    assert table_files.table_facts(spark, config, "events").num_files == 3
    assert table_rows(tables.read_table(spark, config, "events", made_by="x")) == before
