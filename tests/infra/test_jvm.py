"""The set-up of the Java side: no JVM is started and nothing is fetched."""

import hashlib
import os
import sys
from pathlib import Path

import pytest

from recsys_spark.errors import ConfigError
from recsys_spark.infra import jvm
from recsys_spark.infra.spark_conf import GIB, driver_memory, spark_defaults, spark_env

GOOD = b"jar bytes"


def fake_java(folder: Path, first_line: str, status: int = 0) -> Path:
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho '{first_line}' >&2\nexit {status}\n")
    program.chmod(0o755)
    return program


def settings(conf: str) -> dict[str, str]:
    lines = [line for line in conf.splitlines() if line and not line.startswith("#")]
    return dict(line.split(" ", 1) for line in lines)


@pytest.fixture
def one_pin(monkeypatch):
    pin = jvm.JarPin("group.a:thing_2.13:1.0", hashlib.sha256(GOOD).hexdigest())
    monkeypatch.setattr(jvm, "spark_minor_version", lambda: "4.2")
    monkeypatch.setattr(jvm, "read_pins", lambda minor: [pin])
    return pin


def fetch_giving(content: bytes):
    calls = []

    def fetch(pins, target):
        calls.append([pin.coordinate for pin in pins])
        for pin in pins:
            (target / pin.file_name).write_bytes(content)

    return fetch, calls


@pytest.mark.parametrize(
    ("line", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_392"', 8),
        ('openjdk version "21" 2023-09-19', 21),
        ('openjdk version "25-ea"', 25),
    ],
)
def test_the_major_version_is_read_from_every_style_of_java(tmp_path, line, major):
    fake_java(tmp_path, line)
    assert jvm.find_java({"JAVA_HOME": str(tmp_path)}).major == major


def test_java_home_wins_over_path_as_it_does_in_sparks_scripts(tmp_path):
    on_path = fake_java(tmp_path / "path", 'openjdk version "17.0.1"')
    at_home = fake_java(tmp_path / "home", 'openjdk version "11.0.2"')
    found = jvm.find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": str(on_path.parent)})
    assert (found.path, found.major, found.supported) == (at_home, 11, False)


def test_a_java_that_does_not_run_has_no_version(tmp_path):
    fake_java(tmp_path, "No Java runtime present, requesting install.", status=1)
    assert jvm.find_java({"JAVA_HOME": str(tmp_path)}).major is None


def test_a_java_home_without_java_is_reported_not_skipped(tmp_path):
    assert jvm.find_java({"JAVA_HOME": str(tmp_path), "PATH": os.environ["PATH"]}).major is None


def test_no_java_at_all_gives_none(tmp_path):
    assert jvm.find_java({"PATH": str(tmp_path)}) is None


@pytest.mark.parametrize("minor", ["4.0", "4.2"])
def test_the_pins_name_the_delta_jar_built_for_that_spark(minor):
    pins = jvm.read_pins(minor)
    assert [pin.coordinate.split(":")[1] for pin in pins] == [f"delta-spark_{minor}_2.13", "delta-storage"]
    assert all(len(pin.sha256) == 64 for pin in pins)


def test_an_unknown_spark_version_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"9\.9 has no pinned Delta jars .*4\.2"):
        jvm.read_pins("9.9")


def test_install_puts_the_jar_and_a_configuration_that_names_it(tmp_path, one_pin):
    fetch, _ = fetch_giving(GOOD)
    assert jvm.install(home=tmp_path, fetch=fetch) is True
    jar = tmp_path / "jars" / "group.a_thing_2.13-1.0.jar"
    assert jar.read_bytes() == GOOD
    assert settings((tmp_path / "conf" / "spark-defaults.conf").read_text())["spark.jars"] == str(jar)


def test_a_second_install_fetches_and_writes_nothing(tmp_path, one_pin):
    fetch, calls = fetch_giving(GOOD)
    jvm.install(home=tmp_path, fetch=fetch)
    assert jvm.install(home=tmp_path, fetch=fetch) is False
    assert len(calls) == 1


def test_a_damaged_jar_is_fetched_again(tmp_path, one_pin):
    fetch, _ = fetch_giving(GOOD)
    jvm.install(home=tmp_path, fetch=fetch)
    jar = tmp_path / "jars" / one_pin.file_name
    jar.write_bytes(GOOD[:3])
    assert jvm.install(home=tmp_path, fetch=fetch) is True
    assert jar.read_bytes() == GOOD


def test_a_lost_configuration_is_written_again_without_a_fetch(tmp_path, one_pin):
    fetch, calls = fetch_giving(GOOD)
    jvm.install(home=tmp_path, fetch=fetch)
    (tmp_path / "conf" / "spark-defaults.conf").unlink()
    assert jvm.install(home=tmp_path, fetch=fetch) is True
    assert len(calls) == 1


def test_bytes_that_differ_from_their_pin_are_never_installed(tmp_path, one_pin):
    fetch, _ = fetch_giving(b"other bytes")
    with pytest.raises(ConfigError, match=r"has sha256 .* expected sha256"):
        jvm.install(home=tmp_path, fetch=fetch)
    assert not (tmp_path / "jars").exists()


