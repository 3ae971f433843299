"""What every benchmark says about the machine, and the memory of a process tree."""

import os
import platform
import threading
from importlib.metadata import version
from pathlib import Path

import psutil


def hardware() -> dict[str, object]:
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
    }


def versions(*packages: str) -> dict[str, str]:
    return {name: version(name) for name in packages} | {"python": platform.python_version()}


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


class PeakMemory:
    """Samples the memory of a process (null: this one) and its children; proportional shares, so that forked workers count once."""

    def __init__(self, pid: int | None = None, every_seconds: float = 2.0) -> None:
        self.peak = 0
        self._process, self._every = psutil.Process(pid), every_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            used = 0
            try:
                processes = [self._process, *self._process.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            for process in processes:
                try:
                    used += process.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue  # it ended while we looked
            self.peak = max(self.peak, used)
