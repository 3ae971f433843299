"""The only code that talks to MLflow."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlparse
from urllib.request import url2pathname

import mlflow
import requests
from mlflow.entities import Metric, Param, RunInfo, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from recsys_spark.config import Config
from recsys_spark.errors import ConfigError

UNREACHABLE = (MlflowException, requests.RequestException, OSError)
"""What a tracking server raises that is down, full or refuses us."""

_MAX_PARAMS = 100  # MLflow's limits for one batch
_MAX_METRICS = 1000
_MAX_PARAM_CHARS = 6000
_NOT_ALLOWED = re.compile(r"[^/\w.\- :]")


def tracking_uri(config: Config) -> str:
    """Give the configured tracking server, or the SQLite store below the data root (whose folder is made)."""
    if config.tracking.uri is not None:
        return config.tracking.uri
    if not config.is_local:
        raise ConfigError(
            f"data_root {config.data_root} is no local folder, so the MLflow store cannot live below it; set tracking.uri"
        )
    folder = Path(config.data_root).absolute() / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"


def start_run(config: Config, name: str, params: Mapping[str, str], tags: Mapping[str, str]) -> str:
    """Open a run and log its parameters and tags; give its id."""
    client = _client(config)
    experiment = client.get_experiment_by_name(config.tracking.experiment)
    if experiment is None:
        # artifacts beside the SQLite store; a server decides for itself
        location = (
            None if config.tracking.uri else (Path(config.data_root).absolute() / "mlflow" / "artifacts").as_uri()
        )
        experiment_id = client.create_experiment(config.tracking.experiment, artifact_location=location)
    else:
        experiment_id = experiment.experiment_id
    run = client.create_run(experiment_id, run_name=name, tags=dict(tags))
    entries = [Param(_allowed(key), value[:_MAX_PARAM_CHARS]) for key, value in params.items()]
    for start in range(0, len(entries), _MAX_PARAMS):
        client.log_batch(run.info.run_id, params=entries[start : start + _MAX_PARAMS])
    return str(run.info.run_id)


def finish_run(
    config: Config, run_id: str, metrics: Mapping[str, float], texts: Mapping[str, str], is_failed: bool = False
) -> None:
    """Log metrics and text artifacts (file name -> content) in batches and close the run."""
    client = _client(config)
    now = int(time.time() * 1000)
    entries = [Metric(_allowed(key), float(value), now, 0) for key, value in metrics.items()]
    for start in range(0, len(entries), _MAX_METRICS):
        client.log_batch(run_id, metrics=entries[start : start + _MAX_METRICS])
    for file, text in texts.items():
        client.log_text(run_id, text, file)
    client.set_terminated(run_id, "FAILED" if is_failed else "FINISHED")


@contextmanager
def closed_on_error(config: Config, run_id: str) -> Iterator[None]:
    """Mark the run as failed when what is done meanwhile raises."""
    try:
        yield
    except BaseException:
        finish_run(config, run_id, {}, {}, is_failed=True)
        raise


def log_child_run(
    config: Config, parent_id: str, name: str, params: Mapping[str, str], metrics: Mapping[str, float], is_failed: bool = False
) -> str:  # fmt: skip
    """Log one model, window or trial of a comparison as a child run, so that MLflow's own table compares them; give its id."""
    run_id = start_run(config, name, params, {"mlflow.parentRunId": parent_id})
    finish_run(config, run_id, metrics, {}, is_failed)
    return run_id


def replace_artifacts(
    config: Config,
    files: tuple[str, ...],
    rewrite: Callable[[str, str], str | None],
    is_personal: Callable[[str, str], bool],
) -> tuple[int, list[str]]:
    """Pass the named text artifacts of the experiment's runs through rewrite(file, text); null leaves one as it is.

    Gives the number replaced, and the ids of the runs with a parameter for which is_personal(name, value): MLflow has no
    call that changes a parameter. Artifacts of a local store are read in place; others pass through a temporary folder.
    """
    client = _client(config)
    experiment = client.get_experiment_by_name(config.tracking.experiment)
    if experiment is None:
        return 0, []
    replaced, left, token = 0, [], None
    while True:
        page = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL, page_token=token)
        for run in page:
            there = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
            for file in (file for file in files if file in there):
                text = rewrite(file, _artifact_text(client, run.info, file))
                if text is not None:
                    client.log_text(run.info.run_id, text, file)
                    replaced += 1
            if any(is_personal(name, value) for name, value in run.data.params.items()):
                left.append(str(run.info.run_id))
        token = page.token
        if not token:
            return replaced, sorted(left)


def _artifact_text(client: MlflowClient, run: RunInfo, file: str) -> str:
    if run.artifact_uri.startswith("file:"):
        return Path(url2pathname(urlparse(run.artifact_uri).path), file).read_text(encoding="utf-8")
    with TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run.run_id, file, folder)).read_text(encoding="utf-8")


def _allowed(name: str) -> str:
    """MLflow refuses other characters in names; event types and filter rules, which come from a config, may hold them."""
    return _NOT_ALLOWED.sub("_", name)


def _client(config: Config) -> MlflowClient:
    # no anonymous usage data leaves the machine
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it announces every table of a new SQLite store
    uri = tracking_uri(config)
    mlflow.set_tracking_uri(uri)
    return MlflowClient(uri)
