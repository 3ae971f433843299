"""`recsys doctor`: what it says about machines that differ from this one."""

import subprocess
import sys
from pathlib import Path

import pytest

from recsys_spark import doctor
from recsys_spark.doctor import Check
from recsys_spark.infra.jvm import JarPin, JavaInstall
from recsys_spark.infra.spark_conf import GIB

ROOT = Path(__file__).parent.parent
GOOD = {"pyspark": "4.2.0", "delta-spark": "4.4.0", "mlflow": "3.17.2", "pandas": "2.3.3", "pyarrow": "25.0.1"}


@pytest.mark.parametrize(
    ("version", "status"), [((3, 11, 7), "ok"), ((3, 12, 1), "ok"), ((3, 10, 9), "fail"), ((3, 13, 0), "fail")]
)
def test_python_has_to_be_one_that_is_supported(version, status):
    assert doctor.check_python(version).status == status


@pytest.mark.parametrize(
    ("java", "status"),
    [
        (JavaInstall(Path("/j/bin/java"), 17), "ok"),
        (JavaInstall(Path("/j/bin/java"), 21), "ok"),
        (JavaInstall(Path("/j/bin/java"), 11), "fail"),
        (JavaInstall(Path("/j/bin/java"), None), "fail"),
        (None, "fail"),
    ],
)
def test_java_has_to_be_17_or_21(java, status):
    assert doctor.check_java(java).status == status


def test_a_missing_and_a_too_new_package_are_each_named():
    checks = doctor.check_packages({"pyspark": "4.3.1"}, {"pyspark": ">=4.0.4,<4.3", "mlflow": ">=3.17,<3.18"})
    assert [(c.name, c.status, c.found) for c in checks if c.status != "ok"] == [
        ("pyspark", "fail", "4.3.1, needs >=4.0.4,<4.3"),
        ("mlflow", "fail", "not installed"),
    ]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"pyarrow": "14.0.2"}, "pyarrow with Spark"),
        ({"pandas": "3.0.0"}, "pandas with Spark"),
        ({"petastorm": "0.12.1", "numpy": "2.4.6"}, "petastorm with numpy"),
    ],
)
def test_known_misfits_are_found(change, name):
    assert [(c.name, c.status) for c in doctor.check_misfits({**GOOD, **change})] == [(name, "fail")]


def test_a_sound_set_and_the_older_spark_with_its_older_pyarrow_have_no_misfit():
    assert doctor.check_misfits(GOOD) == []
    older = {"pyspark": "4.0.4", "pyarrow": "14.0.2", "numpy": "1.26.4", "petastorm": "0.12.1"}
    assert doctor.check_misfits({**GOOD, **older}) == []


def test_jars_that_were_never_fetched_are_missing(tmp_path):
    check = doctor.check_jars(GOOD, tmp_path)
    assert check.status == "fail"
    assert "delta-storage-4.4.0.jar missing" in check.found


def test_a_jar_with_other_bytes_is_damaged(tmp_path):
    (tmp_path / "io.delta_delta-storage-4.4.0.jar").write_bytes(b"half")
    assert "delta-storage-4.4.0.jar damaged" in doctor.check_jars(GOOD, tmp_path).found


def test_a_spark_without_pinned_jars_fails_with_the_reason(tmp_path):
    check = doctor.check_jars({**GOOD, "pyspark": "4.1.0"}, tmp_path)
    assert check.status == "fail"
    assert "pyspark 4.1 has no pinned Delta jars" in check.found


def test_a_delta_package_that_differs_from_its_jar_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.jvm, "read_pins", lambda minor: [JarPin("io.delta:delta-spark_4.2_2.13:4.4.0", "x")])
    monkeypatch.setattr(doctor.jvm, "bad_jars", lambda pins, folder: {})
    assert doctor.check_jars({**GOOD, "delta-spark": "4.4.1"}, tmp_path).status == "warn"


def test_a_configuration_that_names_absent_jars_fails(tmp_path):
    (tmp_path / "spark-defaults.conf").write_text(f"spark.jars {tmp_path}/gone.jar\n")
    check = doctor.check_spark_conf({}, tmp_path)
    assert check.status == "fail"
    assert "gone.jar" in check.found


def test_a_foreign_spark_conf_dir_is_a_warning(tmp_path):
    assert doctor.check_spark_conf({"SPARK_CONF_DIR": "/etc/spark"}, tmp_path).status == "warn"


@pytest.mark.parametrize(("gib", "status"), [(7.6, "ok"), (16, "ok"), (4, "warn")])
def test_a_machine_sold_with_8_gb_has_enough_memory(gib, status):
    assert doctor.check_memory(int(gib * GIB)).status == status


def test_little_disk_is_a_warning():
    assert doctor.check_disk(2 * GIB).status == "warn"


def test_no_gpu_is_fine():
    assert doctor.check_gpu([]).status == "ok"


def test_the_worst_status_wins():
    ok, warn, fail = (Check("x", status, "") for status in ("ok", "warn", "fail"))
    assert [doctor.worst(checks) for checks in ([], [ok], [ok, warn, ok], [fail, warn])] == ["ok", "ok", "warn", "fail"]


def test_advice_is_shown_for_what_is_not_ok_and_only_there():
    text = doctor.format_checks([Check("Java", "fail", "not found", "install it"), Check("Disk", "ok", "9 GiB", "x")])
    assert text.splitlines() == [
        "fail  Java  not found",
        "            -> install it",
        "ok    Disk  9 GiB",
        "1 ok, 0 to look at, 1 to repair",
    ]


def test_it_reports_instead_of_failing_where_neither_java_nor_packages_are(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from recsys_spark.doctor import check_environment, format_checks, worst\n"
        "checks = check_environment(environ={'PATH': ''})\n"
        "print(format_checks(checks)); print(worst(checks))\n"
    )
    # -S leaves site-packages out: what remains is the bare standard library.
    command = [sys.executable, "-S", "-c", code, str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    assert "fail  Java" in result.stdout
    assert result.stdout.splitlines()[-1] == "fail"


def test_this_environment_has_the_packages_that_setup_py_asks_for():
    """Protects the lock: what is installed lies inside the ranges of the package's metadata."""
    required = doctor._required()
    assert "pyspark" in required
    assert [c for c in doctor.check_environment() if c.name in required and c.status != "ok"] == []
