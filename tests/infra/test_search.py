"""Studies: finished trials stay, interrupted and lost ones are tried again, failed ones are not. A hill instead of a model."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from recsys_spark.config_tune import ParameterConfig
from recsys_spark.errors import ConfigError, TrainingError
from recsys_spark.infra import search

SPACE = {
    "model.size": ParameterConfig(low=1, high=64, log=True),
    "model.rate": ParameterConfig(low=0.0, high=1.0),
    "model.kind": ParameterConfig(choices=("plain", "fancy")),
}
START = {"model.size": 8, "model.rate": 0.5, "model.kind": "plain"}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('search') / 'studies.db'}"


@pytest.fixture
def name(request):
    """Every test has a study of its own."""
    return request.node.name


def hill(number, values):
    """Best at size 16, rate 0.25, kind fancy."""
    value = -abs(values["model.size"] - 16) / 64 - abs(values["model.rate"] - 0.25) + (values["model.kind"] == "fancy")
    return search.Measured(value, {"seconds": 1.0})


def run(url, name, trials, objective=hill, workers=1, timeout=None):
    study = search.open_study(url, name, seed=1)
    search.run_trials(study, SPACE, START, objective, trials, timeout, workers)
    return search.finished_trials(study)


def test_first_trial_is_the_start_and_the_others_stay_in_the_space(url, name):
    trials = run(url, name, 12)
    assert [trial.number for trial in trials] == list(range(12))
    assert trials[0].values == START
    assert trials[0].value == hill(0, START).value
    for trial in trials:
        assert isinstance(trial.values["model.size"], int)
        assert 1 <= trial.values["model.size"] <= 64
        assert 0 <= trial.values["model.rate"] <= 1
    assert len({str(trial.values) for trial in trials}) == 12


def test_search_gets_better_than_its_start(url, name):
    trials = run(url, name, 25)
    assert max(trial.value for trial in trials) > trials[0].value + 1  # it found the better kind, and more


def test_second_run_with_the_same_number_starts_nothing(url, name):
    first = run(url, name, 5)
    assert run(url, name, 5, objective=lambda *_: pytest.fail("a trial was run")) == first


def test_going_on_keeps_finished_trials_and_draws_new_ones(url, name):
    first = run(url, name, 4)
    both = run(url, name, 8)
    assert both[:4] == first
    assert len({str(trial.values) for trial in both}) == 8  # the sampler's seed does not draw its start again


def test_trial_that_raises_training_error_failed_and_counts(url, name):
    def sometimes(number, values):
        if number == 1:
            raise TrainingError("factors are not finite")
        return hill(number, values)

    trials = run(url, name, 3, sometimes)
    assert [(trial.number, trial.value is None, trial.error) for trial in trials] == [
        (0, False, None), (1, True, "factors are not finite"), (2, False, None),
    ]  # fmt: skip
    assert run(url, name, 3, objective=lambda *_: pytest.fail("the failed trial was run again")) == trials


@pytest.mark.parametrize(
    "stop", [KeyboardInterrupt(), ZeroDivisionError("a bug")], ids=lambda error: type(error).__name__
)
def test_interrupted_trial_ends_the_search_and_is_tried_again_first(url, name, stop):
    def stopped(number, values):
        if number == 2:
            raise stop
        return hill(number, values)

    with pytest.raises(type(stop)):
        run(url, name, 5, stopped)
    study = search.open_study(url, name, 1)
    assert [trial.number for trial in search.finished_trials(study)] == [0, 1]
    lost = study.get_trials()[2].params

    tried = []
    trials = run(url, name, 5, lambda number, values: tried.append(values) or hill(number, values))
    assert tried[0] == lost
    assert len(tried) == 3
    assert len(trials) == 5


KILLED = """
import os, sys
from recsys_spark.infra import search
from test_search import SPACE, START, hill
def objective(number, values):
    if number == 2:
        os._exit(9)
    return hill(number, values)
study = search.open_study(sys.argv[1], sys.argv[2], 1)
search.run_trials(study, SPACE, START, objective, 6, None, 1)
"""


def test_trial_whose_driver_was_killed_is_marked_failed_and_tried_again(url, name):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, url, name],
        check=False,
        timeout=120,
        cwd=Path(__file__).parent,
        capture_output=True,
    )
    assert killed.returncode == 9, killed.stderr
    lost = search.open_study(url, name, 1).get_trials()[2]
    assert lost.state.name == "RUNNING"
    with sqlite3.connect(url.removeprefix("sqlite:///")) as database:  # some time later
        database.execute("UPDATE trial_heartbeats SET heartbeat = '2024-01-01 00:00:00'")

    tried = []
    trials = run(url, name, 4, lambda number, values: tried.append(values) or hill(number, values))
    assert search.open_study(url, name, 1).get_trials()[2].state.name == "FAIL"
    assert tried[0] == lost.params
    assert [trial.number for trial in trials] == [0, 1, 3, 4]


def test_threads_share_one_study(url, name):
    trials = run(url, name, 9, workers=3)
    assert len(trials) == 9
    assert len({str(trial.values) for trial in trials}) == 9


def test_unforeseen_error_of_one_thread_ends_the_search(url, name):
    tried = []

    def broken(number, values):
        tried.append(number)
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        # as many trials as threads, so that nobody waits for a free one; the timeout ends what would go on for ever
        run(url, name, 2, broken, workers=2, timeout=10.0)
    assert len(tried) <= 2


def test_no_trial_starts_after_the_timeout(url, name):
    assert run(url, name, 5, objective=lambda *_: pytest.fail("a trial was run"), timeout=0.0) == []


def test_facts_of_a_study_stay(url, name):
    search.note_facts(search.open_study(url, name, 1), {"study": "what it is about"})
    assert search.study_facts(search.open_study(url, name, 2)) == {"study": "what it is about"}
    assert search.study_facts(search.open_study(url, f"{name} of another", 1)) == {}


@pytest.mark.parametrize(
    "bad", ["no url", "nosuchdb://user:secret@host/studies", "sqlite:////no/such/folder/studies.db"]
)
def test_database_that_cannot_be_opened_is_a_config_error_without_its_password(bad):
    with pytest.raises(ConfigError, match=r"tune\.storage") as error:
        search.open_study(bad, "hills", 1)
    assert "secret" not in str(error.value)
