"""Look at the machine and say what is missing, in words that tell what to do. Free of Spark, and needs no network.

It has to run on a machine where set-up went wrong: only the standard library is imported, packages are looked up.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from recsys_spark.errors import ConfigError
from recsys_spark.infra import jvm
from recsys_spark.infra.spark_conf import GIB, total_memory_bytes

Status = Literal["ok", "warn", "fail"]

SUPPORTED_PYTHON = ((3, 11), (3, 12))
DEMO_MEMORY_GIB = 8
DEMO_DISK_GIB = 6
REPAIR = "run `make setup`"
REBUILD = "run `rm -rf .venv && make setup`"
# A machine sold with 8 GB shows a little less: the firmware and the kernel keep some.
_MEMORY_SLACK_GIB = 0.7
_SEVERITY: tuple[Status, ...] = ("ok", "warn", "fail")


@dataclass(frozen=True)
class Check:
    """One line of the report: what was looked at, how it is, what was found and what to do when it is not ok."""

    name: str
    status: Status
    found: str
    advice: str = ""


def check_environment(folder: Path | None = None, environ: Mapping[str, str] | None = None) -> list[Check]:
    """Check what the package needs on this machine; `folder` is where data will be written (default: here)."""
    folder = folder or Path.cwd()
    environ = os.environ if environ is None else environ
    installed = {_normal(dist.name): dist.version for dist in importlib.metadata.distributions() if dist.name}
    return [
        check_python(sys.version_info[:3]),
        check_java(jvm.find_java(environ)),
        *check_packages(installed, _required()),
        *check_misfits(installed),
        check_jars(installed, jvm.spark_home_dir() / "jars"),
        check_spark_conf(environ, jvm.conf_dir()),
        check_memory(total_memory_bytes()),
        check_disk(shutil.disk_usage(folder).free),
        check_cpus(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1),
        check_gpu(_gpu_names()),
    ]


def worst(checks: Sequence[Check]) -> Status:
    """The gravest status among the checks; ok when there are none."""
    return max((check.status for check in checks), key=_SEVERITY.index, default="ok")


def format_checks(checks: Sequence[Check]) -> str:
    """A table of the checks, each that is not ok followed by a line of advice, and a closing line that sums up."""
    width = max((len(check.name) for check in checks), default=0)
    lines = []
    for check in checks:
        lines.append(f"{check.status:<4}  {check.name:<{width}}  {check.found}")
        if check.status != "ok" and check.advice:
            lines.append(f"{'':<6}{'':<{width}}  -> {check.advice}")
    counts = {status: sum(check.status == status for check in checks) for status in _SEVERITY}
    lines.append(f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} to repair")
    return "\n".join(lines)


def check_python(version: tuple[int, ...]) -> Check:
    """Python has to be one that Spark and every locked package support."""
    found = ".".join(map(str, version))
    if version[:2] in SUPPORTED_PYTHON:
        return Check("Python", "ok", found)
    return Check("Python", "fail", found, f"needs 3.11 or 3.12: install one and {REBUILD}")


def check_java(java: jvm.JavaInstall | None) -> Check:
    """Spark needs Java 17 or 21."""
    if java is None:
        return Check("Java", "fail", "not found", f"install Java 17 or 21; {REPAIR}, which names the command")
    if java.major is None:
        return Check("Java", "fail", f"{java.path} does not run", "correct JAVA_HOME, or unset it so that PATH decides")
    if not java.supported:
        advice = "Spark needs Java 17 or 21: install one and set JAVA_HOME to it"
        return Check("Java", "fail", f"{java.major} at {java.path}", advice)
    return Check("Java", "ok", f"{java.major} at {java.path}")


def check_packages(installed: Mapping[str, str], required: Mapping[str, str]) -> list[Check]:
    """Compare installed versions with the ranges of the package's own metadata; the ones in order take one line."""
    if not required:
        return [Check("Packages", "fail", "recsys_spark is not installed", REPAIR)]
    bad = []
    for name, wanted in required.items():
        version = installed.get(name)
        if version is None:
            bad.append(Check(name, "fail", "not installed", REPAIR))
        elif not _inside(version, wanted):
            bad.append(Check(name, "fail", f"{version}, needs {wanted}", REBUILD))
    shown = [f"{name} {installed[name]}" for name in ("pyspark", "delta-spark", "mlflow") if name in installed]
    good = Check("Packages", "ok", f"{len(required) - len(bad)} of {len(required)} as required: {', '.join(shown)}")
    return [good, *bad]


