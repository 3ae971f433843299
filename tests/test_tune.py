"""The search over a model's settings, on the blocks world: what trials may see, what they leave behind, and what comes out."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
from factories import make_config
from mlflow.tracking import MlflowClient
from worlds import BLOCK_USERS, CUTOFF, add_events, blocks_world, event

from recsys_spark import tune as module
from recsys_spark.config import Config
from recsys_spark.config_file import load_config, with_values
from recsys_spark.errors import ConfigError, DataError, TrainingError
from recsys_spark.infra import search
from recsys_spark.infra.tracking import tracking_uri
from recsys_spark.tune import check_search, tune

START = {"neighbours.shrink": 1.0, "neighbours.num_neighbours": 100}
SPACE = {
    "neighbours.shrink": {"choices": [1.0, 1000.0]},
    "neighbours.num_neighbours": {"choices": [1, 100]},
}
SECTION = {"task": "next", "metric": "recall", "k": 3, "spaces": {"neighbours": SPACE}}


@pytest.fixture(scope="module")
def world(spark_session, tmp_path_factory):
    return blocks_world(spark_session, tmp_path_factory.mktemp("tune"), tune=SECTION)


@pytest.fixture(scope="module")
def result(spark_session, world):
    return tune(spark_session, world.config, "neighbours", trials=2, file="blocks.yaml")


def trials_of(world, name):
    return search.finished_trials(search.open_study(f"sqlite:///{world.config.data_root}/tune/studies.db", name, 1))


def children_of(world, name):
    """The MLflow run of a study and its child runs."""
    client = MlflowClient(tracking_uri(world.config))
    experiment = client.get_experiment_by_name(world.config.tracking.experiment)
    found = client.search_runs([experiment.experiment_id])
    parent = next(run for run in found if run.info.run_name == f"tune {name}")
    children = [run for run in found if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return parent, sorted(children, key=lambda run: run.info.run_name)


@pytest.mark.spark
def test_first_trial_is_the_config_as_it_is_and_all_are_measured_on_the_validation_truth(world, result):
    trials = trials_of(world, result.study)
    assert [trial.number for trial in trials] == [0, 1]
    assert trials[0].values == START
    assert trials[1].values != START
    for trial in trials:
        assert 0 < trial.value < 1
        assert trial.facts["ci_low"] < trial.value < trial.facts["ci_high"]
        assert trial.facts["seconds"] > 0
    assert trials[0].value != trials[1].value


@pytest.mark.spark
def test_best_settings_load_on_top_of_the_config(world, result, tmp_path):
    best = max(trials_of(world, result.study), key=lambda trial: trial.value)
    assert result.path.read_text(encoding="utf-8") == result.best_yaml
    changed = {key: value for key, value in best.values.items() if START[key] != value}
    assert load_config(result.path) == with_values(Config(), changed, "x")
    assert (result.path.parent / "trials.txt").read_text(encoding="utf-8") == result.table + "\n"


@pytest.mark.spark
def test_mlflow_has_a_child_run_per_trial(world, result):
    parent, children = children_of(world, result.study)
    assert [run.info.run_name for run in children] == ["trial 0", "trial 1"]
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["delta.events"].isdigit()
    assert children[0].data.params == {key: str(value) for key, value in START.items()}
    assert children[0].data.metrics["recall_at_3"] == trials_of(world, result.study)[0].value
    assert {"ci_low", "ci_high", "seconds"} <= set(children[0].data.metrics)
    artifacts = Path(world.config.data_root) / "mlflow" / "artifacts" / parent.info.run_id / "artifacts"
    assert (artifacts / "best.yaml").read_text(encoding="utf-8") == result.best_yaml


@pytest.mark.spark
def test_no_table_of_the_data_root_was_written(world, result):
    root = Path(world.config.data_root)
    assert [path.name for path in (root / "tables").iterdir()] == ["events"]
    assert list((root / "scratch").iterdir()) == []


@pytest.mark.spark
def test_same_command_again_starts_no_trial(spark, world, result, monkeypatch):
    monkeypatch.setattr(module, "fill_scratch", lambda *_: pytest.fail("a trial was run"))
    again = tune(spark, world.config, "neighbours", trials=2, file="blocks.yaml")
    assert again == result


@pytest.mark.spark
def test_events_of_the_test_period_change_no_trial(spark, world, result):
    # everybody takes everything, from test's first midnight on, and new users and items come
    planted = [
        event(user, item, CUTOFF + timedelta(days=days), at="00:00:00") | {"event_id": f"leak-{user}-{item}-{days}"}
        for user in [*BLOCK_USERS, "late comer"] for item in ("A0", "B1", "C0x", "late item") for days in range(2)
    ]  # fmt: skip
    add_events(spark, world.config, planted)
    tune(spark, world.config, "neighbours", trials=1, name="planted")
    first, planted_first = (trials_of(world, name)[0] for name in (result.study, "planted"))
    assert planted_first.values == first.values
    keys = ("ci_low", "ci_high")
    assert (planted_first.value, *[planted_first.facts[key] for key in keys]) == (
        first.value, *[first.facts[key] for key in keys],
    )  # fmt: skip


def without_pipelines(monkeypatch, run_models):
    monkeypatch.setattr(module, "fill_scratch", lambda *_: None)
    monkeypatch.setattr(module, "build_base", lambda *_: None)
    monkeypatch.setattr(module, "run_models", run_models)


@pytest.mark.spark
def test_search_in_which_every_trial_fails_says_why(spark, world, monkeypatch):
    def fails(*_):
        raise TrainingError("factors are not finite")

    without_pipelines(monkeypatch, fails)
    with pytest.raises(TrainingError, match=r"study failing has no trial with a value: factors are not finite"):
        tune(spark, world.config, "neighbours", trials=2, name="failing")
    _, children = children_of(world, "failing")
    assert [run.info.status for run in children] == ["FAILED", "FAILED"]


GOAL_COLUMNS = ["task", "model", "slice", "metric", "k", "value", "ci_low", "ci_high"]
GOAL = pd.DataFrame([("next", "neighbours", "all", "recall", 3, 0.5, 0.4, 0.6)], columns=GOAL_COLUMNS)


@pytest.mark.spark
def test_trials_at_once_have_roots_and_scheduler_pools_of_their_own(spark, world, monkeypatch):
    together, found = threading.Barrier(2), []

    def measured(spark, trial, cutoff, truth):
        together.wait(timeout=240)  # nobody gets further before both have begun
        found.append((trial.data_root, spark.sparkContext.getLocalProperty("spark.scheduler.pool")))
        return GOAL

    without_pipelines(monkeypatch, measured)
    tune(spark, world.config, "neighbours", trials=2, workers=2, name="together")
    assert len({root for root, _ in found}) == 2
    assert {pool for _, pool in found} == {"tune-0", "tune-1"}


@pytest.mark.spark
def test_what_trials_share_is_built_again_only_where_its_settings_change(spark, world, monkeypatch):
    space = {"interactions.half_life_days": {"choices": [7.0]}, "neighbours.shrink": {"low": 1.0, "high": 9.0}}
    config = with_values(world.config, {"tune.spaces": {"neighbours": space}}, origin="test")
    seen, built = [], []

    def measured(spark, trial, cutoff, truth):
        seen.append((trial.interactions.half_life_days, trial.neighbours.shrink, trial.recommend, trial.data_root))
        return GOAL

    without_pipelines(monkeypatch, measured)
    monkeypatch.setattr(module, "build_base", lambda _, scratch, *__: built.append(scratch.interactions.half_life_days))
    tune(spark, config, "neighbours", trials=3, name="shared")
    assert built == [7.0]
    assert [half_life for half_life, *_ in seen] == [7.0] * 3
    assert len({shrink for _, shrink, *_ in seen}) == 3
    recommend, roots = seen[0][2], {root for *_, root in seen}
    assert (recommend.models, recommend.tasks, recommend.k) == (("neighbours",), ("next",), 3)
    assert len(roots) == 1
    assert roots != {world.config.data_root}


@pytest.mark.spark
def test_named_study_refuses_other_settings(spark, world, result):
    for change in ({"interactions.half_life_days": 30.0}, {"tune.metric": "ndcg"}):
        config = with_values(world.config, change, origin="test")
        with pytest.raises(ConfigError, match=r"was begun for neighbours, next, recall at 3 .* give another --study"):
            tune(spark, config, "neighbours", trials=3, name=result.study)


@pytest.mark.spark
def test_date_in_the_test_period_is_refused_and_one_without_truth_too(spark, world):
    with pytest.raises(ConfigError, match=r"would be judged by test, which begins on 2024-03-10"):
        tune(spark, world.config, "neighbours", run_date=CUTOFF)
    config = with_values(world.config, {"interactions.default_weight": 0.0}, origin="test")
    with pytest.raises(DataError, match="no user took anything for the task next from 2024-03-05 to 2024-03-10"):
        tune(spark, config, "neighbours")


# before Spark


@pytest.mark.parametrize(
    ("sections", "model", "name", "message"),
    [
        ({}, "again", None, r"again recommends what users had.* set tune\.task to next"),
        ({"tune": {"k": 50}}, "als", None, r"tune\.k asks for 50 items but lists hold recommend\.k = 20"),
        ({}, "popular", None, "popular has no settings of its own to search"),
        ({}, "als", "../other", r"--study expects letters, digits"),
        ({"data_root": "s3a://lake/shop", "tracking": {"uri": "http://mlflow"}}, "als", None, r"set tune\.storage"),
    ],
)
def test_search_that_cannot_be_run_is_refused_without_spark(tmp_path, sections, model, name, message):
    folder = sections.pop("data_root", tmp_path)
    with pytest.raises(ConfigError, match=message):
        check_search(make_config(folder, **sections), model, name)
