"""The only code that talks to Optuna: a study in a database, whose trials several threads and drivers may run."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from threading import Event, Lock
from typing import Any, NamedTuple

from recsys_spark.config_tune import ParameterConfig
from recsys_spark.errors import ConfigError, DataError, ModelError, TrainingError

try:
    import optuna
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
    from optuna.trial import TrialState
    from sqlalchemy.exc import SQLAlchemyError
except ModuleNotFoundError as error:
    raise ConfigError(
        f"recsys tune needs the package {error.name}; install it with the extra: recsys_spark[tune]"
    ) from error

HEARTBEAT_SECONDS = 15
GRACE_SECONDS = 60
"""A trial whose driver gave no sign of life for so long is lost: it is marked failed and tried again."""
MAX_RETRIES = 3
"""A trial that takes its driver down each time is given up after so many further tries."""

# What a trial's own values can cause. Anything else (a lost database, a bug) ends the search, which can be gone on with.
_TRIAL_ERRORS = (DataError, ModelError, TrainingError)
_ERROR = "error"


class Measured(NamedTuple):
    """What a trial found: the value to make large, and numbers to keep beside it."""

    value: float
    facts: dict[str, float]


@dataclass(frozen=True)
class Trial:
    """A finished trial. value is null when it failed, error then says why."""

    number: int
    values: dict[str, Any]
    value: float | None
    facts: dict[str, float]
    error: str | None


class _Study(optuna.Study):
    """A study whose threads are handed trials one after the other: SQLite has no lock by which Optuna could give one out once."""

    def __init__(self, name: str, storage: RDBStorage, sampler: optuna.samplers.BaseSampler | None = None) -> None:
        super().__init__(name, storage, sampler)
        self._handing_out = Lock()

    def ask(self, *args: Any, **kwargs: Any) -> optuna.Trial:
        """Give the next trial."""
        with self._handing_out:
            return super().ask(*args, **kwargs)


def open_study(url: str, name: str, seed: int | None) -> optuna.Study:
    """Open a study, or make it where the database has none of that name. Larger values are better.

    A trial without a heartbeat is noticed while others start. Raises ConfigError when the database cannot be used; the URL,
    which may hold a password, is not shown.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # our own log has a line for every trial
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            storage = RDBStorage(
                url, engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite:") else None,
                heartbeat_interval=HEARTBEAT_SECONDS, grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRIES),
            )  # fmt: skip
        optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        study = _Study(name, storage)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise ConfigError(
            f"tune.storage: expected a database that SQLAlchemy can open, found {type(error).__name__}; check the URL and its driver"
        ) from error
    # the same seed again would draw the same start again: each resumption goes on from another one
    study.sampler = optuna.samplers.TPESampler(
        seed=None if seed is None else seed + len(study.trials), constant_liar=True
    )
    return study


def study_facts(study: optuna.Study) -> dict[str, str]:
    """Give what was noted about the study as a whole."""
    return dict(study.user_attrs)


def note_facts(study: optuna.Study, facts: Mapping[str, str]) -> None:
    """Note something about the study as a whole, for whoever goes on with it."""
    for key, value in facts.items():
        study.set_user_attr(key, value)


def run_trials(
    study: optuna.Study, space: Mapping[str, ParameterConfig], start: Mapping[str, Any],
    objective: Callable[[int, dict[str, Any]], Measured], trials: int, timeout: float | None, workers: int,
) -> None:  # fmt: skip
    """Call objective(number, values) until the study has so many finished trials, in `workers` threads.

    The first trial takes the values of start. A trial that raises DataError, ModelError or TrainingError has failed and counts;
    one that was lost with its driver, or was interrupted, does not count and is tried again first. timeout (seconds): no trial
    starts later. Several drivers may work on one study; together they may finish a few trials more than asked.
    """
    study.enqueue_trial(dict(start), skip_if_exists=True)
    _requeue_interrupted(study)
    end = None if timeout is None else time.monotonic() + timeout

    def run(trial: optuna.Trial) -> float:
        values = {key: _suggested(trial, key, parameter) for key, parameter in space.items()}
        try:
            measured = objective(trial.number, values)
        except _TRIAL_ERRORS as error:
            trial.set_user_attr(_ERROR, str(error))
            raise
        for name, fact in measured.facts.items():
            trial.set_user_attr(name, fact)
        return measured.value

    # one round finishes fewer than asked when a trial that was lost came to light meanwhile
    while (missing := trials - len(finished_trials(study))) > 0 and (end is None or time.monotonic() < end):
        _run_round(study, run, missing, trials, end, min(workers, missing))


def _run_round(
    study: optuna.Study, run: Callable[[optuna.Trial], float], missing: int, trials: int, end: float | None, workers: int
) -> None:  # fmt: skip
    """Start so many trials in so many threads; an error that is not a trial's own stops all of them and is raised.

    Not by Optuna's own threads (n_jobs): they drop what the last trials raise, and the search would go on for ever.
    """
    left, lock, is_stopped = iter(range(missing)), Lock(), Event()

    def has_next() -> bool:
        is_over = is_stopped.is_set() or (end is not None and time.monotonic() >= end)
        with lock:
            return not is_over and len(finished_trials(study)) < trials and next(left, None) is not None

    def work() -> None:
        try:
            while has_next():
                study.optimize(run, n_trials=1, catch=_TRIAL_ERRORS)
        except BaseException:
            is_stopped.set()
            raise

    if workers == 1:  # in the main thread, where an interruption from the keyboard arrives
        work()
        return
    with ThreadPoolExecutor(workers) as threads:
        try:
            for done in as_completed([threads.submit(work) for _ in range(workers)]):
                done.result()
        finally:
            is_stopped.set()


def finished_trials(study: optuna.Study) -> list[Trial]:
    """Give the trials that ended with a value or with an error of their own, in the order of their numbers."""
    return [
        Trial(
            number=trial.number,
            values=dict(trial.params),
            value=trial.value if trial.state == TrialState.COMPLETE else None,
            facts={key: fact for key, fact in trial.user_attrs.items() if key != _ERROR},
            error=trial.user_attrs.get(_ERROR),
        )
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
        if trial.state == TrialState.COMPLETE or _ERROR in trial.user_attrs
    ]


def _requeue_interrupted(study: optuna.Study) -> None:
    """Queue again what ended without a value and without an error of its own: interrupted, or stopped by something outside."""
    trials = study.get_trials(deepcopy=False)
    retried = {number for trial in trials for number in trial.system_attrs.get("retry_history", ())}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        retry = RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRIES)
    for trial in trials:
        if trial.state == TrialState.FAIL and _ERROR not in trial.user_attrs and trial.number not in retried:
            retry(study, trial)


def _suggested(trial: optuna.Trial, key: str, parameter: ParameterConfig) -> Any:
    if parameter.choices is not None:
        return trial.suggest_categorical(key, parameter.choices)
    assert parameter.low is not None
    assert parameter.high is not None
    if parameter.is_whole:
        return trial.suggest_int(
            key, int(parameter.low), int(parameter.high), step=int(parameter.step or 1), log=parameter.log
        )
    return trial.suggest_float(key, parameter.low, parameter.high, step=parameter.step, log=parameter.log)
