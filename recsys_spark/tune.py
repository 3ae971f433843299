"""`recsys tune`: search for the settings of one model whose lists do best in the validation period."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from recsys_spark.columns import CI_HIGH, CI_LOW, METRIC, SLICE, VALUE, K, Protocol, Task
from recsys_spark.config import Config
from recsys_spark.config_file import flatten_config, with_values, without_secrets
from recsys_spark.data.interactions import counted_events
from recsys_spark.data.split import count_events_per_day, events_before, events_between, split_dates
from recsys_spark.errors import ConfigError, DataError, TrainingError
from recsys_spark.evaluation.evaluate import truth_pairs
from recsys_spark.evaluation.run_results import ALL_USERS
from recsys_spark.folds import Fold, build_base, fill_scratch, input_versions, run_models
from recsys_spark.infra import search, tables, tracking
from recsys_spark.infra.scratch import scratch_root
from recsys_spark.infra.session import persisted
from recsys_spark.log import key_values, log_step
from recsys_spark.search_space import Space, space_of, values_now
from recsys_spark.study import Study, best_trial, best_yaml, settings_hash, study_of_json, trials_table

_log = logging.getLogger(__name__)

_STUDY, _RUN_ID = "study", "mlflow_run_id"
_NAME = re.compile(r"[\w-][\w.-]*", re.ASCII)  # it becomes a folder


@dataclass(frozen=True)
class TuneResult:
    """What a search shows."""

    study: str
    table: str
    best_yaml: str
    path: Path | None
    """Where best.yaml lies; null when the data root is no local folder (it is in the MLflow run then)."""


@dataclass(frozen=True)
class _OpenStudy:
    """A study with its trials in Optuna's database and its MLflow run, which whoever goes on with it adds to."""

    name: str
    study: Study
    trials: Any
    run_id: str


@dataclass
class _Worker:
    """A scratch root, whether it holds the fold, and the settings that what all trials share was made with."""

    scratch: Config
    pool: str
    is_filled: bool = False
    base: tuple[Any, ...] | None = None


def check_search(config: Config, model: str, name: str | None = None) -> Space:
    """Give the space of a model; ConfigError when it cannot be searched as asked. Needs no Spark."""
    if name is not None and not _NAME.fullmatch(name):
        raise ConfigError(f"--study expects letters, digits, '_', '-' and '.', found {name!r}")
    if model == "again" and config.tune.task == Task.DISCOVERY:
        raise ConfigError("again recommends what users had, so it has no lists for discovery; set tune.task to next")
    if _k(config) > config.recommend.k:
        raise ConfigError(f"tune.k asks for {config.tune.k} items but lists hold recommend.k = {config.recommend.k}")
    if config.tune.storage is None and not config.is_local:
        raise ConfigError(
            f"data_root {config.data_root} is no local folder, so the study cannot live below it; set tune.storage"
        )
    return space_of(config, model)


def tune(
    spark: SparkSession, config: Config, model: str, trials: int = 20, *, timeout: float | None = None, workers: int = 1,
    name: str | None = None, run_date: date | None = None, file: str = "the defaults",
) -> TuneResult:  # fmt: skip
    """Run trials until the study has so many finished ones, then write the best settings as YAML.

    A trial learns from the events before the run date (null: validation_start) and is judged by those from there to
    test_start. Without a name the study is that of these settings on this data, so that the same command goes on with it; a
    named one goes on with the data it was begun with. `file` is what the YAML says it differs from. Raises ConfigError when
    a study of that name has other settings, DataError without truth, TrainingError when every trial failed.
    """
    space = check_search(config, model, name)
    opened = _opened(config, _study(spark, config, model, space, run_date), name)
    with log_step("tune", study=opened.name) as facts, tracking.closed_on_error(config, opened.run_id):
        with _fold(spark, config, opened.study) as (fold, truth), _workers(spark, config, opened.name, workers) as free:

            def trial(number: int, values: dict[str, Any]) -> search.Measured:
                worker = free.get()
                try:
                    with _tracked(config, opened, number, values) as measured:
                        measured.update(_measure(spark, config, opened.study, values, worker, fold, truth))
                finally:
                    free.put(worker)
                return search.Measured(measured.pop(VALUE), measured)

            search.run_trials(opened.trials, space, values_now(config, space), trial, trials, timeout, workers)
        found = search.finished_trials(opened.trials)
        facts["trials"] = len(found)
        result = _result(config, opened, found, space, file)
        tracking.finish_run(config, opened.run_id, {}, {"best.yaml": result.best_yaml, "trials.txt": result.table})
    return result


