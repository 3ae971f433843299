"""The Java side of a local installation: Java itself, Delta's jars and Spark's configuration folder. Free of Spark.

`python -m recsys_spark.infra.jvm` puts the pinned jars and a spark-defaults.conf under the virtual environment. A
`spark.jars` given to a session builder works under plain python but not under spark-submit, and driver memory is fixed
when the JVM starts: so both live in a file that SPARK_CONF_DIR points to, for python, spark-submit and Airflow alike.
"""

import argparse
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from recsys_spark.errors import ConfigError
from recsys_spark.infra.spark_conf import conf_files, total_memory_bytes

SUPPORTED_JAVA = (17, 21)
PINS_FILE = Path(__file__).with_name("jars.txt")
FETCH_TIMEOUT_SECONDS = 300
# The jars are pinned one by one, so nothing that they depend on is wanted; without this the fetch takes 20 s, not 4.
_NOT_WANTED = "org.*:*,com.*:*,io.unitycatalog:*,io.airlift:*,commons-*:*,javax.*:*,io.delta:delta-kernel-*"


@dataclass(frozen=True)
class JavaInstall:
    """A Java that was found: its program and its major version, None where the program does not run."""

    path: Path
    major: int | None

    @property
    def supported(self) -> bool:
        """Whether Spark runs on it."""
        return self.major in SUPPORTED_JAVA


@dataclass(frozen=True)
class JarPin:
    """One pinned jar: its Maven coordinate (group:artifact:version) and the sha256 that its bytes must have."""

    coordinate: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The name that Spark's own fetch gives the jar."""
        group, artifact, version = self.coordinate.split(":")
        return f"{group}_{artifact}-{version}.jar"


Fetch = Callable[[list[JarPin], Path], None]


def find_java(environ: Mapping[str, str] | None = None) -> JavaInstall | None:
    """Find the Java that Spark would start: JAVA_HOME where it is set, else the first `java` on PATH."""
    environ = os.environ if environ is None else environ
    home = environ.get("JAVA_HOME")
    if home:
        path = Path(home) / "bin" / "java"
        return JavaInstall(path, _java_major(path))
    found = shutil.which("java", path=environ.get("PATH", ""))
    return JavaInstall(Path(found), _java_major(Path(found))) if found else None


