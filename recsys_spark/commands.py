"""What each `recsys` command does, from parsed options to an exit code. Imports of Spark and of pipelines wait until one runs."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from recsys_spark.columns import READ, Protocol
from recsys_spark.config import Config
from recsys_spark.config_file import conf_folder, load_config, without_secrets
from recsys_spark.errors import ConfigError
from recsys_spark.log import configure_logging

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from recsys_spark.evaluation.run_results import RunResults
    from recsys_spark.infra.run_records import Feed

_log = logging.getLogger("recsys_spark.cli")

MAIN_JOB = "main_job"

Pipeline = Callable[["SparkSession", Config, date | None], dict[str, float]]


def run_pipeline(pipeline: Pipeline, options: argparse.Namespace) -> int:
    """Run one pipeline; its numbers are in the log, the tables and MLflow."""
    config = _logged_config(options)
    with _writing_session(config) as spark:
        pipeline(spark, config, options.date)
    return 0


def _logged_config(options: argparse.Namespace) -> Config:
    config = load_config(options.config, options.set)
    _log.info(
        "config %s", json.dumps(without_secrets(config).model_dump(mode="json", exclude_none=True), ensure_ascii=False)
    )
    return config


def demo(options: argparse.Namespace) -> int:
    """Run the whole line on the embedded purchases or on MovieLens, and print what came out."""
    from recsys_spark.demo_data import NOTICE, write_demo_data
    from recsys_spark.main_job import run_main_job

    if sys.stderr.isatty() and not options.verbose:  # there the progress line says what the log lines would
        configure_logging(quiet=True, json_lines=options.json_logs)
    if options.data is not None and options.sample != 1:
        raise ConfigError("--sample is for the embedded data; leave it out beside --data")
    if options.data is not None:
        config, notice = _movielens_config(options), f"MovieLens, as published by GroupLens: {options.data}."
    else:
        folder = "data/demo" if options.sample == 1 else f"data/demo-{options.sample:g}"
        own = [
            f"data_root={folder}",
            f"sources.events.path={folder}/raw/events",
            f"sources.items.path={folder}/raw/items",
        ]
        config, notice = load_config(options.config or conf_folder() / "demo.yaml", [*own, *options.set]), NOTICE
        print(notice, flush=True)
        write_demo_data(Path(folder) / "raw", options.sample)
    with _writing_session(config) as spark:
        results = run_main_job(spark, config, options.date, (notice,))
    print(_summary(config, results))
    return 0


def run(options: argparse.Namespace) -> int:
    """Run one pipeline, or the main job with its summary."""
    if options.pipeline != MAIN_JOB:
        return run_pipeline(_pipeline(options.pipeline), options)
    from recsys_spark.main_job import run_main_job

    config = _logged_config(options)
    with _writing_session(config) as spark:
        results = run_main_job(spark, config, options.date)
    print(_summary(config, results))
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Measure lists of any origin against truth and print tables or JSON."""
    from recsys_spark.evaluate_files import GivenTables, evaluate_files
    from recsys_spark.evaluation.given_lists import GivenColumns

    if not options.verbose:  # the result is the message
        configure_logging(quiet=True, json_lines=options.json_logs)
    config = _logged_config(options)
    names = {
        name: getattr(options, f"{name}_column") for name in ("user", "item", "score", "rank", "model", "category")
    }
    given = GivenTables(
        tuple(options.recommendations), options.truth, options.train, options.items, GivenColumns(**names),
        options.delimiter, options.where,
    )  # fmt: skip
    with _session(config) as spark:
        wanted = config.evaluation.model_copy(update={"k": tuple(dict.fromkeys(options.k))})
        result = evaluate_files(spark, given, wanted)
    print(result.as_json() if options.json else result.as_text())
    return 0


def quarantine(options: argparse.Namespace) -> int:
    """Count, list or replay quarantined lines."""
    from recsys_spark.data.outcome import conservation_line
    from recsys_spark.pipelines.replay_quarantine import list_lines, quarantine_of, reason_counts, replay_quarantine

    if options.action == "replay" and (options.reason or options.show_lines):
        raise ConfigError("a replay reads every quarantined line again; leave --reason and --show-lines out")
    config = load_config(options.config, options.set)
    if options.action == "replay":
        feeds: tuple[Feed, ...] = (options.feed,) if options.feed else ("events", "items")
        with _writing_session(config) as spark:
            counts = replay_quarantine(spark, config, options.date, feeds)
        print(conservation_line(counts) if counts.get(READ) else "nothing is quarantined")
        print(f"left the quarantine: {counts['removed']:,.0f}")
        return 0
    with _session(config) as spark:
        found = quarantine_of(spark, config, options.feed or "events", options.date)
        if found is None:
            print("nothing is quarantined")
        elif options.action == "counts":
            print(reason_counts(found, options.reason).to_string(index=False))
        else:
            print(list_lines(found, options.reason, options.limit, options.show_lines).to_string(index=False))
    return 0


def migrate(options: argparse.Namespace) -> int:
    """Move older tables to today's layout and name those that moved."""
    from recsys_spark.infra.migrate import migrate_tables

    config = _logged_config(options)
    with _session(config) as spark:
        moved = migrate_tables(spark, config)
    for name, (found, now) in moved.items():
        print(f"{name}: version {found} -> {now}")
    print(f"{len(moved)} tables moved" if moved else "every table has today's layout")
    return 0