def check_misfits(installed: Mapping[str, str]) -> list[Check]:
    """Combinations that install but do not work together, whatever the ranges say."""
    spark = _numbers(installed.get("pyspark", "0"))
    checks = []
    if spark >= (4, 2) and "pyarrow" in installed and _numbers(installed["pyarrow"]) < (18,):
        found = f"pyarrow {installed['pyarrow']}"
        checks.append(Check("pyarrow with Spark", "fail", found, f"Spark 4.2 needs pyarrow 18 or newer: {REBUILD}"))
    if _numbers(installed.get("pandas", "0")) >= (3,):
        found = f"pandas {installed['pandas']}"
        checks.append(Check("pandas with Spark", "fail", found, f"Spark 4 is not made for pandas 3: {REBUILD}"))
    if "petastorm" in installed and _numbers(installed.get("numpy", "0")) >= (2,):
        found = f"petastorm beside numpy {installed['numpy']}"
        checks.append(
            Check("petastorm with numpy", "fail", found, "petastorm needs numpy < 2: use an environment of its own")
        )
    return checks


def check_jars(installed: Mapping[str, str], folder: Path) -> Check:
    """Delta's jars have to be there, with the pinned bytes, and be the ones for this PySpark and this delta-spark."""
    name = "Delta jars"
    if "pyspark" not in installed:
        return Check(name, "fail", "cannot be told without pyspark", REPAIR)
    try:
        pins = jvm.read_pins(".".join(installed["pyspark"].split(".")[:2]))
    except ConfigError as error:
        return Check(name, "fail", str(error), REBUILD)
    problems = jvm.bad_jars(pins, folder)
    if problems:
        what = "; ".join(f"{jar} {'missing' if found == 'missing' else 'damaged'}" for jar, found in problems.items())
        return Check(name, "fail", what, REPAIR)
    coordinates = ", ".join(pin.coordinate for pin in pins)
    version = installed.get("delta-spark", "")
    if version and not any(pin.coordinate.endswith(f":{version}") for pin in pins):
        return Check(name, "warn", f"{coordinates}, but the Python package is delta-spark {version}", REBUILD)
    return Check(name, "ok", coordinates)


def check_spark_conf(environ: Mapping[str, str], own: Path) -> Check:
    """The configuration has to exist and to name jars that exist; another SPARK_CONF_DIR is respected but named."""
    name = "Spark configuration"
    chosen = environ.get("SPARK_CONF_DIR")
    if chosen and Path(chosen).resolve() != own.resolve():
        advice = f"unset SPARK_CONF_DIR to use {own}, unless this is a cluster's configuration"
        return Check(name, "warn", f"SPARK_CONF_DIR is {chosen}", advice)
    path = own / "spark-defaults.conf"
    if not path.is_file():
        return Check(name, "fail", f"{path} is missing", REPAIR)
    match = re.search(r"^spark\.jars (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    gone = [jar for jar in match[1].split(",") if not Path(jar).is_file()] if match else ["(none)"]
    if gone:
        return Check(name, "fail", f"{path} names jars that are not there: {', '.join(gone)}", REPAIR)
    return Check(name, "ok", str(path))


def check_memory(total_bytes: int) -> Check:
    """The demo is sized for 8 GB."""
    found = f"{total_bytes / GIB:.1f} GiB"
    if total_bytes / GIB >= DEMO_MEMORY_GIB - _MEMORY_SLACK_GIB:
        return Check("Memory", "ok", found)
    return Check("Memory", "warn", found, f"the demo is made for {DEMO_MEMORY_GIB} GB and may be killed on less")


def check_disk(free_bytes: int) -> Check:
    """Packages, jars, shuffles and the demo's tables need room."""
    found = f"{free_bytes / GIB:.1f} GiB free"
    if free_bytes / GIB >= DEMO_DISK_GIB:
        return Check("Disk", "ok", found)
    return Check("Disk", "warn", found, f"set-up and demo need about {DEMO_DISK_GIB} GB: free some")


def check_cpus(count: int) -> Check:
    """One core works, slowly."""
    if count >= 2:
        return Check("CPU cores", "ok", str(count))
    return Check("CPU cores", "warn", str(count), "two or more are advised: the demo takes about twice as long on one")


def check_gpu(names: Sequence[str]) -> Check:
    """A GPU is optional: it is named, never missed."""
    return Check("GPU", "ok", ", ".join(names) or "none (optional)")


def _gpu_names() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []  # a driver that does not answer is no GPU for us
    return [line.strip() for line in result.stdout.splitlines() if line.strip()] if result.returncode == 0 else []


def _required() -> dict[str, str]:
    """Name -> version range of what recsys_spark needs, extras left out; empty when it is not installed."""
    try:
        lines = importlib.metadata.requires("recsys_spark") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    matches = (re.match(r"([A-Za-z0-9._-]+)\s*\(?([^;)]*)", line) for line in lines if "extra ==" not in line)
    return {_normal(match[1]): match[2].strip() for match in matches if match}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _inside(version: str, wanted: str) -> bool:
    """Whether a version meets a range such as '>=4.0.4,<4.3' (the two signs that setup.py uses)."""
    number = _numbers(version)
    for part in filter(None, (part.strip() for part in wanted.split(","))):
        if part.startswith(">=") and number < _numbers(part[2:]):
            return False
        if part.startswith("<") and not part.startswith("<=") and number >= _numbers(part[1:]):
            return False
    return True