def _java_major(java: Path) -> int | None:
    try:
        result = subprocess.run([str(java), "-version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None  # an entry that does not start, such as macOS's stub, is reported as such by the caller
    match = re.search(r'version "(\d+)(?:\.(\d+))?', result.stderr + result.stdout)
    if result.returncode != 0 or match is None:
        return None
    first, second = match.groups()
    return int(second) if first == "1" and second else int(first)  # Java 8 calls itself 1.8


def spark_home_dir() -> Path:
    """Where set-up keeps the jars and the configuration: beside the interpreter, so each environment has its own."""
    return Path(sys.prefix) / "spark"


def conf_dir() -> Path:
    """The folder that SPARK_CONF_DIR should name."""
    return spark_home_dir() / "conf"


def spark_minor_version() -> str:
    """The installed PySpark's first two numbers, such as 4.2; ConfigError when PySpark is not installed."""
    try:
        version = importlib.metadata.version("pyspark")
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError("pyspark is not installed in this environment; run `make setup`") from error
    return ".".join(version.split(".")[:2])


def read_pins(spark_minor: str, path: Path = PINS_FILE) -> list[JarPin]:
    """Read the jars pinned for a Spark version; ConfigError when there are none."""
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    pins = [JarPin(coordinate, sha256) for minor, coordinate, sha256 in rows if minor == spark_minor]
    if not pins:
        known = ", ".join(sorted({row[0] for row in rows}))
        raise ConfigError(
            f"pyspark {spark_minor} has no pinned Delta jars ({path.name} knows Spark {known}); "
            "install one of the locks in requirements/"
        )
    return pins


def bad_jars(pins: Iterable[JarPin], folder: Path) -> dict[str, str]:
    """Say which pinned jars a folder lacks or holds with other bytes: file name -> 'missing' or the sha256 found."""
    problems = {}
    for pin in pins:
        path = folder / pin.file_name
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
        if found != pin.sha256:
            problems[pin.file_name] = found
    return problems


def install(home: Path | None = None, source: Path | None = None, fetch: Fetch | None = None) -> bool:
    """Put the pinned jars and Spark's configuration under `home` (default: this environment).

    The jars come from the folder `source` if given, else from `fetch` (default: Spark's own download). Bytes that
    differ from their pin are refused before anything is replaced. Gives True when something was written, False when
    all was in place.
    """
    home = home or spark_home_dir()
    pins = read_pins(spark_minor_version())
    jars = home / "jars"
    changed = False
    missing = bad_jars(pins, jars)
    if missing:
        wanted = [pin for pin in pins if pin.file_name in missing]
        with tempfile.TemporaryDirectory(prefix="recsys-jars-") as scratch:
            folder = source or Path(scratch)
            if source is None:
                (fetch or fetch_with_spark)(wanted, folder)
            _refuse_wrong_bytes(wanted, folder)
            for pin in wanted:
                _copy_whole(folder / pin.file_name, jars / pin.file_name)
        changed = True
    return _write_conf(home, [jars / pin.file_name for pin in pins]) or changed


def _refuse_wrong_bytes(pins: list[JarPin], folder: Path) -> None:
    for name, found in bad_jars(pins, folder).items():
        expected = next(pin.sha256 for pin in pins if pin.file_name == name)
        what = "is missing" if found == "missing" else f"has sha256 {found}"
        raise ConfigError(f"{name} {what}, expected sha256 {expected}; nothing was installed: fetch it again")


def _copy_whole(source: Path, target: Path) -> None:
    """Copy so that an interruption never leaves half a jar under the final name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    shutil.copyfile(source, partial)
    partial.replace(target)


def _write_conf(home: Path, jars: list[Path]) -> bool:
    files = conf_files(jars, total_memory_bytes(), sys.executable)
    folder = home / "conf"
    folder.mkdir(parents=True, exist_ok=True)
    changed = False
    for name, text in files.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed = True
    return changed


def fetch_with_spark(pins: list[JarPin], target: Path) -> None:
    """Download jars from Maven's central repository with PySpark's own spark-submit, into the folder `target`.

    Its caches go to a scratch folder that is removed afterwards: a half-written cache elsewhere cannot interfere.
    """
    java = find_java()
    if java is None or not java.supported:
        raise ConfigError("fetching the Spark jars needs Java 17 or 21; run `make setup`, which says how to get it")
    with tempfile.TemporaryDirectory(prefix="recsys-ivy-") as scratch:
        ivy = Path(scratch) / "ivy"
        noop = Path(scratch) / "noop.py"
        noop.write_text("", encoding="utf-8")
        log = _run_submit(_submit_command(pins, ivy, noop), Path(scratch))
        for pin in pins:
            jar = ivy / "jars" / pin.file_name
            if not jar.is_file():
                raise ConfigError(_no_download(pin, log))
            shutil.copyfile(jar, target / pin.file_name)


def _submit_command(pins: list[JarPin], ivy: Path, script: Path) -> list[str]:
    return [
        str(_pyspark_folder() / "bin" / "spark-submit"),
        *("--master", "local[1]"),
        *("--packages", ",".join(pin.coordinate for pin in pins)),
        *("--exclude-packages", _NOT_WANTED),
        *("--conf", f"spark.jars.ivy={ivy}"),
        str(script),
    ]


def _run_submit(command: list[str], scratch: Path) -> str:
    """Run spark-submit away from any configuration of the user; gives what it printed, whatever its exit status."""
    environ = dict(os.environ)
    environ.update(
        SPARK_HOME=str(_pyspark_folder()),
        SPARK_CONF_DIR=str(scratch),  # empty: a spark.jars that names absent files would stop the fetch
        PYSPARK_PYTHON=sys.executable,
        PYSPARK_DRIVER_PYTHON=sys.executable,
        SPARK_LOCAL_IP="127.0.0.1",
        SPARK_SUBMIT_OPTS=" ".join([environ.get("SPARK_SUBMIT_OPTS", ""), *_proxy_options(environ)]).strip(),
    )
    try:
        result = subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=FETCH_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"Spark's jars did not arrive within {FETCH_TIMEOUT_SECONDS} s; is the network up? Run `make setup` again, "
            "or put the jars into a folder and set RECSYS_JARS_DIR to it"
        ) from error
    return result.stdout + result.stderr


def _pyspark_folder() -> Path:
    spec = importlib.util.find_spec("pyspark")  # finds the folder without importing the package
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("pyspark is not installed in this environment; run `make setup`")
    return Path(next(iter(spec.submodule_search_locations)))


def _proxy_options(environ: Mapping[str, str]) -> list[str]:
    """Java does not read HTTPS_PROXY: hand it over as Java's own properties."""
    proxy = environ.get("HTTPS_PROXY") or environ.get("https_proxy")
    if not proxy:
        return []
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if not parts.hostname:
        return []
    return [f"-Dhttps.proxyHost={parts.hostname}", f"-Dhttps.proxyPort={parts.port or 443}"]


def _no_download(pin: JarPin, log: str) -> str:
    if "No space left on device" in log:
        return "the disk is full: Spark's jars could not be written; free some space and run `make setup` again"
    return (
        f"{pin.coordinate} could not be fetched from Maven's central repository; is the network up? Run `make setup` "
        f"again, or put {pin.file_name} into a folder and set RECSYS_JARS_DIR to it"
    )


def use_spark_conf(worker_python: str | None = None) -> None:
    """Point this process, and the JVM and workers that it starts, at set-up's configuration and at this interpreter.

    A SPARK_CONF_DIR that is already set stays, so that a cluster's own configuration wins. Workers run worker_python where it
    is given (on a cluster it may lie elsewhere), and what spark-submit chose (its spark.pyspark.python) where that started us.
    """
    if "SPARK_CONF_DIR" not in os.environ and conf_dir().is_dir():
        os.environ["SPARK_CONF_DIR"] = str(conf_dir())
    chosen = os.environ.get("PYSPARK_PYTHON") if "PYSPARK_GATEWAY_PORT" in os.environ else None
    os.environ["PYSPARK_PYTHON"] = chosen or worker_python or sys.executable
    os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable


def main(argv: list[str] | None = None) -> int:
    """Run the installation from the command line; a foreseeable failure prints one line and gives its exit code."""
    parser = argparse.ArgumentParser(prog="python -m recsys_spark.infra.jvm", description="Install Spark's jars.")
    help_text = "take the jars from this folder, not from the network"
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help=help_text)
    source = parser.parse_args(argv).source
    try:
        changed = install(source=source)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"Spark's jars could not be written: {error}\n")
        return 1
    note = "" if changed else " (nothing to do)"
    sys.stdout.write(f"Spark's jars and configuration are in {spark_home_dir()}{note}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
