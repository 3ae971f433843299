"""What the Python workers of a cluster have, compared with the driver before the first step runs."""

from __future__ import annotations

import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from py4j.protocol import Py4JJavaError
from pyspark import SparkContext
from pyspark.sql import SparkSession

from recsys_spark.errors import ConfigError, RetryableError

_log = logging.getLogger("recsys_spark.workers")

PACKAGE = "recsys_spark"
WORKER_PACKAGES = (PACKAGE, "numpy", "pandas", "pyarrow", "scipy")
MISSING = ""
_SHOWN_WORKERS = 5
_TAG = "recsys_spark_check_workers"
_NO_WORKER = re.compile(
    r"Cannot run program [^\n]*|\[PYTHON_VERSION_MISMATCH\][^\n]*|Python worker (?:failed to connect|exited)[^\n]*"
)

Report = dict[str, Any]
"""One worker: `host`, `python` (its interpreter), `versions` (package -> version, MISSING where it cannot be imported) and
`sees_file` (whether the driver's marker file is there; true where there is none)."""


def check_workers(spark: SparkSession, data_root: str, timeout_seconds: float, also: tuple[str, ...] = ()) -> None:
    """Run a small job on the executors that are there and compare what they have with what the driver has.

    Expected are the same code of this package, of the packages it uses in workers and of those named in `also` the same first
    two numbers of the version, and the folder data_root where that is a local path. Executors that come later are not looked
    at: they start from the same image, archive or folder. Does nothing with a local master. Raises ConfigError when something
    differs, RetryableError when no executor has come within timeout_seconds.
    """
    context = spark.sparkContext
    if re.fullmatch(r"local(\[.*\])?", str(context.master)):  # local-cluster[...] has workers, too
        return
    start = time.perf_counter()
    with _marker_file(data_root) as marker:
        probe = worker_probe((*WORKER_PACKAGES, *also), marker)
        [driver] = probe(())
        num_tasks = 2 * max(
            2, context.defaultParallelism
        )  # Spark deals tasks out in turn: two a core meet every executor
        with _time_limit(context, timeout_seconds), _missing_interpreter_explained(context):
            found = context.parallelize(range(num_tasks), num_tasks).mapPartitions(probe).collect()
    reports = {(report["host"], report["python"]): report for report in found}.values()
    problems = [text for report in reports if (text := problem_of(report, driver["versions"], data_root))]
    if problems:
        raise ConfigError(advice(problems, len(reports), context.pythonExec))
    _log.info("check_workers seconds=%.1f hosts=%d", time.perf_counter() - start, len(reports))


def worker_probe(packages: Iterable[str], marker: str | None) -> Callable[[Iterable[Any]], Iterable[Report]]:
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
        sees_file = marker is None or pathlib.Path(marker).is_file()
        time.sleep(0.05)  # long enough that one quick executor does not take the tasks of the others
        yield {"host": socket.gethostname(), "python": sys.executable, "versions": versions, "sees_file": sees_file}

    return probe


def problem_of(report: Report, expected: Mapping[str, str], data_root: str) -> str | None:
    """Say what a worker lacks or has in another version; None when all is as it should be."""
    versions = report["versions"]
    missing = [name for name, version in versions.items() if version == MISSING]
    faults = [f"lacks {', '.join(missing)}"] if missing else []
    faults += [
        _difference(name, version, expected[name])
        for name, version in versions.items()
        if version != MISSING and _identity(name, version) != _identity(name, expected[name])
    ]
    if not report["sees_file"]:
        faults.append(f"does not see the driver's folder {data_root}")
    return f"host {report['host']} ({report['python']}) {' and '.join(faults)}" if faults else None


def _identity(name: str, version: str) -> str:
    """What has to be equal: of this package the code, of others the first two numbers."""
    return version if name == PACKAGE else ".".join(version.split(".")[:2])


def _difference(name: str, found: str, expected: str) -> str:
    found_number, expected_number = found.split("+")[0], expected.split("+")[0]
    if found_number == expected_number:
        return f"has other code in {name} {found_number} than the driver"
    return f"has {name} {found_number} where the driver has {expected_number}"


def advice(problems: list[str], num_workers: int, python: str) -> str:
    """The text of the error: the first problems, and what to do about either kind of them."""
    shown = problems[:_SHOWN_WORKERS]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    return (
        f"{len(problems)} of {num_workers} workers cannot do their part: {'; '.join(shown)}. Expected are, for the interpreter that "
        f"spark.pyspark.python names (now {python}), the driver's own build (`make wheel`) and requirements/default.txt on every "
        "worker, and a data_root that all of them reach (hdfs, s3a ... or a shared folder); docs/guide/cluster.md shows how, "
        "spark.check_workers: false skips this check"
    )


@contextmanager
def _marker_file(data_root: str) -> Iterator[str | None]:
    """Put a file into data_root for the workers to find; None where it is no local path, since any worker reaches a URI."""
    parts = urlsplit(data_root)
    if parts.scheme not in ("", "file"):
        yield None
        return
    folder = Path(unquote(parts.path) if parts.scheme else data_root).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / f".check-workers-{uuid.uuid4().hex}"
    marker.touch()
    try:
        yield str(marker)
    finally:
        marker.unlink()


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
