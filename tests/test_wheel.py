"""The wheel that workers get holds everything that the package reads at run time."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files of a wheel that is built as `make wheel` does, from a copy without what earlier builds left."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("recsys_spark", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    uv = str(Path(sys.executable).parent / "uv")
    command = [uv, "build", "--quiet", "--offline", "--python", sys.executable, "--wheel", "--no-build-isolation"]
    subprocess.run([*command, "--out-dir", str(folder), str(source)], check=True, timeout=120)
    [wheel] = folder.glob("recsys_spark-*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_it_holds_every_file_of_the_package(files):
    package = [path for path in (ROOT / "recsys_spark").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {path.suffix for path in package} >= {".py", ".txt", ".j2"}
    assert sorted(path.relative_to(ROOT).as_posix() for path in package) == sorted(
        name for name in files if name.startswith("recsys_spark/")
    )


def test_it_holds_every_configuration(files):
    below = "data/share/recsys_spark/"
    shipped = {name.split(below)[1] for name in files if below in name}
    assert shipped == {path.relative_to(ROOT).as_posix() for path in (ROOT / "conf").rglob("*") if path.is_file()}
    assert {"conf/demo.yaml", "conf/spark/cpu-small.properties", "conf/spark/driver-pod.yaml"} <= shipped


def test_it_holds_no_tests_and_no_jobs(files):
    assert not [name for name in files if name.startswith(("tests/", "jobs/", "benchmarks/", "docs/"))]
