"""MLflow runs: where the store lives, and that whatever a config holds can be logged."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from factories import make_config
from mlflow.tracking import MlflowClient

from recsys_spark.errors import ConfigError
from recsys_spark.infra.tracking import closed_on_error, finish_run, log_child_run, start_run, tracking_uri


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for all tests: making a new one takes seconds."""
    return make_config(tmp_path_factory.mktemp("root with a space"))


@pytest.fixture
def client(store):
    return MlflowClient(tracking_uri(store))


def test_store_is_sqlite_below_the_data_root(tmp_path):
    config = make_config(tmp_path / "new")
    assert tracking_uri(config) == f"sqlite:///{tmp_path}/new/mlflow/mlflow.db"
    assert (tmp_path / "new" / "mlflow").is_dir()


def test_configured_server_wins_and_no_folder_is_made(tmp_path):
    config = make_config(tmp_path / "new", tracking={"uri": "http://127.0.0.1:9"})
    assert tracking_uri(config) == "http://127.0.0.1:9"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("root", ["s3a://bucket/recsys", "hdfs://name/recsys"])
def test_remote_data_root_needs_a_tracking_server(tmp_path, root):
    config = make_config(tmp_path).model_copy(update={"data_root": root})
    with pytest.raises(ConfigError, match=r"cannot live below it; set tracking.uri"):
        tracking_uri(config)


def test_run_keeps_params_metrics_tags_and_texts(store, client):
    run_id = start_run(store, "evaluate 2024-03-10", {"als.rank": "8"}, {"delta.events": "3"})
    finish_run(store, run_id, {"next.als.ndcg_at_10": 0.25}, {"report.html": "<p>für 用户</p>"})
    run = client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("evaluate 2024-03-10", "FINISHED")
    assert run.data.params == {"als.rank": "8"}
    assert run.data.metrics == {"next.als.ndcg_at_10": 0.25}
    assert run.data.tags["delta.events"] == "3"
    (report,) = (Path(store.data_root) / "mlflow" / "artifacts").rglob("report.html")
    assert report.read_text(encoding="utf-8") == "<p>für 用户</p>"


def test_more_than_one_batch_of_params_and_metrics_arrives(store, client):
    run_id = start_run(store, "many", {f"p{i}": str(i) for i in range(230)}, {})
    finish_run(store, run_id, {f"m{i}": float(i) for i in range(2100)}, {})
    data = client.get_run(run_id).data
    assert (len(data.params), len(data.metrics)) == (230, 2100)
    assert data.params["p229"] == "229"


def test_long_value_is_cut_instead_of_failing_the_run(store, client):
    run_id = start_run(store, "long", {"sources.events.filters.rule": "x" * 10_000}, {})
    assert client.get_run(run_id).data.params["sources.events.filters.rule"].startswith("xxx")


@pytest.mark.parametrize("name", ["ingest.events.filtered.qty <= 0?", "event_weights.click@home", "filters.无客户"])
def test_names_from_a_config_never_fail_the_run(store, client, name):
    run_id = start_run(store, "names", {name: "1"}, {})
    finish_run(store, run_id, {name: 1.0}, {})
    assert client.get_run(run_id).info.status == "FINISHED"
    assert list(client.get_run(run_id).data.metrics.values()) == [1.0]


def test_model_run_is_a_child_of_the_comparison(store, client):
    parent = start_run(store, "parent", {}, {})
    log_child_run(store, parent, "als", {"als.rank": "8"}, {"next.ndcg_at_10": 0.5})
    experiment = client.get_experiment_by_name(store.tracking.experiment)
    found = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert [(run.info.run_name, run.info.status, run.data.metrics) for run in found] == [
        ("als", "FINISHED", {"next.ndcg_at_10": 0.5})
    ]


def test_run_whose_work_raises_is_marked_as_failed(store, client):
    parent = start_run(store, "parent", {}, {})
    child = log_child_run(store, parent, "trial 3", {}, {"seconds": 1.0}, is_failed=True)
    with pytest.raises(KeyboardInterrupt), closed_on_error(store, parent):
        raise KeyboardInterrupt
    assert [client.get_run(run_id).info.status for run_id in (parent, child)] == ["FAILED", "FAILED"]
    finish_run(store, parent, {}, {})  # gone on with
    assert client.get_run(parent).info.status == "FINISHED"


def test_mlflow_does_not_flood_the_log_and_sends_no_usage_data(store, monkeypatch):
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    start_run(store, "quiet", {}, {})
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert logging.getLogger("mlflow").level == logging.WARNING