def tune(options: argparse.Namespace) -> int:
    """Search the settings of one model and print the trials and the best config."""
    from recsys_spark import tune as search

    config = _logged_config(options)
    search.check_search(config, options.model, options.study)  # a wrong space stops before Spark starts
    if options.workers > 1:  # else the jobs of one trial wait for all of another's
        in_turns = config.spark.model_copy(update={"conf": {"spark.scheduler.mode": "FAIR", **config.spark.conf}})
        config = config.model_copy(update={"spark": in_turns})
    with _session(config) as spark:
        result = search.tune(
            spark, config, options.model, options.trials, timeout=options.timeout, workers=options.workers, name=options.study,
            run_date=options.date, file=" --config ".join(options.config or ()) or "the defaults",
        )  # fmt: skip
    print("\n".join([result.table, "", result.best_yaml, f"written to {result.path or 'the MLflow run'}"]))
    return 0


def backtest(options: argparse.Namespace) -> int:
    """Run the models on cuts of the past and print a table per task."""
    from recsys_spark import backtest as windows
    from recsys_spark.evaluation.summary import metrics_table
    from recsys_spark.evaluation.windows import windows_table

    own = [] if options.windows is None else [f"split.windows.count={options.windows}"]
    if own and options.protocol != Protocol.ROLLING_WINDOWS:
        raise ConfigError(f"--windows is for rolling_windows; {options.protocol} cuts the events once")
    options.set = [*options.set, *own]
    config = _logged_config(options)
    with _session(config) as spark:
        result = windows.backtest(spark, config, options.protocol, options.date)
    k, is_rolling = config.evaluation.k[0], options.protocol == Protocol.ROLLING_WINDOWS
    print(f"protocol {result.protocol}")
    for task in config.recommend.tasks:
        table = windows_table if is_rolling else metrics_table
        print(table(result.metrics_pdf, task, k) + "\n")
    return 0


def _summary(config: Config, results: RunResults) -> str:
    from recsys_spark.data.outcome import conservation_line
    from recsys_spark.evaluation.summary import example_table, metrics_table
    from recsys_spark.infra.tracking import tracking_uri
    from recsys_spark.pipelines.evaluate import report_path

    k = config.evaluation.k[0]
    parts = ["", *results.notices, "", "Every line accounted for"]
    parts += [f"  {feed}: {conservation_line(counts)}" for feed, counts in results.conservation.items()]
    tasks = [
        task for task in config.recommend.tasks if task in set(results.metrics_pdf["task"])
    ]  # `again` discovers nothing
    for task in tasks:
        pairs = results.comparisons.get(task, ())
        parts += ["", metrics_table(results.metrics_pdf, task, k, pairs, results.confidence)]
    if results.example is not None:
        best = {task: _best_model(results, task, k) for task in tasks}
        parts += ["", *[example_table(results.example, task, model, k) + "\n" for task, model in best.items()]]
    seconds = sum(results.timings.values())
    parts += [
        f"Report: {report_path(config, results.run_date) or 'in the MLflow run'}",
        f"MLflow: .venv/bin/mlflow ui --backend-store-uri {tracking_uri(config)}   (then open http://127.0.0.1:5000)",
        f"Took {seconds:.0f} s: " + ", ".join(f"{step} {value:.0f}" for step, value in results.timings.items()),
    ]
    return "\n".join(parts)


def _best_model(results: RunResults, task: str, k: int) -> str:
    rows = results.metrics_pdf.query("task == @task and slice == 'all' and metric == 'ndcg' and k == @k")
    return str(rows.loc[rows["value"].idxmax(), "model"])


def _movielens_config(options: argparse.Namespace) -> Config:
    name, separator, folder = options.data.partition("=")
    known = sorted(path.stem for path in conf_folder().glob("ml-*.yaml"))
    if name not in known or not separator or not folder:
        raise ConfigError(f"--data expects NAME=FOLDER with NAME one of {', '.join(known)}; found {options.data!r}")
    if not Path(folder).is_dir():
        raise ConfigError(
            f"--data {options.data}: {folder} is not a folder; unpack the publisher's archive and name its folder"
        )
    published = load_config(conf_folder() / f"{name}.yaml").sources
    own = [f"data_root=data/{name}"]
    for feed in ("events", "items"):
        file = Path(folder) / Path(str(getattr(published, feed).path)).name
        if not file.is_file():
            raise ConfigError(
                f"--data {options.data}: expected the file {file.name} in {folder}, which holds {_some_names(Path(folder))}"
            )
        own.append(f"sources.{feed}.path={json.dumps(str(file.absolute()))}")
    return load_config(options.config or conf_folder() / f"{name}.yaml", [*own, *options.set])


def _some_names(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:10]) + (" ..." if len(names) > 10 else "") or "nothing"


def doctor(_: argparse.Namespace) -> int:
    """Say what is installed and what is missing; 1 where something has to be repaired."""
    from recsys_spark.doctor import check_environment, format_checks, worst

    checks = check_environment()
    print(format_checks(checks))
    return 1 if worst(checks) == "fail" else 0


def _pipeline(name: str) -> Pipeline:
    module = "recsys_spark.main_job" if name == MAIN_JOB else f"recsys_spark.pipelines.{name}"
    pipeline: Pipeline = getattr(import_module(module), name)
    return pipeline


@contextmanager
def _session(config: Config) -> Iterator[SparkSession]:
    from recsys_spark.infra.session import build_session, full_disk_explained

    spark = build_session(config)
    try:
        with full_disk_explained():
            yield spark
    finally:
        spark.stop()


@contextmanager
def _writing_session(config: Config) -> Iterator[SparkSession]:
    """A session for a job that writes rows of users: erasures that happen meanwhile reach those, too."""
    from recsys_spark.infra.erasure_guard import erasures_respected

    with _session(config) as spark, erasures_respected(spark, config):
        yield spark
