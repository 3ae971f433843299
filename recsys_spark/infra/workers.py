"""What the Python workers of a cluster have installed, compared with the driver before the first step runs."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark import SparkContext
from pyspark.sql import SparkSession

from recsys_spark.errors import ConfigError, RetryableError

_log = logging.getLogger("recsys_spark.workers")

PACKAGE = "recsys_spark"
WORKER_PACKAGES = (PACKAGE, "numpy", "pandas", "pyarrow", "scipy")
MISSING = ""
_SHOWN_HOSTS = 5
_TAG = "recsys_spark_check_workers"
_NO_WORKER = re.compile(
    r"Cannot run program [^\n]*|\[PYTHON_VERSION_MISMATCH\][^\n]*|Python worker (?:failed to connect|exited)[^\n]*"
)

Report = dict[str, Any]
"""One worker: `host`, `python` (its interpreter), `versions` (package -> version, MISSING where it cannot be imported)."""


def check_workers(spark: SparkSession, timeout_seconds: float) -> None:
    """Run a small job on every executor that is there and compare its packages with the driver's.

    Expected are the same code of this package, and of the others the same first two numbers of the version. Executors that
    come later are not looked at: they start from the same image, archive or folder. Does nothing with a local master.
    Raises ConfigError when an interpreter or a package is missing or another one, RetryableError when no executor has come
    within timeout_seconds.
    """
    context = spark.sparkContext
    if re.fullmatch(r"local(\[.*\])?", str(context.master)):  # local-cluster[...] has workers, too
        return
    start = time.perf_counter()
    probe = worker_probe(WORKER_PACKAGES)
    [expected] = probe(())
    num_tasks = 2 * max(2, context.defaultParallelism)  # Spark deals tasks out in turn: two a core meet every executor
    with _time_limit(context, timeout_seconds), _missing_interpreter_explained(context):
        found = context.parallelize(range(num_tasks), num_tasks).mapPartitions(probe).collect()
    reports = {(report["host"], report["python"]): report for report in found}.values()
    problems = [text for report in reports if (text := problem_of(report, expected["versions"]))]
    if problems:
        raise ConfigError(_advice(problems, len(reports), context.pythonExec))
    _log.info("check_workers seconds=%.1f workers=%d", time.perf_counter() - start, len(reports))


def worker_probe(packages: Iterable[str]) -> Callable[[Iterable[Any]], Iterable[Report]]:
    """Give a function for mapPartitions that reports what the worker has.

    It is made inside a function, unlike other worker code, so that Spark sends its code and not its name: a worker without
    this package could not import it. For the same reason it needs nothing but the standard library.
    """
    names = tuple(packages)

    def probe(_: Iterable[Any]) -> Iterable[Report]:
        import hashlib
        import importlib
        import pathlib
        import socket
        import sys
        import time

        versions = {}
        for name in names:
            try:
                module = importlib.import_module(name)
            except ImportError:  # not there, or a binary that lacks its libraries
                versions[name] = ""
                continue
            versions[name] = module.__version__
            if name == "recsys_spark":  # a wheel that was built again without a new number is other code
                folder = pathlib.Path(module.__file__).parent  # type: ignore[arg-type]
                files = sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix())
                code = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
                versions[name] += f"+{code[:8]}"
        time.sleep(0.05)  # long enough that one quick executor does not take the tasks of the others
        yield {"host": socket.gethostname(), "python": sys.executable, "versions": versions}

    return probe


def problem_of(report: Report, expected: Mapping[str, str]) -> str | None:
    """Say what a worker lacks or has in another version; None when all is as it should be."""
    missing = [name for name, version in report["versions"].items() if version == MISSING]
    others = [
        _difference(name, version, expected[name])
        for name, version in report["versions"].items()
        if version != MISSING and _identity(name, version) != _identity(name, expected[name])
    ]
    if not missing and not others:
        return None
    lacks = [f"lacks {', '.join(missing)}"] if missing else []
    return f"host {report['host']} ({report['python']}) {' and '.join([*lacks, *others])}"


def _identity(name: str, version: str) -> str:
    """What has to be equal: of this package the code, of others the first two numbers."""
    return version if name == PACKAGE else ".".join(version.split(".")[:2])


def _difference(name: str, found: str, expected: str) -> str:
    if found.split("+")[0] == expected.split("+")[0]:
        return f"has other code in {name} {found.split('+')[0]} than the driver"
    return f"has {name} {found.split('+')[0]} where the driver has {expected.split('+')[0]}"


def _advice(problems: list[str], num_workers: int, python: str) -> str:
    shown = problems[:_SHOWN_HOSTS]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    return (
        f"{len(problems)} of {num_workers} workers cannot run what the driver sends: {'; '.join(shown)}. Expected on every "
        f"worker is the driver's own build: make it with `make wheel` and install it there, with requirements/default.txt, for "
        f"the interpreter that spark.pyspark.python names (now {python}); docs/guide/cluster.md shows how. "
        "spark.check_workers: false skips this check"
    )


@contextmanager
def _time_limit(context: SparkContext, seconds: float) -> Iterator[None]:
    """Cancel the jobs that start inside after so many seconds, with RetryableError."""
    context.addJobTag(_TAG)
    expired = threading.Event()

    def cancel() -> None:
        expired.set()
        context.cancelJobsWithTag(_TAG)

    timer = threading.Timer(seconds, cancel)
    timer.start()
    try:
        yield
    except Py4JJavaError as error:
        if not expired.is_set():
            raise
        raise RetryableError(
            f"no executor of {context.master} has answered within {seconds:g} s: the cluster may be busy, or no worker is as "
            "large as spark.executor.cores and spark.executor.memory ask for; look at the cluster manager's page, then run the "
            "same command again, or raise spark.check_workers_seconds"
        ) from error
    finally:
        timer.cancel()
        context.removeJobTag(_TAG)


@contextmanager
def _missing_interpreter_explained(context: SparkContext) -> Iterator[None]:
    """Turn the failure of a worker that cannot even start into an error that names the host and the interpreter."""
    try:
        yield
    except Py4JJavaError as error:
        text = str(error.java_exception.getMessage() or "")
        reason, place = _NO_WORKER.search(text), re.search(r"\((\S+) executor (\w+)\): ", text)
        if reason is None:
            raise
        where = f"executor {place[2]} on {place[1]}" if place is not None else "an executor"
        raise ConfigError(
            f"{where} cannot start a Python worker: {reason[0]}. Expected is the driver's Python version at the path that "
            f"spark.pyspark.python names (now {context.pythonExec}), with this package installed; docs/guide/cluster.md shows how"
        ) from error
