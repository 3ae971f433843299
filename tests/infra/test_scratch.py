"""Data roots for a while: nothing of them is left, and nothing of the tables that they start from is changed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from factories import make_events, table_rows

from recsys_spark.infra import tables
from recsys_spark.infra.scratch import FOLDER, remove_all, scratch_root

pytestmark = pytest.mark.spark


def folders(config):
    path = Path(config.data_root) / FOLDER
    return sorted(folder.name for folder in path.iterdir()) if path.exists() else []


def test_scratch_root_is_empty_at_first_and_gone_at_last(spark, config):
    with scratch_root(spark, config, "trial") as scratch, scratch_root(spark, config, "trial") as other:
        assert scratch.data_root != other.data_root
        Path(scratch.data_root).mkdir(parents=True)
        (Path(scratch.data_root) / "file").write_text("something")
        assert len(folders(config)) == 1
        assert scratch.model_copy(update={"data_root": config.data_root}) == config
    assert folders(config) == []

    def fails():
        with scratch_root(spark, config, "trial") as scratch:
            Path(scratch.data_root).mkdir(parents=True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert folders(config) == []


def test_tables_of_a_catalog_become_folders(spark, config):
    named = config.model_copy(update={"tables": config.tables.model_copy(update={"catalog": "main.shop"})})
    with scratch_root(spark, named, "trial") as scratch:
        assert tables.table_address(scratch, "events") == f"delta.`{scratch.data_root}/tables/events`"


def test_roots_of_dead_jobs_of_this_machine_are_swept_and_others_stay(spark, config):
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    host, dead, alive = socket.gethostname(), ended.stdout.strip(), os.getpid()
    names = [f"a__{host}__{dead}__1", f"b__{host}__{alive}__1", f"c__elsewhere__{dead}__1", "someones_own"]
    for name in names:
        (Path(config.data_root) / FOLDER / name).mkdir(parents=True)
    with scratch_root(spark, config, "trial"):
        assert folders(config) == sorted(names[1:])
    assert remove_all(spark, config)
    assert folders(config) == []
    assert not remove_all(spark, config)


@pytest.fixture
def catalog_config(spark, config):
    """Tables by name, in a database of Spark's catalog."""
    spark.sql(f"CREATE DATABASE shop_scratch LOCATION '{config.data_root}/named'")
    yield config.model_copy(
        update={"tables": config.tables.model_copy(update={"catalog": "spark_catalog.shop_scratch"})}
    )
    spark.sql("DROP DATABASE shop_scratch CASCADE")


def test_clone_holds_the_asked_days_of_a_version_and_shares_no_writes(spark, catalog_config):
    config = catalog_config  # tables by folder are cloned in the tests of tune and backtest
    days = [{"event_id": f"e{day}", "timestamp": f"2024-03-{day:02} 10:00:00"} for day in range(1, 7)]
    tables.merge_new(spark, config, "events", make_events(spark, days))
    version = tables.delta_version(spark, config, "events")
    tables.merge_new(
        spark, config, "events", make_events(spark, [{"event_id": "later", "timestamp": "2024-03-03 11:00:00"}])
    )

    with scratch_root(spark, config, "trial") as scratch:
        keep = ("event_date", date(2024, 3, 2), date(2024, 3, 5))
        tables.clone_table(spark, config, scratch, "events", version, keep)
        tables.append_rows(spark, scratch, "events", make_events(spark, [{"event_id": "own"}]))
        found = tables.read_table(spark, scratch, "events", made_by="this test")
        assert table_rows(found, "event_id") == [("e2",), ("e3",), ("e4",), ("own",)]
    original = tables.read_table(spark, config, "events", made_by="this test")
    assert original.count() == 7
    as_it_was = tables.read_table(spark, config, "events", made_by="this test", version=version)
    assert as_it_was.count() == 6
