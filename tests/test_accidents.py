"""Accidents: a killed driver, a killed executor, a full disk and two writers lose nothing and add nothing twice."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext, suppress
from datetime import date
from pathlib import Path

import accidents
import pytest
from accidents import shop_config
from factories import make_config, make_events, table_rows

from recsys_spark.config import TablesConfig
from recsys_spark.data.outcome import BUCKETS
from recsys_spark.errors import RetryableError
from recsys_spark.infra import tables
from recsys_spark.infra.session import full_disk_explained
from recsys_spark.infra.table_lock import one_process_at_a_time
from recsys_spark.pipelines.ingest_events import ingest_events

KILLED_DAYS = (
    2  # per sequence; one after the other into the same tables, so that a kill also meets tables with a history
)
KILLED_SEQUENCES = 5


@pytest.fixture(scope="module")
def deliveries(spark_session, tmp_path_factory):
    """A folder with deliveries below raw/, and each day with the tables that an ingest gives which nothing disturbs."""
    folder = tmp_path_factory.mktemp("deliveries")
    return folder, accidents.undisturbed(spark_session, folder, KILLED_DAYS)


@pytest.mark.slow
@pytest.mark.timeout(1200)  # ten runs of a job and their repetitions; five minutes on two cores that nobody else uses
def test_a_driver_killed_at_any_moment_leaves_whole_batches_and_a_repeated_run_completes_them(
    spark, tmp_path, deliveries, capsys
):
    folder, days = deliveries
    alone = shop_config(folder / "raw", tmp_path / "alone")
    cpu = accidents.undisturbed_cpu_seconds(alone, days[0].day, tmp_path / "logs" / "alone.txt")
    assert accidents.stored_rows(spark, alone) == days[0].rows

    def sequence(number):
        config = shop_config(folder / "raw", tmp_path / f"killed-{number}")
        seeds = range(number, KILLED_DAYS * KILLED_SEQUENCES, KILLED_SEQUENCES)  # odd and even on either day
        return [
            accidents.kill_and_repeat(spark, config, day, seed, cpu, tmp_path / "logs" / f"{seed}.txt")
            for seed, day in zip(seeds, days, strict=True)
        ]

    with ThreadPoolExecutor(2) as pool:
        states = [state for found in pool.map(sequence, range(KILLED_SEQUENCES)) for state in found]
    met = Counter(states)
    with capsys.disabled():
        print(f"\nkilled runs: {dict(met)}; undisturbed: {cpu}")
    assert met["nothing written"], "no kill met a run before its first write"
    assert sum(met[f"{name} written"] for name in accidents.INGEST_TABLES), "no kill met a run between two writes"


@pytest.mark.slow
def test_an_executor_killed_in_the_middle_of_a_run_loses_nothing_and_adds_nothing_twice(spark, tmp_path, deliveries):
    folder, days = deliveries
    config = shop_config(folder / "raw", tmp_path / "lake")
    log = tmp_path / "cluster.txt"
    process = accidents.submit_ingest(
        config,
        days[0].day,
        log,
        *("--master", "local-cluster[2,1,1024]", "--conf", "spark.executor.memory=512m"),
        *("--conf", f"spark.executor.extraJavaOptions={accidents.FAST_JVM}"),
        spark_home=accidents.own_spark_home(tmp_path / "spark"),
    )
    try:
        # the batch is in the executors' memory, and part of it is lost with one of them
        accidents.wait_until(process, log, lambda: (tmp_path / "lake" / "tables" / "events_quarantine").exists())
        executors = accidents.executors_of(process)
        executors[0].kill()
        assert process.wait(240) == 0, log.read_text()[-3000:]
    finally:
        accidents.kill_group(process)
    assert len(executors) == 2
    assert accidents.stored_rows(spark, config) == days[0].rows


def log_files(config, kind):
    return sorted(Path(config.data_root).glob(f"tables/events/_delta_log/*.{kind}"))


def tear(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    forget_checksum(file)


def empty(file):
    file.write_bytes(b"")
    forget_checksum(file)


def cut(file):
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
    forget_checksum(file)


def remove(*files):
    for file in files:
        file.unlink()
        forget_checksum(file)


def forget_checksum(file):
    """Take away what Hadoop keeps beside a local file: other file systems have nothing of the kind."""
    file.with_name(f".{file.name}.crc").unlink(missing_ok=True)


# what happens to the log of four commits, or of four commits, a checkpoint and two commits; how the error begins, None: no error
LOG_ACCIDENTS = {
    "middle commit removed": (False, lambda c: remove(log_files(c, "json")[2]), "DELTA_VERSIONS_NOT_CONTIGUOUS"),
    "last commit torn": (False, lambda c: tear(log_files(c, "json")[-1]), "version 4.*is torn.*backup"),
    "last commit emptied": (False, lambda c: empty(log_files(c, "json")[-1]), r"expected version 4.*is empty.*backup"),
    "last commit cut between two lines": (False, lambda c: cut(log_files(c, "json")[-1]), r"version 4.*lacks lines: .*\+1.*\+0.*backup"),
    "middle commit cut between two lines": (False, lambda c: cut(log_files(c, "json")[2]), r"version 2.*lacks lines.*backup"),
    "last commit removed": (False, lambda c: remove(log_files(c, "json")[-1]), r"expected version 4.*is missing.*backup"),
    "middle commit emptied": (False, lambda c: empty(log_files(c, "json")[2]), r"expected version 2.*is empty.*backup"),
    "commits after the checkpoint removed": (
        True, lambda c: remove(*log_files(c, "json")[5:]), r"expected version 6.*is missing.*backup",
    ),
    "checkpoint torn": (True, lambda c: tear(log_files(c, "parquet")[0]), "FAILED_READ_FILE"),
    "checkpoint removed with the commits before it": (
        True, lambda c: remove(*log_files(c, "parquet"), *log_files(c, "json")[:5]), "DELTA_MISSING_PART_FILES",
    ),
    "checkpoint removed": (True, lambda c: remove(*log_files(c, "parquet")), None),
    "commits before the checkpoint removed": (True, lambda c: remove(*log_files(c, "json")[:5]), None),
    "_last_checkpoint torn": (True, lambda c: tear(log_files(c, "json")[0].with_name("_last_checkpoint")), None),
}  # fmt: skip


def add_events(spark, config, *ids):
    events = make_events(spark, [{"event_id": name} for name in ids])
    return tables.merge_new(spark, config, "events", events, ("event_date", date(2024, 3, 1), date(2024, 3, 9)))


def event_ids(spark, config):
    return [row[0] for row in table_rows(tables.read_table(spark, config, "events", "ingest_events"), "event_id")]


@pytest.fixture(scope="module")
def sound_logs(spark_session, tmp_path_factory):
    """Folders of a table with four commits after its creation: without a checkpoint, and with one and two commits more."""
    plain, checkpointed = (make_config(tmp_path_factory.mktemp("sound") / "lake") for _ in range(2))
    for number in range(4):
        add_events(spark_session, plain, f"a{number}", f"b{number}")
    shutil.copytree(plain.data_root, checkpointed.data_root)
    delta_log = spark_session._jvm.org.apache.spark.sql.delta.DeltaLog
    delta_log.forTable(spark_session._jsparkSession, f"{checkpointed.data_root}/tables/events").checkpoint()
    for number in range(4, 6):
        add_events(spark_session, checkpointed, f"a{number}", f"b{number}")
    return {
        False: (plain, event_ids(spark_session, plain)),
        True: (checkpointed, event_ids(spark_session, checkpointed)),
    }


@pytest.mark.parametrize("accident", LOG_ACCIDENTS)
def test_a_damaged_log_is_an_error_or_does_no_harm_and_never_gives_other_rows(spark, tmp_path, sound_logs, accident):
    has_checkpoint, damage, error = LOG_ACCIDENTS[accident]
    sound, expected = sound_logs[has_checkpoint]
    for work in ("read", "add"):  # each on a copy of its own: Delta keeps the log of a path that it has read
        shutil.copytree(sound.data_root, tmp_path / work)
        config = make_config(tmp_path / work)
        damage(config)
        with pytest.raises(Exception, match=f"(?s){error}") if error else nullcontext():
            if work == "add":
                assert add_events(spark, config, "a1", "a3", "new") == 1
            assert event_ids(spark, config) == [*expected, *(["new"] if work == "add" else [])]


def test_a_commit_cut_between_two_lines_is_found_by_the_checksum_of_a_local_file(spark, tmp_path, sound_logs):
    config = make_config(tmp_path / "copy")
    shutil.copytree(sound_logs[False][0].data_root, config.data_root)
    last = log_files(config, "json")[-1]
    last.write_bytes(last.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(Exception, match="ChecksumException"):
        event_ids(spark, config)


# Two threads of one driver, which do not wait for each other: Delta lets the first one through and the other one tries again.
@pytest.mark.parametrize("same_day", [True, False], ids=["same day", "two days"])
def test_two_ingests_at_once_lose_nothing_and_add_nothing_twice(spark, tmp_path, deliveries, same_day):
    folder, days = deliveries
    pair = [days[0].day, days[0].day if same_day else days[1].day]
    expected = days[0 if same_day else 1].rows
    for number in range(2):
        config = shop_config(folder / "raw", tmp_path / f"round-{number}")
        config = config.model_copy(update={"tables": TablesConfig(merge_attempts=20, merge_backoff_seconds=0.05)})
        with ThreadPoolExecutor(2) as pool:
            runs = list(pool.map(lambda day, config=config: ingest_events(spark, config, day), pair))
        assert all(run["read"] == sum(run[bucket] for bucket in BUCKETS) for run in runs)
        assert sum(run["inserted"] for run in runs) == len(expected["events"])
        assert accidents.stored_rows(spark, config) == expected


@pytest.mark.slow
def test_two_drivers_that_reach_a_local_table_at_once_take_turns(spark, tmp_path, deliveries):
    folder, days = deliveries
    config = shop_config(folder / "raw", tmp_path / "lake")
    logs = [tmp_path / "logs" / f"driver-{number}.txt" for number in range(2)]
    first_written = Path(config.data_root) / "locks" / accidents.INGEST_TABLES[0]
    with ExitStack() as running:
        with one_process_at_a_time(first_written):
            pairs = [
                (accidents.submit_ingest(config, day.day, log), log) for day, log in zip(days[:2], logs, strict=True)
            ]
            for process, _ in pairs:
                running.callback(accidents.kill_group, process)
            for process, log in pairs:
                accidents.wait_for(process, log, f"table_busy table={accidents.INGEST_TABLES[0]}")
        assert [process.wait(240) for process, _ in pairs] == [0, 0], [log.read_text()[-3000:] for log in logs]
    assert accidents.stored_rows(spark, config) == days[1].rows


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def fill(disk, spare):
    """Fill a disk up to some KiB."""
    with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))
    with (disk / "filler").open("r+b") as filler:
        filler.truncate((disk / "filler").stat().st_size - spare * 1024)


def test_a_full_disk_stops_the_run_with_whole_tables_and_a_repeated_run_completes_them(spark, small_disk, deliveries):
    folder, days = deliveries
    config = shop_config(folder / "raw", small_disk / "lake")
    ingest_events(spark, config, days[0].day)
    whole = [days[0].rows, days[1].rows]
    failed = {}
    for spare in range(0, 400, 40):  # KiB: full at one write or another, until there is enough for all of them
        fill(small_disk, spare)
        try:
            with full_disk_explained():
                ingest_events(spark, config, days[1].day)
            break
        except RetryableError as error:
            failed[spare] = error
        stored = accidents.stored_rows(spark, config)
        assert all(stored[name] in (rows[name] for rows in whole) for name in stored), spare
        if spare == 0:
            assert stored == days[0].rows
        (small_disk / "filler").unlink()
    assert 0 in failed
    for error in failed.values():
        assert error.exit_code == 75
        assert re.fullmatch("no space left.*free space and run the same command again", str(error))
    assert accidents.stored_rows(spark, config) == days[1].rows
