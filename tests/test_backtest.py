"""Backtests on the blocks world: a window measures what evaluate measures, held-out users stay unknown, protocols stay apart."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from worlds import BLOCK_USERS, CUTOFF, add_events, event, table_pdf, trained_blocks_world

from recsys_spark.backtest import backtest, folds_of, protocol_name
from recsys_spark.columns import Protocol
from recsys_spark.config_file import with_values
from recsys_spark.data.interactions import counted_events
from recsys_spark.data.leakage import find_leaks
from recsys_spark.data.split import events_before, events_between
from recsys_spark.errors import DataError
from recsys_spark.evaluation.evaluate import truth_pairs
from recsys_spark.infra import tables
from recsys_spark.infra.tracking import tracking_uri
from recsys_spark.pipelines.evaluate import measure_lists

pytestmark = pytest.mark.spark

MODELS = ("popular", "neighbours")
OTHER_PROTOCOL = {"run_id": "r", "model": "als", "task": "next", "protocol": Protocol.GLOBAL_TIME_SPLIT, "slice": "all",
                  "metric": "ndcg", "k": 3, "value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "num_users": 9, "run_date": CUTOFF,
                  "model_version": "als-1"}  # fmt: skip
KEY = ["task", "model", "slice", "metric", "k"]
SETTINGS = {
    "split": {"validation_start": CUTOFF - timedelta(days=5), "test_start": CUTOFF, "held_out_share": 0.4,
              "windows": {"count": 1, "test_days": 2}},
    "recommend": {"k": 5, "models": MODELS},
}  # fmt: skip


@pytest.fixture(scope="module")
def world(spark_session, tmp_path_factory):
    """A copy of the trained world, with metrics of another protocol on the same date."""
    world = trained_blocks_world(spark_session, tmp_path_factory).copied_to(
        tmp_path_factory.mktemp("backtest"), **SETTINGS
    )
    rows = spark_session.createDataFrame(pd.DataFrame([OTHER_PROTOCOL]))
    tables.replace_partition(spark_session, world.config, "metrics", rows, {"run_date": CUTOFF})
    return world


def events_of(spark, world):
    return tables.read_table(spark, world.config, "events", made_by="this test")


@pytest.fixture(scope="module")
def rolling(spark_session, world):
    return backtest(spark_session, world.config)


def test_window_at_the_test_start_measures_what_evaluate_measures(spark, world, rolling):
    counted = counted_events(events_of(spark, world), world.config.interactions)
    past, later = events_before(counted, CUTOFF), events_between(counted, CUTOFF, CUTOFF + timedelta(days=2))
    expected = measure_lists(spark, world.config, CUTOFF, truth_pairs(past, later, world.config.recommend.tasks))
    found = rolling.metrics_pdf
    assert set(found["run_date"]) == {CUTOFF}
    pd.testing.assert_frame_equal(found[[*KEY, "value", "num_users"]], expected[[*KEY, "value", "num_users"]])


def test_rows_of_other_protocols_of_the_date_stay(spark, world, rolling):
    metrics_pdf = table_pdf(spark, world.config, "metrics").query("run_date == @CUTOFF")
    assert set(metrics_pdf["protocol"]) == {Protocol.GLOBAL_TIME_SPLIT, Protocol.ROLLING_WINDOWS}
    assert not metrics_pdf.duplicated(list(tables.TABLES["metrics"].key)).any()
    assert (metrics_pdf["protocol"] == Protocol.ROLLING_WINDOWS).sum() == len(rolling.metrics_pdf)


def test_nothing_is_left_in_scratch(world, rolling):
    assert list((Path(world.config.data_root) / "scratch").iterdir()) == []


def test_mlflow_has_the_mean_and_a_child_run_per_window(world, rolling):
    client = MlflowClient(tracking_uri(world.config))
    experiment = client.get_experiment_by_name(world.config.tracking.experiment)
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    parent, window = found["backtest rolling_windows"], found[f"rolling_windows {CUTOFF}"]
    assert window.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert set(rolling.metrics_pdf["run_id"]) == {window.info.run_id}
    ndcg = rolling.metrics_pdf.query(
        "task == 'next' and model == 'neighbours' and slice == 'all' and metric == 'ndcg' and k == 3"
    )
    name = "next.neighbours.ndcg_at_3"
    assert parent.data.metrics[name] == window.data.metrics[name] == pytest.approx(ndcg["value"].item())


def test_held_out_users_are_listed_from_their_history_by_models_that_never_saw_them(spark, world, tmp_path):
    (fold,) = folds_of(events_of(spark, world), world.config, Protocol.BY_USER, None)
    held_out = {row[0] for row in fold.test.select("user_id").distinct().collect()}
    assert held_out & set(BLOCK_USERS)
    # ease, whose weights are of the trained catalogue, meets an item that only a held-out user had
    copy = world.copied_to(tmp_path, **(SETTINGS | {"recommend": {"k": 5, "models": [*MODELS, "ease"]}}))
    own = event(min(held_out & set(BLOCK_USERS)), "own", CUTOFF - timedelta(days=8))
    add_events(spark, copy.config, [own | {"event_id": f"own{number}"} for number in range(2)])
    found = backtest(spark, copy.config, Protocol.BY_USER)
    assert found.protocol == "by_user_last_1"
    rows = found.metrics_pdf.query("task == 'next' and slice == 'all' and metric == 'recall' and k == 5").set_index(
        "model"
    )
    assert (rows["num_users"] == len(held_out)).all()
    assert rows.loc["neighbours", "value"] > 0.5  # from block items that only the history can tell
    assert rows.loc["ease", "value"] > 0.5


@pytest.mark.parametrize(
    "protocol", [Protocol.LEAVE_LAST, Protocol.BY_USER, Protocol.BY_ITEM, Protocol.ROLLING_WINDOWS]
)
def test_cuts_keep_what_their_protocol_promises(spark, world, protocol):
    config = with_values(world.config, {"split.windows.gap_days": 1, "split.windows.train_days": 5}, origin="test")
    (fold,) = folds_of(events_of(spark, world), config, protocol, None)
    assert set(find_leaks(fold.train, fold.test, protocol).values()) == {0}
    last_day = fold.train.selectExpr("max(event_date)").head()[0]
    assert last_day < fold.cutoff
    assert fold.train.where("event_type != 'buy'").isEmpty() == (protocol != Protocol.ROLLING_WINDOWS)
    if protocol == Protocol.ROLLING_WINDOWS:
        assert fold.cutoff == CUTOFF - timedelta(days=1)
        assert fold.train_days == (CUTOFF - timedelta(days=6), fold.cutoff)
        assert fold.test.selectExpr("min(event_date)").head()[0] == CUTOFF
        assert fold.past.selectExpr("max(event_date)").head()[0] == CUTOFF - timedelta(days=1)  # the gap is past, too


def test_end_leaves_later_events_out(spark, world):
    (fold,) = folds_of(events_of(spark, world), world.config, Protocol.LEAVE_LAST, CUTOFF)
    assert fold.cutoff == CUTOFF
    assert fold.train.unionByName(fold.test).selectExpr("max(event_date)").head()[0] < CUTOFF


def test_too_many_windows_and_no_events_say_so(spark, world):
    config = with_values(world.config, {"split.windows.count": 40}, origin="test")
    with pytest.raises(DataError, match="40 windows that end on 2024-03-12 need events from"):
        list(folds_of(events_of(spark, world), config, Protocol.ROLLING_WINDOWS, None))
    with pytest.raises(DataError, match="there are no events before 2020-01-01"):
        list(folds_of(events_of(spark, world), config, Protocol.LEAVE_LAST, date(2020, 1, 1)))


def test_protocol_names_say_how_many_last_events_are_truth(world):
    config = with_values(world.config, {"split.leave_last": 3}, origin="test")
    assert protocol_name(config, Protocol.LEAVE_LAST) == "leave_last_3"
    assert protocol_name(config, Protocol.BY_USER) == "by_user_last_3"
    assert protocol_name(config, Protocol.BY_ITEM) == "by_item"
