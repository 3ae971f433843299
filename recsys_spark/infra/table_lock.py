"""Turns for processes that write to one table in a local folder, where two commits at one instant could replace each other.

Delta commits by a rename that fails when the name is taken. On a plain local file system a rename replaces what is there, and
Delta's own guard against that is a lock in memory: it holds between the threads of one JVM only.
"""

from __future__ import annotations

import fcntl
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_log = logging.getLogger(__name__)


@dataclass
class _Turn:
    """This process's hold on one lock file, shared by its threads."""

    entering: threading.Lock = field(default_factory=threading.Lock)
    writers: int = 0
    file: IO[str] | None = None


_TURNS: defaultdict[Path, _Turn] = defaultdict(_Turn)


@contextmanager
def one_process_at_a_time(lock_file: Path) -> Iterator[None]:
    """Wait until no other process is inside for this file. Threads of one process do not wait for each other.

    The lock is the kernel's (flock): it ends with the process however that ends, and the empty file stays. On a network
    file system it holds between machines as far as that system supports it.
    """
    turn = _TURNS[lock_file]
    with turn.entering:
        if turn.writers == 0:
            turn.file = _locked(lock_file)
        turn.writers += 1
    try:
        yield
    finally:
        with turn.entering:
            turn.writers -= 1
            if turn.writers == 0 and turn.file is not None:
                turn.file.close()
                turn.file = None


def _locked(lock_file: Path) -> IO[str]:
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    file = lock_file.open("a")
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("table_busy table=%s", lock_file.name)
            start = time.monotonic()
            fcntl.flock(file, fcntl.LOCK_EX)
            _log.info("table_free table=%s waited_seconds=%.1f", lock_file.name, time.monotonic() - start)
    except BaseException:
        file.close()
        raise
    return file
