"""What Spark's own classes make of a spark-submit command, without a cluster: its parser, its settings, its pods."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SPARK_SUBMIT = ".venv/bin/spark-submit"
SETTINGS = ("org.apache.spark.deploy.k8s.Config$", "org.apache.spark.deploy.yarn.config.package$")  # beside Spark's own
# named by their user, so not in the registry of settings: resources, which Spark checks when it makes a profile, and catalogs
OWN_NAMES = (
    r"spark\.(driver|executor|task)\.resource\.gpu\.(amount|vendor|discoveryScript)",
    r"spark\.sql\.catalog\.\w+",
)


@dataclass(frozen=True)
class Command:
    """One spark-submit command of a page as a shell runs it: arguments and the configuration folder it saw."""

    arguments: tuple[str, ...]
    spark_conf_dir: str

    @property
    def master(self) -> str:
        return self.arguments[self.arguments.index("--master") + 1]


@dataclass(frozen=True)
class Submission:
    """What Spark understood: the job's name, settings, the class that would be started and its arguments."""

    name: str
    settings: dict[str, str]
    main_class: str
    arguments: list[str]


def commands_of(page: Path) -> list[Command]:
    """Let a shell expand the blocks of a page that submit a job, with spark-submit replaced by something that only tells."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [_expanded(block) for block in blocks if SPARK_SUBMIT in block]


def _expanded(block: str) -> Command:
    tell = f'function {SPARK_SUBMIT} {{ printf \'%s\\0\' "$@" "$SPARK_CONF_DIR"; }}\n'
    environ = {"PATH": os.environ["PATH"], "REGISTRY": "registry.example"}
    done = subprocess.run(
        ["bash", "-euc", tell + block], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=30, check=True
    )
    *arguments, spark_conf_dir = done.stdout.rstrip("\0").split("\0")
    return Command(tuple(arguments), spark_conf_dir)


def submission(spark: Any, command: Command) -> Submission:
    """Spark's parse of a command and what it would start for it."""
    jvm = spark._jvm
    python_utils = jvm.org.apache.spark.api.python.PythonUtils
    environ = {"SPARK_CONF_DIR": command.spark_conf_dir, "HADOOP_CONF_DIR": "/etc/hadoop/conf"}
    arguments = jvm.org.apache.spark.deploy.SparkSubmitArguments(
        python_utils.toSeq(list(command.arguments)), python_utils.toScalaMap(environ)
    )
    prepared = jvm.org.apache.spark.deploy.SparkSubmit().prepareSubmitEnvironment(arguments, jvm.scala.Option.empty())
    settings = {pair._1(): pair._2() for pair in _items(arguments.sparkProperties().toSeq())}
    return Submission(arguments.name(), settings, prepared._4(), _items(prepared._1()))


def _items(scala_seq: Any) -> list[Any]:
    return [scala_seq.apply(index) for index in range(scala_seq.size())]


def setting_problem(spark: Any, name: str, value: str) -> str | None:
    """Say what is wrong with a setting: that the installed Spark knows no such name, or that its value is of another type."""
    if any(re.fullmatch(pattern, name) for pattern in OWN_NAMES):
        return None
    jvm = spark._jvm
    for settings in SETTINGS:
        jvm.java.lang.Class.forName(settings)  # registers its settings
    entry = jvm.org.apache.spark.internal.config.ConfigEntry.findEntry(name)
    if entry is None:
        return f"{name} is unknown"
    try:
        entry.valueConverter().apply(value)
    except Exception as error:  # whatever a converter raises, it is what a job would end with
        return f"{name}={value}: {error}"
    return None


def pods(spark: Any, command: Command) -> dict[str, dict[str, Any]]:
    """The pods of driver and executor that Spark would ask Kubernetes for, each with its container under `container`."""
    jvm = spark._jvm
    found = submission(spark, command)
    conf = jvm.org.apache.spark.SparkConf(False).setMaster(command.master).setAppName(found.name)
    for name, value in found.settings.items():
        conf.set(name, value)
    client = (
        jvm.io.fabric8.kubernetes.client.KubernetesClientBuilder().build()
    )  # connects to nothing until it is asked to
    try:
        made = {"driver": _driver_pod(spark, conf, found, client), "executor": _executor_pod(spark, conf, client)}
    finally:
        client.close()
    to_json = jvm.io.fabric8.kubernetes.client.utils.Serialization.asJson
    return {
        name: {**json.loads(to_json(pod.pod())), "container": json.loads(to_json(pod.container()))}
        for name, pod in made.items()
    }


def _driver_pod(spark: Any, conf: Any, found: Submission, client: Any) -> Any:
    k8s, gateway = spark._jvm.org.apache.spark.deploy.k8s, spark.sparkContext._gateway
    array = gateway.new_array(gateway.jvm.java.lang.String, len(found.arguments))
    for index, argument in enumerate(found.arguments):
        array[index] = argument
    parsed = k8s.submit.ClientArguments.fromCommandLineArgs(array)
    driver = k8s.KubernetesConf.createDriverConf(
        conf, "spark-app", parsed.mainAppResource(), parsed.mainClass(), parsed.driverArgs(), parsed.proxyUser()
    )
    return k8s.submit.KubernetesDriverBuilder().buildFromFeatures(driver, client).pod()


def _executor_pod(spark: Any, conf: Any, client: Any) -> Any:
    jvm = spark._jvm
    nothing = jvm.scala.Option.empty()
    conf.set("spark.driver.host", "10.0.0.1").set("spark.driver.port", "7078")  # the driver would have set them
    executor = jvm.org.apache.spark.deploy.k8s.KubernetesConf.createExecutorConf(conf, "1", "spark-app", nothing, 0)
    security = spark._jsc.sc().env().securityManager()
    builder = jvm.org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBuilder()
    profiles = getattr(getattr(jvm.org.apache.spark.resource, "ResourceProfile$"), "MODULE$")
    try:  # a JVM has one default profile: the running session gets its own back
        return builder.buildFromFeatures(executor, security, client, profiles.reInitDefaultProfile(conf)).pod()
    finally:
        profiles.reInitDefaultProfile(spark.sparkContext._jsc.sc().conf())
