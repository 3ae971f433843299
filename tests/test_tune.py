"""The search over a model's settings, on the blocks world: what trials may see, what they leave, and what comes out."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from factories import make_config, table_rows
from mlflow.tracking import MlflowClient
from worlds import BLOCK_USERS, CUTOFF, add_events, blocks_world, event

from recsys_spark.config_file import load_config, with_values
from recsys_spark.errors import ConfigError, DataError, TrainingError
from recsys_spark.infra import search, tables
from recsys_spark.infra.tracking import tracking_uri
from recsys_spark.tune import check_search, tune

VALIDATION = CUTOFF - timedelta(days=5)
SPACE = {"neighbours": {"neighbours.shrink": {"choices": [1.0, 1000.0]}, "neighbours.num_neighbours": {"choices": [1, 50]}}}


@pytest.fixture(scope="module")
def world(spark_session, tmp_path_factory):
    return blocks_world(
        spark_session, tmp_path_factory.mktemp("tune"), tune={"task": "next", "metric": "recall", "k": 3, "spaces": SPACE}
    )


@pytest.fixture(scope="module")
def result(spark_session, world):
    return tune(spark_session, world.config, "neighbours", trials=3, file="conf/blocks.yaml")


def trials_of(config, name):
    return search.finished_trials(search.open_study(f"sqlite:///{config.data_root}/tune/studies.db", name, 1))


@pytest.fixture(scope="module")
def trials(world, result):
    return trials_of(world.config, result.study)


pytestmark = pytest.mark.spark


def test_first_trial_is_the_config_as_it_is_and_every_trial_has_an_interval(trials, world):
    assert len(trials) == 3
    assert trials[0].values == {"neighbours.shrink": 1.0, "neighbours.num_neighbours": 100} or trials[0].values["neighbours.shrink"] == 1.0
    for trial in trials:
        assert 0 < trial.facts["ci_low"] <= trial.value <= trial.facts["ci_high"] <= 1.2
        assert trial.facts["seconds"] > 0
