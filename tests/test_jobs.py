"""The job files: one per pipeline, without logic; and one of them under a real spark-submit."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from factories import event_line, write_lines

from recsys_spark.cli import PIPELINES
from recsys_spark.infra.jvm import conf_dir

ROOT = Path(__file__).resolve().parents[1]
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))


def test_every_pipeline_and_the_main_job_have_a_job_of_their_name():
    pipelines = {path.stem for path in (ROOT / "recsys_spark" / "pipelines").glob("*.py")} - {"__init__"}
    assert set(JOBS) == pipelines | {"main_job"}
    assert set(PIPELINES) == pipelines


@pytest.mark.parametrize("job", JOBS)
def test_job_has_its_pipelines_docstring_and_no_logic(job):
    source = (ROOT / "jobs" / f"{job}.py").read_text()
    folder = "recsys_spark" if job == "main_job" else "recsys_spark/pipelines"
    pipeline = ast.parse((ROOT / folder / f"{job}.py").read_text())
    assert len(source.splitlines()) <= 10
    assert ast.get_docstring(ast.parse(source)) == ast.get_docstring(pipeline)
    assert f"run_job({job})" in source
    assert any(isinstance(node, ast.FunctionDef) and node.name == job for node in pipeline.body)


def submit(*arguments: str) -> tuple[int, str]:
    """Exit code, and everything printed: spark-submit sends a Python program's stderr to stdout."""
    command = [str(Path(sys.executable).parent / "spark-submit"), "--master", "local[1]"]
    command += [str(ROOT / "jobs" / "ingest_events.py"), "--set", "spark.shuffle_partitions=1", *arguments]
    environ = {**os.environ, "SPARK_CONF_DIR": str(conf_dir()), "PYSPARK_PYTHON": sys.executable}
    done = subprocess.run(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False
    )
    return done.returncode, done.stdout


@pytest.mark.slow
def test_submitted_job_writes_a_table_that_others_can_read(spark, tmp_path):
    folder = write_lines(tmp_path / "logs" / "day.json", event_line(), event_line(event_id="e2"), event_line()).parent
    code, printed = submit("--set", f"data_root={tmp_path}/root", "--set", f"sources.events.path={folder}")
    assert code == 0, printed
    assert "ingest_events seconds=" in printed
    assert "inserted=2 updated=0 duplicate=1" in printed
    events = spark.read.format("delta").load(f"{tmp_path}/root/tables/events")
    assert sorted(row["event_id"] for row in events.collect()) == ["e1", "e2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "code", "message"),
    [
        ("ingest.horizon_day=3", 2, "recsys: the defaults: unknown key ingest.horizon_day; did you mean ingest.horizon_days?"),
        ("sources.events.path=/no/such/folder", 3, "recsys: source 'default': expected files at /no/such/folder, found none"),
    ],
    ids=["wrong config", "no files"],
)  # fmt: skip
def test_submitted_job_ends_with_its_exit_code_and_one_line(tmp_path, setting, code, message):
    found, printed = submit("--set", f"data_root={tmp_path}", "--set", setting)
    assert found == code, printed
    assert message in printed.splitlines()[-1]
    assert "Traceback" not in printed
