"""The whole line on a cluster of two workers: the same lists as on one machine, and clear words where a worker lacks packages."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from cluster import standalone_cluster, submit, tasks_by_executor
from factories import table_rows, write_lines
from worlds import CUTOFF, blocks_config, blocks_events, trained_blocks_world

from recsys_spark.infra import tables

pytestmark = [pytest.mark.spark, pytest.mark.slow]

EXECUTOR_MEMORY = ("--executor-memory", "640m", "--conf", "spark.task.maxFailures=1")
SOURCE_COLUMNS = ("event_id", "user_id", "item_id", "event_type", "timestamp")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with standalone_cluster(tmp_path_factory.mktemp("cluster") / "spark", num_workers=2, worker_memory="640m") as running:
        yield running


def test_the_main_job_runs_on_both_workers_and_gives_the_lists_of_one_machine(spark, cluster, tmp_path, tmp_path_factory):
    world = trained_blocks_world(spark, tmp_path_factory)
    lines = [json.dumps({name: row[name] for name in SOURCE_COLUMNS}) for row in blocks_events()]
    write_lines(tmp_path / "raw" / "log.jsonl", *lines, *lines[:7], "torn")
    events = {"name": "shop", "path": f"{tmp_path}/raw", "timestamp_format": None}
    events = {"name": "shop", "path": f"{tmp_path}/raw"}
    config = blocks_config(tmp_path / "root", sources={"events": events}, spark={"shuffle_partitions": 2})
    (tmp_path / "spark-events").mkdir()
    log = ("--conf", "spark.eventLog.enabled=true", "--conf", f"spark.eventLog.dir=file://{tmp_path}/spark-events")

    code, printed = submit(cluster, "main_job", config, *EXECUTOR_MEMORY, *log, arguments=("--date", str(CUTOFF)))

    assert code == 0, printed[-5000:]
    assert "workers=1" in printed  # one host
    assert f"read={len(lines) + 8} inserted={len(lines)} updated=0 duplicate=7" in printed
    done = tasks_by_executor(tmp_path / "spark-events")
    assert sorted(done) == ["0", "1"]
    assert min(done.values()) > sum(done.values()) / 10, done
    assert lists(spark, config) == lists(spark, world.config)
    assert tables.read_table(spark, config, "metrics", made_by="evaluate").count() > 0


def lists(spark, config):
    rows = tables.read_table(spark, config, "recommendations", made_by="recommend")
    columns = ("run_date", "task", "model", "user_id", "rank", "item_id", "is_fallback")
    return table_rows(rows, *columns, "round(score, 5)")