def _study(spark: SparkSession, config: Config, model: str, space: Space, run_date: date | None) -> Study:
    events = tables.read_table(spark, config, "events", made_by="ingest_events")
    dates = split_dates(count_events_per_day(events), config.split)
    cutoff = run_date or dates.validation_start
    if cutoff >= dates.test_start:
        raise ConfigError(
            f"a search from {cutoff} on would be judged by test, which begins on {dates.test_start}; give a date before it"
        )
    return Study(
        model=model, task=config.tune.task, metric=config.tune.metric, k=_k(config), cutoff=cutoff,
        truth_end=dates.truth_end(cutoff), versions=input_versions(spark, config), settings=settings_hash(config, space),
    )  # fmt: skip


def _opened(config: Config, asked: Study, name: str | None) -> _OpenStudy:
    """Open the study of that name as what it was begun as; one that is new begins as what is asked."""
    name = name or asked.name
    trials = search.open_study(_storage(config), name, config.tune.seed)
    facts = search.study_facts(trials)
    begun = study_of_json(facts[_STUDY]) if _STUDY in facts else asked
    goals = [(study.model, study.task, study.metric, study.k, study.settings) for study in (begun, asked)]
    if goals[0] != goals[1]:
        raise ConfigError(
            f"study {name} was begun for {begun.model}, {begun.task}, {begun.metric} at {begun.k} with settings {begun.settings}; "
            f"found {asked.model}, {asked.task}, {asked.metric} at {asked.k} with {asked.settings}, whose trials cannot be compared "
            "with its own; go on with the config that it was begun with, or give another --study"
        )
    if _RUN_ID not in facts:
        versions = {f"delta.{table}": str(version) for table, version in begun.versions.items()}
        run_id = tracking.start_run(config, f"tune {name}", flatten_config(without_secrets(config)), versions)
        facts = {_STUDY: begun.as_json(), _RUN_ID: run_id}
        search.note_facts(trials, facts)
    return _OpenStudy(name, begun, trials, facts[_RUN_ID])


@contextmanager
def _fold(spark: SparkSession, config: Config, study: Study) -> Iterator[tuple[Fold, DataFrame]]:
    """The events cut as the study says, at its Delta version, and the truth of its task."""
    events = tables.read_table(spark, config, "events", made_by="ingest_events", version=study.versions["events"])
    test = counted_events(events_between(events, study.cutoff, study.truth_end), config.interactions)
    past = counted_events(events_before(events, study.cutoff), config.interactions)
    fold = Fold(
        protocol=Protocol.GLOBAL_TIME_SPLIT, cutoff=study.cutoff, train=events_before(events, study.cutoff), test=test, past=past,
        train_days=(None, study.cutoff),
    )  # fmt: skip
    with persisted(truth_pairs(past, test, (study.task,))) as truth:
        if truth.isEmpty():
            raise DataError(
                f"no user took anything for the task {study.task} from {study.cutoff} to {study.truth_end}, so no trial can be judged; "
                "check split.validation_start, split.test_start and --date"
            )
        yield fold, truth


@contextmanager
def _workers(spark: SparkSession, config: Config, name: str, number: int) -> Iterator[SimpleQueue[_Worker]]:
    with ExitStack() as stack:
        free: SimpleQueue[_Worker] = SimpleQueue()
        for i in range(number):
            free.put(_Worker(stack.enter_context(scratch_root(spark, config, f"tune-{name}")), f"tune-{i}"))
        yield free


