"""Turns of processes: one at a time, threads of one process together, and nobody waits for a process that is gone."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from factories import make_config

from recsys_spark.infra import tables
from recsys_spark.infra.table_lock import one_process_at_a_time

HOLD = """
import sys
from pathlib import Path
from recsys_spark.infra.table_lock import one_process_at_a_time
with one_process_at_a_time(Path(sys.argv[1])):
    print("inside", flush=True)
    sys.stdin.readline()
"""
_SECONDS = 60


@pytest.fixture
def config(tmp_path):
    return make_config(tmp_path)


@pytest.fixture
def holder(config):
    """Another process that is writing to the events table until its input ends."""
    lock_file = f"{config.data_root}/locks/events"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, lock_file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "inside\n"
        yield process
        process.kill()


def writes_in_background(config, name="events"):
    """Start a write in a thread; give the thread and an event that is set when the write happens."""
    written = threading.Event()
    thread = threading.Thread(target=tables.retry_on_conflict, args=(written.set, config, name), daemon=True)
    thread.start()
    return thread, written


@pytest.mark.parametrize(("scheme", "end"), [("", "its turn ends"), ("", "it is killed"), ("file://", "its turn ends")])
def test_a_write_waits_for_the_process_that_is_at_it(config, holder, scheme, end):
    thread, written = writes_in_background(config.model_copy(update={"data_root": scheme + config.data_root}))
    assert not written.wait(0.3)
    if end == "it is killed":
        holder.kill()
    else:
        holder.stdin.write("\n")
        holder.stdin.flush()
    assert written.wait(_SECONDS)
    thread.join(_SECONDS)


def test_other_tables_and_other_file_systems_do_not_wait(config, holder):
    for other, name in ((config, "items"), (config.model_copy(update={"data_root": "s3a://bucket/root"}), "events")):
        thread, written = writes_in_background(other, name)
        assert written.wait(_SECONDS)
        thread.join(_SECONDS)


def test_threads_of_one_process_are_inside_together_and_leave_the_turn_to_others(tmp_path):
    lock_file = tmp_path / "locks" / "events"
    meet = threading.Barrier(2, timeout=_SECONDS)

    def write():
        with one_process_at_a_time(lock_file):
            meet.wait()

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_SECONDS)
    assert not meet.broken
    subprocess.run([sys.executable, "-c", HOLD, lock_file], input="\n", text=True, check=True, timeout=_SECONDS)


def test_a_failed_write_ends_the_turn(config, tmp_path):
    def fails():
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        tables.retry_on_conflict(fails, config, "events")
    lock_file = f"{config.data_root}/locks/events"
    subprocess.run([sys.executable, "-c", HOLD, lock_file], input="\n", text=True, check=True, timeout=_SECONDS)
