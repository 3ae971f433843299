"""The check of a cluster's workers: what it finds, how it says so, and that it gives up in time."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
import venv
from pathlib import Path
from types import SimpleNamespace

import pyspark
import pytest
from pyspark import cloudpickle

from recsys_spark.config import Config
from recsys_spark.errors import ConfigError, RetryableError
from recsys_spark.infra import session, workers

VERSIONS = {"recsys_spark": "0.1.0+aaaa1111", "numpy": "2.4.6"}
GOOD = {"host": "w1", "python": "/opt/venv/bin/python", "versions": VERSIONS, "sees_file": True}


def report(**changes):
    fields = {name: changes.pop(name) for name in ("host", "sees_file") if name in changes}
    return {**GOOD, **fields, "versions": {**VERSIONS, **changes}}


@pytest.mark.parametrize("found", [report(), report(numpy="2.4.1")], ids=["equal", "another patch"])
def test_a_worker_like_the_driver_has_no_problem(found):
    assert workers.problem_of(found, VERSIONS, "data") is None


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (report(recsys_spark="", numpy=""), "lacks recsys_spark, numpy"),
        (report(numpy="1.26.4"), "has numpy 1.26.4 where the driver has 2.4.6"),
        (report(recsys_spark="0.2.0+aaaa1111"), "has recsys_spark 0.2.0 where the driver has 0.1.0"),
        (report(recsys_spark="0.1.0+bbbb2222"), "has other code in recsys_spark 0.1.0 than the driver"),
        (report(sees_file=False), "does not see the driver's folder data"),
        (report(recsys_spark="", numpy="1.26.4"), "lacks recsys_spark and has numpy 1.26.4 where the driver has 2.4.6"),
    ],
)
def test_a_problem_names_the_host_the_interpreter_and_what_differs(found, text):
    assert workers.problem_of(found, VERSIONS, "data") == f"host w1 (/opt/venv/bin/python) {text}"


def test_the_error_shows_some_hosts_counts_the_others_and_says_what_to_do():
    text = workers.advice([f"host w{number} lacks numpy" for number in range(7)], 9, "/opt/venv/bin/python")
    assert text.startswith("7 of 9 workers cannot do their part: host w0 lacks numpy;")
    assert "host w4 lacks numpy; and 2 more. Expected" in text
    assert "w5" not in text
    assert all(word in text for word in ("make wheel", "now /opt/venv/bin/python", "cluster.md", "spark.check_workers"))


def test_the_probe_runs_in_an_interpreter_that_has_no_package_at_all(tmp_path):
    bare = tmp_path / "bare"
    venv.create(bare, symlinks=True)
    (tmp_path / "probe").write_bytes(
        cloudpickle.dumps(workers.worker_probe(workers.WORKER_PACKAGES, str(tmp_path / "no")))
    )
    code = f"import pickle; [report] = pickle.load(open({str(tmp_path / 'probe')!r}, 'rb'))(()); print(ascii(report))"
    libraries = (Path(pyspark.__file__).parent / "python" / "lib").glob("*.zip")  # what Spark itself gives its workers
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, libraries))}
    command = [str(bare / "bin" / "python"), "-c", code]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert str(dict.fromkeys(workers.WORKER_PACKAGES, workers.MISSING)) in done.stdout
    assert "'sees_file': False" in done.stdout


def test_the_probe_gives_here_what_is_installed_here():
    [found] = pickle.loads(cloudpickle.dumps(workers.worker_probe(workers.WORKER_PACKAGES, __file__)))(())
    assert found["python"] == sys.executable
    assert found["sees_file"] is True
    assert workers.MISSING not in found["versions"].values()


def test_changed_code_under_the_same_number_is_seen(tmp_path, monkeypatch):
    def version():
        [found] = workers.worker_probe(["recsys_spark"], None)(())
        return found["versions"]["recsys_spark"]

    package = tmp_path / "recsys_spark"
    package.mkdir()
    (package / "__init__.py").write_text('__version__ = "0.1.0"\n')
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "recsys_spark"]:
        monkeypatch.delitem(sys.modules, name)
    before = version()
    (package / "core.py").write_text("x = 1\n")
    assert version() != before
    assert version().startswith("0.1.0+")


class Failure(workers.Py4JJavaError):
    """An error of Spark with the message it has there."""

    def __init__(self, message):
        Exception.__init__(self, message)
        self.java_exception = SimpleNamespace(getMessage=lambda: message)


LOST = "Job aborted due to stage failure: Task 0 in stage 0.0 failed 4 times, most recent failure: Lost task 0.3 in stage 0.0 (TID 3) "


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (
            'java.io.IOException: Cannot run program "/x/python": error=2, No such file',
            'Cannot run program "/x/python": error=2',
        ),
        (
            "org.apache.spark.api.python.PythonException: Traceback:\n"
            "  ...\nPySparkRuntimeError: [PYTHON_VERSION_MISMATCH] Python in worker has different version: 3.12 than that in driver",
            "[PYTHON_VERSION_MISMATCH] Python in worker has different version: 3.12",
        ),
    ],
)
def test_a_worker_that_cannot_start_is_an_error_that_names_the_executor(cause, reason):
    context = SimpleNamespace(pythonExec="/x/python")
    with pytest.raises(ConfigError) as error, workers._missing_interpreter_explained(context):
        raise Failure(f"{LOST}(10.0.0.7 executor 2): {cause}\n\tat java.base/java.lang...")
    assert str(error.value).startswith(f"executor 2 on 10.0.0.7 cannot start a Python worker: {reason}")
    assert "now /x/python" in str(error.value)


def test_other_failures_stay_as_they_are():
    with pytest.raises(Failure), workers._missing_interpreter_explained(SimpleNamespace(pythonExec="python")):
        raise Failure(f"{LOST}(10.0.0.7 executor 2): ExecutorLostFailure")


def test_without_an_executor_in_time_it_gives_up_and_may_be_tried_again(spark):
    def wait(numbers):
        time.sleep(60)
        return numbers

    context = spark.sparkContext
    with pytest.raises(RetryableError, match=r"within 0\.5 s.*same command again"), workers._time_limit(context, 0.5):
        context.parallelize([1], 1).mapPartitions(wait).collect()
    assert len(context.getJobTags()) == 0


def test_packages_that_the_config_asks_for_are_looked_for_too(monkeypatch):
    asked = []
    monkeypatch.setattr(session, "check_workers", lambda spark, root, seconds, also: asked.append(also))
    for index in ("exact", "approximate"):
        session.check_cluster(None, Config(recommend={"index": index}))
    assert asked == [(), ("faiss",)]


def test_one_machine_has_no_workers_to_check(spark, tmp_path):
    workers.check_workers(spark, str(tmp_path / "root"), 1)
    assert not (tmp_path / "root").exists()
