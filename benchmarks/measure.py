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
    """Samples the memory of this process and its children; proportional shares, so that forked workers count once."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(2):
            used = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    used += process.memory_full_info().pss
                except psutil.NoSuchProcess:
                    continue  # it ended while we looked
            self.peak = max(self.peak, used)
