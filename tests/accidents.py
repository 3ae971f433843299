"""Ingest runs that are killed: deliveries with every bucket, processes to kill, and what must hold when the run is repeated.

Used by tests/test_accidents.py for a few seeds and by benchmarks/bench_kill.py for many.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psutil
import pyspark
from factories import EVENT_COLUMNS, event_line, make_config, table_rows, write_lines

from recsys_spark.config import Config
from recsys_spark.infra import tables
from recsys_spark.infra.jvm import conf_dir
from recsys_spark.pipelines.ingest_events import ingest_events

ROOT = Path(__file__).resolve().parents[1]
INGEST_TABLES = ("events_quarantine", "events_late", "events")  # in the order in which a run writes them
FAST_JVM = "-Duser.timezone=UTC -XX:TieredStopAtLevel=1"  # the second compiler never pays off in a short run
STARTED = "ingest_events started"
RECORDED = "ingest_run feed=events"
FIRST_DAY = date(2024, 3, 4)
SLICES = 5  # of a stretch of a run: seeds go through them in turn, so that few seeds meet every part of it
_SLOWER = 1.5  # two runs at once take more CPU seconds than one, and the last write should be met, too
_NEW_EVENTS = 150
_WAIT_SECONDS = 240.0

Rows = dict[str, list[tuple[Any, ...]]]


@dataclass(frozen=True)
class CpuSeconds:
    """What an undisturbed run takes: from its first step to its first write, and from there to its end."""

    to_first_write: float
    from_first_write: float


@dataclass(frozen=True)
class Day:
    """A delivery day, and the rows of each table after an ingest of it and the days before that nothing disturbed."""

    day: date
    rows: Rows
    before: Rows


def shop_config(raw: Path, root: Path, **ingest: Any) -> Config:
    """A config that meets every bucket of `write_day`, with its tables below root."""
    source = {
        "name": "shop",
        "path": str(raw),
        "date_pattern": r"(\d{4}-\d{2}-\d{2})[^/]*$",
        "columns": EVENT_COLUMNS,
        "filters": {"no_customer": "customer = ''"},
    }
    rules = {"max_quarantined_share": 0.5, "near_duplicate_seconds": 2, **ingest}
    return make_config(root, sources={"events": source}, ingest=rules, spark={"shuffle_partitions": 1})


def write_day(raw: Path, day: date) -> None:
    """Write a delivery with lines for every bucket; it repeats events of the day before, as shops do."""

    def line(of: date, number: int, **fields: Any) -> str:
        moment = f"{of}T{number // 60:02}:{number % 60:02}:00"
        event = {
            "event_id": f"{of}-{number}",
            "user_id": f"u{number % 17}",
            "item_id": f"i{number % 23}",
            "timestamp": moment,
        }
        return event_line(**{**event, **fields})  # fmt: skip

    new = [line(day, number) for number in range(_NEW_EVENTS)]
    lines = [
        *new,
        *new[:20],
        *[line(day, number, event_type="cart") for number in range(3)],  # a conflict: the id is known, the rest differs
        *[
            line(day, number, event_id=f"{day}-near-{number}", timestamp=f"{day}T00:{number:02}:01")
            for number in range(30, 34)
        ],
        # not the ids in conflict: which of their payloads is stored depends on which day came first
        *[line(day - timedelta(days=1), number) for number in range(3, 18)],
        *[line(date(2023, 1, 1), number, event_id=f"{day}-late-{number}") for number in range(5)],
        *[line(day, number, event_id=f"{day}-guest-{number}", customer="") for number in range(4)],
        *["torn", "torn", f"torn {day}", ""],
    ]
    write_lines(raw / f"{day}.jsonl", *lines)


def stored_rows(spark: Any, config: Config) -> Rows:
    """The rows of the tables that ingest writes; a table that is not there has none."""
    return {
        name: table_rows(tables.read_table(spark, config, name, made_by="ingest_events"))
        if tables.table_exists(spark, config, name)
        else []
        for name in INGEST_TABLES
    }


def undisturbed(spark: Any, folder: Path, num_days: int) -> list[Day]:
    """Write the deliveries of some days below folder/raw and ingest them with nothing going wrong."""
    config = shop_config(folder / "raw", folder / "undisturbed")
    days, before = [], stored_rows(spark, config)
    for number in range(num_days):
        day = FIRST_DAY + timedelta(days=number)
        write_day(folder / "raw", day)
        ingest_events(spark, config, day)
        rows = stored_rows(spark, config)
        days.append(Day(day, rows, before))
        before = rows
    return days


def submit_ingest(
    config: Config, day: date, log: Path, *options: str, spark_home: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start the job under spark-submit in a process group of its own; everything it prints goes to the log."""
    settings = log.with_suffix(".yaml")
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps(config.model_dump(mode="json", exclude_none=True)))  # JSON is YAML
    command = [str(Path(sys.executable).parent / "spark-submit"), *options]
    command += [
        "--driver-memory",
        "1g",
        "--conf",
        "spark.ui.enabled=false",
        "--conf",
        "spark.sql.adaptive.enabled=false",
    ]
    command += ["--conf", f"spark.driver.extraJavaOptions={FAST_JVM}", str(ROOT / "jobs" / "ingest_events.py")]
    command += ["-v", "--config", str(settings), "--date", str(day)]
    environ = {**os.environ, "SPARK_CONF_DIR": str(conf_dir()), "PYSPARK_PYTHON": sys.executable}
    if spark_home is not None:
        environ["SPARK_HOME"] = str(spark_home)
    with log.open("wb") as output:
        return subprocess.Popen(command, env=environ, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)


