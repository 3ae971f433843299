"""bin/setup on machines that lack something: it has to stop at once and name the line to run. No network, no JVM."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = ["sh", "dirname", "sed", "head", "uname", "cat", "tr", "cksum", "grep", "cut", "tail", "rm"]
TOOLS += ["mktemp", "df", "awk", "date", "env"]


class Machine:
    """A checkout with nothing but bin/setup's own inputs, and a PATH with nothing but the plainest tools."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "tools"
        self.bin.mkdir()
        for name in TOOLS:
            (self.bin / name).symlink_to(shutil.which(name))
        self.checkout = folder / "checkout"
        shutil.copytree(ROOT / "bin", self.checkout / "bin")
        self.env = {"PATH": str(self.bin), "TMPDIR": str(folder)}
        self.program("id", "echo 1000")
        self.program("uname", "echo Linux")
        self.program("apt-get", f"echo called >>{folder}/apt-get.log")
        self.apt_log = folder / "apt-get.log"

    def program(self, name: str, body: str) -> Path:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    def java(self, version: str = "17.0.15") -> None:
        self.program("java", f"echo 'openjdk version \"{version}\" 2025-04-15' >&2")

    def setup(self, *options: str) -> subprocess.CompletedProcess:
        command = [str(self.bin / "sh"), "bin/setup", *options]
        return subprocess.run(
            command, cwd=self.checkout, env=self.env, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def assert_stopped(result: subprocess.CompletedProcess, *words: str) -> None:
    assert result.returncode == 1, result.stdout + result.stderr
    assert [word for word in words if word not in result.stderr] == [], result.stderr
    assert "Traceback" not in result.stderr


def test_without_java_it_names_the_apt_line_before_any_long_step(machine):
    result = machine.setup()
    assert_stopped(result, "no java on PATH", "sudo apt-get install -y --no-install-recommends openjdk-17-jre-headless")
    assert not (machine.checkout / ".venv").exists()


def test_without_java_on_a_mac_it_names_the_brew_line(machine):
    machine.program("apt-get", "").unlink()
    machine.program("uname", "echo Darwin")
    assert_stopped(machine.setup(), "brew install openjdk@17")


def test_it_never_calls_apt_without_being_root(machine):
    machine.setup()
    assert not machine.apt_log.exists()


def test_root_can_forbid_the_installation_of_java(machine):
    machine.program("id", "echo 0")
    machine.env["RECSYS_NO_APT"] = "1"
    assert_stopped(machine.setup(), "Run: apt-get update && apt-get install")
    assert not machine.apt_log.exists()


def test_root_gets_java_installed_and_is_told_so(machine):
    machine.program("id", "echo 0")
    java = machine.bin / "java"
    script = "'#!/bin/sh' 'echo openjdk version \\\"17.0.1\\\" >&2'"
    install = f"printf '%s\\n' {script} >{java}; {shutil.which('chmod')} 755 {java}"
    machine.program("apt-get", f'echo "$@" >>{machine.apt_log}; if [ "$1" = install ]; then {install}; fi')
    machine.program("apt-cache", "exit 0")
    result = machine.setup()
    assert machine.apt_log.read_text().splitlines() == [
        "update",
        "install -y --no-install-recommends openjdk-17-jre-headless",
    ]
    assert "installing OpenJDK with apt-get" in result.stdout
    assert_stopped(result, "Python 3.11 or 3.12 is needed")  # it went on to the next requirement


def test_a_failing_apt_says_so_and_what_to_do(machine):
    machine.program("id", "echo 0")
    machine.program("apt-get", "echo 'E: Could not resolve the archive' >&2; exit 100")
    assert_stopped(machine.setup(), "apt-get update failed", "E: Could not resolve", "network")


@pytest.mark.parametrize(("version", "major"), [("11.0.2", "11"), ("1.8.0_392", "8"), ("25", "25")])
def test_another_java_is_named_with_its_version(machine, version, major):
    machine.java(version)
    assert_stopped(machine.setup(), f"is Java {major}.", "set JAVA_HOME")


def test_a_java_home_that_leads_nowhere_is_the_reason_given(machine):
    machine.java()
    machine.env["JAVA_HOME"] = "/no/such/java"
    assert_stopped(machine.setup(), "JAVA_HOME is /no/such/java", "Unset JAVA_HOME")


def test_a_java_stub_that_does_not_run_is_not_taken_for_java(machine):
    machine.program("java", "echo 'Unable to locate a Java Runtime.' >&2; exit 1")
    assert_stopped(machine.setup(), "does not run")


def test_an_unfit_python_is_named_with_its_version(machine):
    machine.java()
    machine.program("python3", 'case "$2" in *"sys.exit(3)"*) exit 3 ;; *) echo 3.9.2 ;; esac')
    assert_stopped(
        machine.setup(), "Python 3.11 or 3.12 is needed", "python3 (3.9.2)", "apt-get install -y python3.11-venv"
    )


def test_a_python_without_venv_names_the_package_to_install(machine):
    machine.java()
    machine.program("python3.12", 'case "$2" in *"sys.exit(4)"*) exit 4 ;; *) echo python3.12 ;; esac')
    assert_stopped(machine.setup(), "without its venv module", "apt-get install -y python3.12-venv")


def test_a_shim_that_fails_is_passed_over_like_a_missing_python(machine):
    machine.java()
    machine.program("python3.11", "echo 'pyenv: python3.11: command not found' >&2; exit 127")
    assert_stopped(machine.setup(), "found: none")


def test_the_interpreter_asked_for_is_never_silently_replaced(machine):
    machine.java()
    machine.env["PYTHON"] = "/no/such/python"
    assert_stopped(machine.setup(), "PYTHON is /no/such/python")


def test_a_full_disk_is_noticed_before_the_installation(machine):
    machine.java()
    machine.program("python3.11", 'case "$2" in *"sys.exit(3)"*) exit 0 ;; *) echo 3.11.7 ;; esac')
    machine.program("df", "printf 'Filesystem\\ndisk 100 90 1000000 90%% /\\n'")
    assert_stopped(machine.setup(), "4 GB of disk are needed", "1000 MB are free")


def test_the_second_environment_needs_more_disk_and_names_itself_in_what_to_do(machine):
    machine.java()
    machine.program("python3.11", 'case "$2" in *"sys.exit(3)"*) exit 0 ;; *) echo 3.11.7 ;; esac')
    machine.program("df", "printf 'Filesystem\\ndisk 100 90 5000000 90%% /\\n'")
    assert_stopped(
        machine.setup("--quiet", "--petastorm"), "12 GB of disk are needed", "run bin/setup --petastorm again"
    )


def test_an_option_that_it_does_not_know_stops_it(machine):
    result = machine.setup("--petastrom")
    assert result.returncode == 2
    assert result.stderr == "bin/setup knows --quiet and --petastorm, not --petastrom\n"


def test_a_path_with_a_space_is_refused_because_sparks_scripts_break_there(machine):
    machine.checkout = machine.checkout.rename(machine.checkout.with_name("check out"))
    machine.java()
    assert_stopped(machine.setup(), "has a space in it")