@contextmanager
def _tracked(config: Config, opened: _OpenStudy, number: int, values: dict[str, Any]) -> Iterator[dict[str, float]]:
    """Time a trial, log it, and make it a child run of the study's; the dict takes what it measured."""
    measured: dict[str, float] = {}
    start = time.perf_counter()
    is_failed = True
    try:
        yield measured
        is_failed = False
    finally:
        measured["seconds"] = time.perf_counter() - start
        goal = f"{opened.study.metric}_at_{opened.study.k}"
        params = {key: str(value) for key, value in values.items()}
        metrics = {goal if key == VALUE else key: found for key, found in measured.items()}
        tracking.log_child_run(config, opened.run_id, f"trial {number}", params, metrics, is_failed)
        _log.info("trial %s", key_values({"number": number, "failed": is_failed, **measured, **values}))


def _measure(
    spark: SparkSession, config: Config, study: Study, values: dict[str, Any], worker: _Worker, fold: Fold, truth: DataFrame
) -> dict[str, float]:  # fmt: skip
    """Learn and measure with one choice of values; what depends on other settings only is kept from trial to trial."""
    spark.sparkContext.setLocalProperty("spark.scheduler.pool", worker.pool)
    try:
        chosen = with_values(config, values, origin="this trial")
    except ConfigError as error:  # each value is good by itself, as `check_search` saw; together they are not
        raise TrainingError(str(error)) from error
    trial = _narrowed(chosen, study, worker.scratch)
    if not worker.is_filled:
        fill_scratch(spark, config, worker.scratch, fold, study.versions)
        worker.is_filled = True
    base = (trial.interactions, trial.cleaning, trial.popular)
    if worker.base != base:
        worker.base = None
        build_base(spark, trial, study.cutoff, truth)
        worker.base = base
    metrics_pdf = run_models(spark, trial, study.cutoff, truth)
    is_goal = (metrics_pdf[SLICE] == ALL_USERS) & (metrics_pdf[METRIC] == study.metric) & (metrics_pdf[K] == study.k)
    row = metrics_pdf[is_goal].iloc[0]
    return {name: float(row[name]) for name in (VALUE, CI_LOW, CI_HIGH)}


def _narrowed(config: Config, study: Study, scratch: Config) -> Config:
    """One model, one task and one k, in a scratch root."""
    recommend = config.recommend.model_copy(update={"models": (study.model,), "tasks": (study.task,), "k": study.k})
    evaluation = config.evaluation.model_copy(update={"k": (study.k,), "example_user": None})
    where = {"data_root": scratch.data_root, "tables": scratch.tables}
    return config.model_copy(update={"recommend": recommend, "evaluation": evaluation, **where})


def _result(config: Config, opened: _OpenStudy, trials: list[search.Trial], space: Space, file: str) -> TuneResult:
    """Write best.yaml and trials.txt below the data root, where that is a local folder."""
    if best_trial(trials) is None:
        errors = "; ".join(sorted({str(trial.error) for trial in trials})[:3]) or "none was finished in time"
        raise TrainingError(
            f"study {opened.name} has no trial with a value: {errors}; change the space, or give it more time"
        )
    now = values_now(config, space)
    text = best_yaml(opened.study, opened.name, trials, now, config.evaluation.confidence, file)
    table = trials_table(opened.study, trials, space)
    folder = None if not config.is_local else Path(config.data_root).absolute() / "tune" / opened.name
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "best.yaml").write_text(text, encoding="utf-8")
        (folder / "trials.txt").write_text(table + "\n", encoding="utf-8")
    return TuneResult(opened.name, table, text, folder and folder / "best.yaml")


def _storage(config: Config) -> str:
    if config.tune.storage is not None:
        return config.tune.storage
    folder = Path(config.data_root).absolute() / "tune"
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'studies.db'}"


def _k(config: Config) -> int:
    return config.tune.k or config.evaluation.k[0]
