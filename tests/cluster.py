"""A Spark standalone cluster on this machine: one master and its workers, as processes that the test starts and ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyspark
from accidents import FAST_JVM, ROOT, kill_group, wait_until

from recsys_spark.config import Config
from recsys_spark.infra.jvm import conf_dir

_MASTER = "org.apache.spark.deploy.master.Master"
_WORKER = "org.apache.spark.deploy.worker.Worker"


@dataclass(frozen=True)
class Cluster:
    """Where the master listens, and its page."""

    master: str
    page: str

    def state(self) -> dict[str, Any]:
        """What the master's page knows: workers, running and completed applications."""
        with urllib.request.urlopen(f"{self.page}/json/", timeout=10) as answer:
            return dict(json.load(answer))


@contextmanager
def standalone_cluster(folder: Path, num_workers: int, worker_memory: str) -> Iterator[Cluster]:
    """Start a master and workers of one core each; all of them and what they started are gone at the end."""
    folder.mkdir(parents=True)
    port, page_port = _free_port(), _free_port()
    cluster = Cluster(f"spark://127.0.0.1:{port}", f"http://127.0.0.1:{page_port}")
    address = ["--host", "127.0.0.1"]
    commands = {"master": [_MASTER, *address, "--port", str(port), "--webui-port", str(page_port)]}
    for number in range(num_workers):
        size = [
            "--cores",
            "1",
            "--memory",
            worker_memory,
            "--webui-port",
            "0",
            "--work-dir",
            str(folder / f"work-{number}"),
        ]
        commands[f"worker-{number}"] = [_WORKER, *address, *size, cluster.master]
    processes = {}
    try:
        for name, command in commands.items():
            processes[name] = _start(command, folder / f"{name}.txt")
        wait_until(processes["master"], folder / "master.txt", lambda: _num_workers(cluster) == num_workers)
        yield cluster
    finally:
        for process in processes.values():
            kill_group(process)


def _start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    home = Path(pyspark.__file__).parent
    options = f"{FAST_JVM} -XX:+UseSerialGC"
    environ = {**os.environ, "SPARK_HOME": str(home), "SPARK_DAEMON_MEMORY": "256m", "SPARK_DAEMON_JAVA_OPTS": options}
    environ |= {
        "SPARK_CONF_DIR": str(log.parent / "conf"),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }  # none: the defaults are for jobs
    with log.open("wb") as output:
        return subprocess.Popen(
            [str(home / "bin" / "spark-class"), *command],
            env=environ, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def _num_workers(cluster: Cluster) -> int:
    try:
        return int(cluster.state()["aliveworkers"])
    except OSError:  # the master does not listen yet
        time.sleep(0.1)
        return 0


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def submit(
    cluster: Cluster, job: str, config: Config, *options: str, arguments: tuple[str, ...] = ()
) -> tuple[int, str]:
    """Run a job under spark-submit on the cluster; give its exit code and all that it printed."""
    settings = Path(config.data_root) / "config.yaml"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps(config.model_dump(mode="json", exclude_none=True)))  # JSON is YAML
    command = [str(Path(sys.executable).parent / "spark-submit"), "--master", cluster.master, *options]
    command += ["--driver-memory", "1g", "--conf", f"spark.driver.extraJavaOptions={FAST_JVM}"]
    command += ["--conf", f"spark.executor.extraJavaOptions={FAST_JVM}"]
    command += [str(ROOT / "jobs" / f"{job}.py"), "--config", str(settings), *arguments]
    environ = {**os.environ, "SPARK_CONF_DIR": str(conf_dir())}
    done = subprocess.run(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900, check=False
    )
    return done.returncode, done.stdout


def tasks_by_executor(event_log: Path) -> Counter[str]:
    """Executor id -> tasks that it ended well, from the event log of the one application in a folder."""
    [file] = [path for path in event_log.rglob("*") if path.is_file() and path.name.startswith(("app-", "events_"))]
    # not splitlines: plans hold letters of their own that it takes for line ends
    events = (json.loads(line) for line in file.read_text().split("\n") if line)
    ends = (event for event in events if event["Event"] == "SparkListenerTaskEnd")
    return Counter(
        event["Task Info"]["Executor ID"] for event in ends if event["Task End Reason"]["Reason"] == "Success"
    )
