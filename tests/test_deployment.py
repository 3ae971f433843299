"""Image, pod templates, profiles and the commands of the guide: what can be known about them without a cluster."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import dry_run
import pytest
import yaml

from recsys_spark.config_file import load_config
from recsys_spark.infra.spark_conf import spark_defaults

ROOT = Path(__file__).resolve().parents[1]
SPARK_CONF = ROOT / "conf" / "spark"
PROFILES = sorted(SPARK_CONF.glob("*.properties"))
TEMPLATES = sorted(SPARK_CONF.glob("*-pod.yaml"))
COMMANDS = dry_run.commands_of(ROOT / "docs" / "guide" / "cluster.md")
USER = 10001


def properties(path):
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split(" ", 1) for line in lines)


# the image


def instructions():
    """(name, rest) of each instruction of the Dockerfile, continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    return [tuple(line.split(" ", 1)) for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line]


def copied():
    """(sources, target, stage) of each COPY."""
    for name, rest in instructions():
        if name == "COPY":
            words = rest.split()
            stage = words.pop(0) if words[0].startswith("--from=") else None
            yield words[:-1], words[-1], stage


def is_in_context(path):
    """What .dockerignore leaves: everything is excluded but the names that it takes back in."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    return any(fnmatch(Path(path).parts[0], rule[1:]) for rule in rules if rule.startswith("!"))


def test_every_file_that_the_image_copies_exists_and_reaches_docker():
    sources = [source for sources, _, stage in copied() for source in sources if stage is None]
    assert len(sources) > 5
    for source in sources:
        assert (ROOT / source).exists(), source
        assert is_in_context(source), source


def test_everything_that_is_installed_from_an_index_is_locked_with_hashes():
    text = "\n".join(rest for name, rest in instructions() if name == "RUN")
    installs = [part for part in re.split(r"&&|;", text) if re.search(r"\bpip install\b", part)]
    assert len(installs) == 3
    for install in installs:
        assert "--require-hashes -r requirements/" in install or "--no-deps dist/*.whl" in install, install


def test_the_image_runs_as_the_user_of_the_pod_templates_and_starts_a_copied_program():
    users = [rest for name, rest in instructions() if name == "USER"]
    assert users == [str(USER)]
    names = [name for name, _ in instructions()]
    assert names.index("USER") > max(index for index, name in enumerate(names) if name in ("COPY", "RUN"))
    [entry] = [yaml.safe_load(rest) for name, rest in instructions() if name == "ENTRYPOINT"]
    folder, program = os.path.split(entry[0])
    assert [target for sources, target, _ in copied() if f"bin/{program}" in sources] == [f"{folder}/"]
    assert os.access(ROOT / "bin" / program, os.X_OK)


def test_the_base_image_has_the_python_of_the_lock_and_no_host_in_its_name():
    [image] = [rest.split("=")[1] for name, rest in instructions() if name == "ARG"]
    assert re.fullmatch(r"python:3\.11-slim-\w+", image)


def fake_programs(folder):
    """Programs that print their arguments, one a line, in the places where the image has the real ones."""
    for path in ("bin/tini", "spark/bin/spark-submit", "java/bin/java"):
        program = folder / path
        program.parent.mkdir(parents=True, exist_ok=True)
        last = 'shift 2; exec "$@"' if path == "bin/tini" else 'printf \'%s\\n\' "$0" "$@"'
        program.write_text(f"#!/bin/sh\n{last}\n")
        program.chmod(0o755)
    return {
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "SPARK_HOME": f"{folder}/spark",
        "JAVA_HOME": f"{folder}/java",
    }


def start_container(environ, *arguments):
    command = [str(ROOT / "bin" / "container"), *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.splitlines()


def test_the_container_starts_a_driver_in_client_mode_on_its_own_address(tmp_path):
    environ = {**fake_programs(tmp_path), "SPARK_DRIVER_BIND_ADDRESS": "10.0.0.1"}
    printed = start_container(environ, "driver", "--properties-file", "x", "local:///job.py", "--config", "my file")
    assert printed[0] == f"{tmp_path}/spark/bin/spark-submit"
    assert printed[1:3] == ["--deploy-mode", "client"]
    assert "spark.driver.bindAddress=10.0.0.1" in printed
    assert printed[-5:] == ["--properties-file", "x", "local:///job.py", "--config", "my file"]


def test_the_container_runs_any_other_command_as_it_is(tmp_path):
    assert start_container(fake_programs(tmp_path), "echo", "recsys doctor") == ["recsys doctor"]


@pytest.mark.parametrize(
    ("found", "printed"),
    [("0", '{"name": "gpu", "addresses": ["0"]}'), ("0\n 1\n2", '{"name": "gpu", "addresses": ["0","1","2"]}')],
)
def test_gpu_addresses_are_told_to_spark(tmp_path, found, printed):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' {shlex.quote(found)}\n")
    program.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [str(ROOT / "bin" / "gpu-addresses")], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == printed


# settings


def test_cluster_and_single_machine_agree_on_what_both_set():
    here = properties(SPARK_CONF / "spark-defaults.conf")
    text = spark_defaults([], 8 * 2**30, "python")
    there = dict(line.split(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    both = set(here) & set(there)
    assert both >= {"spark.sql.extensions", "spark.sql.catalog.spark_catalog", "spark.executor.extraJavaOptions"}
    assert {name: here[name] for name in both} == {name: there[name] for name in both}


def test_the_example_of_a_cluster_names_no_local_folder():
    config = load_config(ROOT / "conf" / "cluster.yaml")
    for path in (config.data_root, config.sources.events.path, config.sources.items.path, config.tracking.uri):
        assert "://" in path


def test_the_guide_has_a_command_for_every_kind_of_cluster():
    assert {command.master.split(":")[0] for command in COMMANDS} == {"spark", "yarn", "k8s"}
    assert {command.spark_conf_dir for command in COMMANDS} == {str(SPARK_CONF)}


def test_the_sizes_in_the_guide_are_those_of_the_profiles():
    page = (ROOT / "docs" / "guide" / "cluster.md").read_text()
    for profile in PROFILES:
        value = properties(profile)
        memory = {
            name: int(value[f"spark.{name}.memory"][:-1]) + int(value[f"spark.{name}.memoryOverhead"][:-1])
            for name in ("driver", "executor")
        }
        driver = f"{value['spark.driver.cores']} cores, {memory['driver']} GiB"
        executor = f"{value['spark.executor.cores']} cores, {memory['executor']} GiB"
        gpu = ", 1 GPU" if "spark.executor.resource.gpu.amount" in value else ""
        least, most = (value[f"spark.dynamicAllocation.{bound}Executors"] for bound in ("min", "max"))
        assert f"| `{profile.stem}` | {driver} | {executor}{gpu} | {least} to {most} |" in page


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_pod_templates_ask_for_no_right_that_the_job_does_not_need(path):
    pod = yaml.safe_load(path.read_text())
    assert (pod["apiVersion"], pod["kind"]) == ("v1", "Pod")
    rights = pod["spec"]["securityContext"]
    assert (rights["runAsNonRoot"], rights["runAsUser"]) == (True, USER)
    [container] = pod["spec"]["containers"]
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert not {"image", "resources", "command", "args"} & set(container)  # Spark fills them in


# what Spark makes of them


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.master.split(":")[0])
def test_spark_knows_every_setting_of_the_guides_commands(spark, command):
    found = dry_run.submission(spark, command)
    assert found.settings["spark.sql.extensions"] == "io.delta.sql.DeltaSparkSessionExtension"  # the defaults were read
    assert "spark.executor.memory" in found.settings  # and the profile
    problems = [dry_run.setting_problem(spark, name, value) for name, value in found.settings.items()]
    assert [problem for problem in problems if problem] == []
    job = next(argument for argument in command.arguments if argument.endswith(".py"))
    assert (ROOT / job.removeprefix("local:///opt/recsys/")).is_file()
    joined = " ".join(argument or "" for argument in found.arguments)  # null where there are no further Python files
    assert "--date" in joined
    assert "--config" in joined


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_spark_knows_every_setting_of_the_profiles(spark, path):
    problems = [dry_run.setting_problem(spark, name, value) for name, value in properties(path).items()]
    assert [problem for problem in problems if problem] == []


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("spark.kubernetes.container.imag", "x", "is unknown"),
        ("spark.yarn.que", "x", "is unknown"),
        ("spark.executor.memory", "3gigs", "spark.executor.memory=3gigs"),
        ("spark.dynamicAllocation.enabled", "yes please", "spark.dynamicAllocation.enabled=yes please"),
    ],
)
def test_a_misspelt_setting_would_be_found(spark, name, value, problem):
    assert problem in dry_run.setting_problem(spark, name, value)


@pytest.mark.parametrize("gpu", [False, True], ids=["cpu", "gpu"])
def test_spark_builds_pods_that_the_image_can_start(spark, gpu, tmp_path):
    [command] = [
        command
        for command in COMMANDS
        if command.master.startswith("k8s:") and ("gpu-small" in " ".join(command.arguments)) == gpu
    ]
    pods = dry_run.pods(spark, command)
    for name, pod in pods.items():
        assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == name  # the template was read
        assert pod["spec"]["securityContext"]["runAsUser"] == USER
        assert pod["container"]["image"] == "registry.example/recsys-spark:0.1.0"
        assert pod["container"]["securityContext"]["allowPrivilegeEscalation"] is False
    assert pods["driver"]["spec"]["serviceAccountName"] == "spark"
    assert "/etc/recsys" in {mount["mountPath"] for mount in pods["driver"]["container"]["volumeMounts"]}
    limits = pods["executor"]["container"]["resources"]["limits"]
    assert limits["memory"] == ("16384Mi" if gpu else "5120Mi")
    assert limits.get("nvidia.com/gpu") == ("1" if gpu else None)

    # bin/container reads variables that Spark sets: a missing one would stop it
    fakes = fake_programs(tmp_path)
    driver, executor = (
        start_container({**fakes, **container_environment(pods[name])}, *pods[name]["container"]["args"])
        for name in ("driver", "executor")
    )
    assert driver[-5:] == [
        "local:///opt/recsys/jobs/main_job.py",
        "--config",
        "/etc/recsys/my.yaml",
        "--date",
        "2024-06-05",
    ]
    assert executor[0].endswith("java")
    assert "-XX:-DontCompileHugeMethods" in executor
    assert executor[executor.index("--executor-id") + 1] == "1"


def container_environment(pod):
    """A pod's environment variables; where Kubernetes would fill one in (its address), a word."""
    return {entry["name"]: entry.get("value", "filled-in") for entry in pod["container"]["env"]}