def own_spark_home(folder: Path) -> Path:
    """Give a Spark home that is the installed one, except that a local cluster leaves its `work` folder here and not there."""
    folder.mkdir(parents=True)
    for name in ("bin", "jars", "sbin"):
        (folder / name).symlink_to(Path(pyspark.__file__).parent / name)
    return folder


def wait_for(process: subprocess.Popen[bytes], log: Path, text: str) -> None:
    """Wait until the process has printed a text."""
    wait_until(process, log, lambda: text in log.read_text(errors="replace"))


def wait_until(process: subprocess.Popen[bytes], log: Path, is_so: Callable[[], bool]) -> None:
    """Wait until something is so; kill the process and fail with what it printed when it ends before or takes too long."""
    end = time.monotonic() + _WAIT_SECONDS
    while not is_so():
        if process.poll() is not None or time.monotonic() > end:
            kill_group(process)
            raise AssertionError(f"exit code {process.poll()} before what was waited for:\n{log.read_text()[-3000:]}")
        time.sleep(0.02)


def executors_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The executors among a driver's own descendants."""
    family = psutil.Process(process.pid).children(recursive=True)
    return [child for child in family if any("CoarseGrainedExecutorBackend" in part for part in _command(child))]


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.NoSuchProcess):  # one of the start script's helpers, ended since it was listed
        return list(process.cmdline())
    return []


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def kill_group(process: subprocess.Popen[bytes]) -> bool:
    """SIGKILL a process that we started and all of its group, and wait until they are gone; say whether it still ran."""
    if process.poll() is not None:
        return False
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    while any(_is_alive(member) for member in family):
        time.sleep(0.01)
    return True


def undisturbed_cpu_seconds(config: Config, day: date, log: Path) -> CpuSeconds:
    """Run the job to its end and give what it takes.

    CPU seconds and not seconds: a run beside others takes longer, and would be killed in its first steps only.
    """
    process = submit_ingest(config, day, log, "--master", "local[1]")
    wait_for(process, log, STARTED)
    start = _cpu_seconds(process)
    wait_until(process, log, lambda: _newest_versions(config)[INGEST_TABLES[0]] > 0)  # 0 is the empty table
    first_write = _cpu_seconds(process)
    wait_for(process, log, RECORDED)
    end = _cpu_seconds(process)
    assert process.wait(_WAIT_SECONDS) == 0, log.read_text()[-3000:]
    return CpuSeconds(first_write - start, end - first_write)