def test_a_folder_of_jars_replaces_the_network(tmp_path, one_pin):
    source = tmp_path / "usb"
    source.mkdir()
    (source / one_pin.file_name).write_bytes(GOOD)
    fetch, calls = fetch_giving(GOOD)
    jvm.install(home=tmp_path / "spark", source=source, fetch=fetch)
    assert (tmp_path / "spark" / "jars" / one_pin.file_name).read_bytes() == GOOD
    assert calls == []


def test_a_folder_that_lacks_the_jar_says_which_one(tmp_path, one_pin):
    with pytest.raises(ConfigError, match=r"group\.a_thing_2\.13-1\.0\.jar is missing"):
        jvm.install(home=tmp_path / "spark", source=tmp_path)


def test_the_command_line_prints_one_line_and_no_traceback(tmp_path, one_pin, monkeypatch, capsys):
    monkeypatch.setattr(jvm, "spark_home_dir", lambda: tmp_path / "spark")
    assert jvm.main(["--from", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


def test_the_fetch_refuses_to_start_without_a_supported_java(tmp_path, one_pin, monkeypatch):
    monkeypatch.setattr(jvm, "find_java", lambda: None)
    with pytest.raises(ConfigError, match="needs Java 17 or 21"):
        jvm.fetch_with_spark([one_pin], tmp_path)


def test_a_fetch_that_brings_nothing_says_what_to_do(tmp_path, one_pin, monkeypatch):
    monkeypatch.setattr(jvm, "find_java", lambda: jvm.JavaInstall(Path("java"), 17))
    monkeypatch.setattr(jvm, "_run_submit", lambda command, scratch: "unresolved dependency")
    with pytest.raises(ConfigError, match=r"could not be fetched.*RECSYS_JARS_DIR"):
        jvm.fetch_with_spark([one_pin], tmp_path)


@pytest.mark.parametrize(("gib", "memory"), [(4, "2048m"), (8, "2457m"), (12, "3686m"), (64, "4096m")])
def test_driver_memory_is_a_third_of_the_machine_within_bounds(gib, memory):
    assert driver_memory(gib * GIB) == memory


def test_the_defaults_switch_on_delta_utc_and_this_interpreter():
    conf = settings(spark_defaults([Path("/x/a.jar"), Path("/x/b.jar")], 8 * GIB, "/venv/bin/python"))
    expected = {
        "spark.jars": "/x/a.jar,/x/b.jar",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.driver.extraJavaOptions": "-Duser.timezone=UTC -XX:-DontCompileHugeMethods",
        "spark.pyspark.python": "/venv/bin/python",
        "spark.driver.memory": "2457m",
    }
    assert {key: conf[key] for key in expected} == expected


def test_an_interpreter_path_cannot_break_out_of_the_shell_file():
    assert "PYSPARK_PYTHON='/x; rm y/python'" in spark_env("/x; rm y/python")


def test_https_proxy_reaches_java_which_does_not_read_it():
    assert jvm._proxy_options({"HTTPS_PROXY": "http://user:secret@proxy:3128"}) == [
        "-Dhttps.proxyHost=proxy",
        "-Dhttps.proxyPort=3128",
    ]


def test_use_spark_conf_points_workers_and_jvm_at_this_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_CONF_DIR", "set first, so that what the call sets is taken back after the test")
    monkeypatch.delenv("SPARK_CONF_DIR")
    monkeypatch.setenv("PYSPARK_PYTHON", "/somewhere/else")
    monkeypatch.setenv("PYSPARK_DRIVER_PYTHON", "/somewhere/else")
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
    monkeypatch.setattr(jvm, "conf_dir", lambda: tmp_path)
    jvm.use_spark_conf()
    names = ("SPARK_CONF_DIR", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON")
    assert [os.environ[name] for name in names] == [str(tmp_path), sys.executable, sys.executable]


@pytest.mark.parametrize(
    ("started_by_submit", "chosen", "worker_python", "expected"),
    [
        (True, "/workers/python", None, "/workers/python"),
        (True, None, None, sys.executable),
        (False, "/shell/python", None, sys.executable),
        (False, "/shell/python", "/workers/python", "/workers/python"),
    ],
    ids=["spark-submit chose one", "spark-submit chose none", "plain python", "plain python with one in the config"],
)
def test_workers_run_the_interpreter_that_was_chosen_for_them(
    monkeypatch, started_by_submit, chosen, worker_python, expected
):
    for name, value in (("PYSPARK_GATEWAY_PORT", "1" if started_by_submit else None), ("PYSPARK_PYTHON", chosen)):
        monkeypatch.setenv(name, "set first, so that what the call sets is taken back after the test")
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    monkeypatch.setenv("PYSPARK_DRIVER_PYTHON", "/somewhere/else")
    jvm.use_spark_conf(worker_python)
    assert os.environ["PYSPARK_PYTHON"] == expected
    assert os.environ["PYSPARK_DRIVER_PYTHON"] == sys.executable


def test_a_clusters_own_configuration_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_CONF_DIR", "/etc/spark/conf")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("PYSPARK_DRIVER_PYTHON", sys.executable)
    monkeypatch.setattr(jvm, "conf_dir", lambda: tmp_path)
    jvm.use_spark_conf()
    assert os.environ["SPARK_CONF_DIR"] == "/etc/spark/conf"
