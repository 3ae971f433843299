"""The line on a cluster of two workers: the same lists as on one machine, and clear words where a worker lacks packages."""

from __future__ import annotations

import json
import sys
import venv

import pytest
from accidents import ROOT
from cluster import standalone_cluster, submit, tasks_by_executor
from factories import table_rows, write_lines
from worlds import CUTOFF, blocks_config, blocks_events, trained_blocks_world

from recsys_spark.infra import tables

# the first test may also train the world that others share
pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(1500)]

OPTIONS = (
    "--executor-memory",
    "640m",
    "--conf",
    "spark.sql.adaptive.enabled=false",
    "--conf",
    "spark.ui.enabled=false",
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with standalone_cluster(
        tmp_path_factory.mktemp("cluster") / "spark", num_workers=2, worker_memory="640m"
    ) as running:
        yield running


def test_the_main_job_uses_both_workers_and_gives_the_lists_of_one_machine(spark, cluster, tmp_path, tmp_path_factory):
    world = trained_blocks_world(spark, tmp_path_factory)
    names = ("event_id", "user_id", "item_id", "event_type", "timestamp")
    lines = [json.dumps({name: row[name] for name in names}) for row in blocks_events()]
    write_lines(tmp_path / "raw" / "log.jsonl", *lines, *lines[:7], "torn")
    config = blocks_config(
        tmp_path / "root",
        sources={"events": {"name": "shop", "path": f"{tmp_path}/raw"}},
        spark={"shuffle_partitions": 2},
        recommend={
            "k": 5,
            "models": ["popular", "als"],
            "tasks": ["next"],
        },  # a model of Spark's, one of ours, numpy in workers
    )
    history = tmp_path / "history"
    history.mkdir()
    options = [
        "--conf",
        "spark.eventLog.enabled=true",
        "--conf",
        "spark.eventLog.compress=false",
        "--conf",
        f"spark.eventLog.dir=file://{history}",
    ]
    options += ["--conf", f"spark.executorEnv.PYTHONPATH={ROOT}"]  # this checkout, whatever package is installed

    code, printed = submit(cluster, "main_job", config, *OPTIONS, *options, arguments=("--date", str(CUTOFF)))

    assert code == 0, printed[-5000:]
    [record] = tables.read_table(spark, config, "ingest_runs", made_by="ingest_events").collect()
    counts = {bucket: record["counts"][bucket] for bucket in ("read", "inserted", "duplicate", "quarantined")}
    assert counts == {"read": len(lines) + 8, "inserted": len(lines), "duplicate": 7, "quarantined": 1}
    tasks = tasks_by_executor(history)
    assert sorted(tasks) == ["0", "1"]
    assert min(tasks.values()) > sum(tasks.values()) / 10, tasks
    assert lists(spark, config) == lists(spark, world.config)
    assert tables.read_table(spark, config, "metrics", made_by="evaluate").count() > 0


def lists(spark, config):
    rows = tables.read_table(spark, config, "recommendations", made_by="recommend")
    rows = rows.where("task = 'next' AND model IN ('popular', 'als')")
    columns = ("run_date", "task", "model", "user_id", "rank", "item_id", "is_fallback")
    return table_rows(rows, *columns)


def test_workers_without_the_package_stop_the_job_before_its_first_step(cluster, tmp_path):
    venv.create(tmp_path / "bare", symlinks=True)
    python = tmp_path / "bare" / "bin" / "python"
    write_lines(tmp_path / "raw" / "log.jsonl", "{}")
    config = blocks_config(tmp_path / "root", sources={"events": {"path": f"{tmp_path}/raw"}})
    interpreters = [
        "--conf",
        f"spark.pyspark.python={python}",
        "--conf",
        f"spark.pyspark.driver.python={sys.executable}",
    ]
    code, printed = submit(cluster, "ingest_events", config, *OPTIONS, *interpreters)
    assert code == 2, printed
    last = printed.splitlines()[-1]
    assert last.startswith("recsys: 1 of 1 workers cannot do their part: host ")
    assert f"({python}) lacks recsys_spark, numpy, pandas, pyarrow, scipy." in last
    assert "make wheel" in last
    assert not (tmp_path / "root" / "tables").exists()