def _cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """Give what a process and its descendants have used so far; 0 when it has ended."""
    used = 0.0
    with suppress(psutil.NoSuchProcess):
        own = psutil.Process(process.pid)
        for member in (own, *own.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # one of the start script's helpers, ended since it was listed
                times = member.cpu_times()
                used += times.user + times.system
    return used


def kill_and_repeat(spark: Any, config: Config, day: Day, seed: int, cpu: CpuSeconds, log: Path) -> str:
    """Kill an ingest of the day at a moment drawn by the seed, check what it left, repeat it; give the state that the kill met.

    Even seeds kill before the first write of an undisturbed run, odd ones between this run's first write and its end, which is
    where a batch could be torn. AssertionError when a table holds part of a batch, or when the repeated run does not end where
    an undisturbed one does.
    """
    is_after_write, place = seed % 2 == 1, (seed // 2 % SLICES + random.Random(seed).random()) / SLICES
    runs_before, versions_before = _num_runs(spark, config), _newest_versions(config)
    first_table = INGEST_TABLES[0]
    process = submit_ingest(config, day.day, log, "--master", "local[1]")
    try:
        wait_for(process, log, STARTED)
        if is_after_write:
            written = max(versions_before[first_table], 0)
            wait_until(process, log, lambda: _newest_versions(config)[first_table] > written)
        stretch = _SLOWER * cpu.from_first_write if is_after_write else cpu.to_first_write
        end = _cpu_seconds(process) + place * stretch
        while process.poll() is None and _cpu_seconds(process) < end:
            time.sleep(0.1)  # looking through all processes is work, too
    finally:
        was_running = kill_group(process)
    state = _left_state(spark, config, day, versions_before)
    if _num_runs(spark, config) > runs_before:
        state = "recorded" if was_running else "finished"
    ingest_events(spark, config, day.day)
    found = stored_rows(spark, config)
    for name in INGEST_TABLES:
        assert found[name] == day.rows[name], f"seed {seed}, killed in state {state!r}: {name} differs: " + _difference(
            found[name], day.rows[name]
        )
    return state


def _left_state(spark: Any, config: Config, day: Day, versions_before: dict[str, int]) -> str:
    """Name the last table that a killed run wrote, and check that no version of any table holds part of the batch."""
    state = "nothing written"
    for name, newest in _newest_versions(config).items():
        new = set(_keys(name, day.rows)) - set(_keys(name, day.before))
        for version in range(versions_before[name] + 1, newest + 1):
            table = spark.read.option("versionAsOf", version).format("delta").load(_folder(config, name))
            key = tables.TABLES[name].key
            there = new & set(table_rows(table, *key))
            assert there in (set(), new), (
                f"version {version} of {name} holds {len(there)} of the batch's {len(new)} rows"
            )
            if there:
                state = f"{name} written"
    return state


def _keys(name: str, rows: Rows) -> list[tuple[Any, ...]]:
    columns = [column for column in tables.TABLES[name].schema.fieldNames() if column != "ingest_run"]
    places = [columns.index(column) for column in tables.TABLES[name].key]
    return [tuple(row[place] for place in places) for row in rows[name]]


def _newest_versions(config: Config) -> dict[str, int]:
    """By the commits that lie there: asking Delta takes seconds for three tables."""
    logs = {name: Path(_folder(config, name)) / "_delta_log" for name in INGEST_TABLES}
    return {name: max((int(commit.stem) for commit in log.glob("*.json")), default=-1) for name, log in logs.items()}


def _num_runs(spark: Any, config: Config) -> int:
    if not tables.table_exists(spark, config, "ingest_runs"):
        return 0
    return int(tables.read_table(spark, config, "ingest_runs", made_by="ingest_events").count())


def _difference(found: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]) -> str:
    missing, extra = set(expected) - set(found), set(found) - set(expected)
    return f"{len(found)} rows instead of {len(expected)}, missing {sorted(missing)[:3]}, too many {sorted(extra)[:3]}"


def _folder(config: Config, name: str) -> str:
    return f"{config.data_root}/tables/{name}"
