"""Entry points: `run_job` for jobs/*.py under spark-submit, and the `recsys` command."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from recsys_spark import __version__
from recsys_spark.config import Config
from recsys_spark.config_file import load_config, without_secrets
from recsys_spark.errors import ConfigError, RecsysError
from recsys_spark.log import configure_logging

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from recsys_spark.evaluation.run_results import RunResults

_log = logging.getLogger("recsys_spark.cli")

PIPELINES = (
    "ingest_events", "ingest_items", "build_interactions", "train_popular", "train_neighbours", "train_als", "train_feature_factors",
    "recommend", "evaluate", "merge_late_events", "replay_quarantine", "maintain_tables", "erase_user",
)  # fmt: skip
MAIN_JOB = "main_job"

Pipeline = Callable[["SparkSession", Config, date | None], dict[str, float]]


def run_job(pipeline: Pipeline, arguments: Sequence[str] | None = None) -> None:
    """Run one pipeline as a job and end the process with its exit code: 0, 1, 2 (configuration), 3 (data) or 75 (try again)."""
    parser = argparse.ArgumentParser(description=(pipeline.__doc__ or "").split("\n")[0])
    _add_job_options(parser)
    sys.exit(_guarded(lambda options: _run_pipeline(pipeline, options), parser.parse_args(arguments)))


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected YYYY-MM-DD, found {text!r}") from None


def main(arguments: Sequence[str] | None = None) -> None:
    """The `recsys` command."""
    parser = argparse.ArgumentParser(prog="recsys", description="Recommendations from behaviour logs, on Spark.")
    parser.add_argument("--version", action="version", version=f"recsys_spark {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="the whole line on a year of purchases, or on MovieLens")
    demo.add_argument(
        "--data",
        metavar="ml-1m=FOLDER",
        help="MovieLens in the publisher's layout: ml-100k, ml-1m, ml-10m, ml-20m or ml-25m",
    )
    demo.add_argument(
        "--sample", type=float, default=1.0, metavar="SHARE", help="share of the households, for a shorter demo"
    )
    _add_job_options(demo)
    demo.set_defaults(run=_demo)

    run = commands.add_parser("run", help="one pipeline, or the main job: all of them in order")
    run.add_argument("pipeline", choices=(MAIN_JOB, *PIPELINES))
    _add_job_options(run)
    run.set_defaults(run=_run)

    quarantine = commands.add_parser("quarantine", help="what was quarantined and why, and a second try after a fix")
    quarantine.add_argument("action", choices=("counts", "list", "replay"))
    quarantine.add_argument("--feed", choices=("events", "items"), default="events", help="which quarantine to look at")
    quarantine.add_argument("--reason", help="only lines of this reason")
    quarantine.add_argument("--limit", type=int, default=20, help="list: at most so many lines")
    quarantine.add_argument(
        "--show-lines", action="store_true", help="list: the lines themselves, which may be personal"
    )
    _add_job_options(quarantine)
    quarantine.set_defaults(run=_quarantine)

    migrate = commands.add_parser("migrate", help="move tables of an older version to today's layout, in place")
    _add_job_options(migrate)
    migrate.set_defaults(run=_migrate)

    doctor = commands.add_parser("doctor", help="what is installed, what is missing and how to get it")
    doctor.set_defaults(run=_doctor)

    options = parser.parse_args(arguments)
    sys.exit(_guarded(options.run, options))


def _add_job_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="PATH", help="YAML file with what differs from the defaults")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override one key, for example als.rank=32"
    )
    run_date = "the run date (UTC): the delivery that ingest reads, and the cutoff of everything after it"
    parser.add_argument("--date", type=_date, metavar="YYYY-MM-DD", help=run_date)
    parser.add_argument("-v", "--verbose", action="store_true", help="debug lines, and tracebacks of foreseen errors")
    parser.add_argument("--json-logs", action="store_true", help="log lines as JSON")


def _guarded(run: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Call run and turn errors into exit codes; foreseen ones print one line, others their traceback."""
    verbose = getattr(options, "verbose", False)
    configure_logging(verbose=verbose, json_lines=getattr(options, "json_logs", False))
    try:
        return run(options)
    except RecsysError as error:
        if verbose:
            traceback.print_exc()
        print(f"recsys: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("recsys: interrupted; every write is safe to repeat: run the same command again", file=sys.stderr)
        return 130
    except Exception:  # the last line of defence: the whole traceback is printed
        traceback.print_exc()
        return 1


def _run_pipeline(pipeline: Pipeline, options: argparse.Namespace) -> int:
    config = _logged_config(options)
    with _session(config) as spark:
        pipeline(spark, config, options.date)
    return 0


def _logged_config(options: argparse.Namespace) -> Config:
    config = load_config(options.config, options.set)
    _log.info(
        "config %s", json.dumps(without_secrets(config).model_dump(mode="json", exclude_none=True), ensure_ascii=False)
    )
    return config


def _demo(options: argparse.Namespace) -> int:
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
    with _session(config) as spark:
        results = run_main_job(spark, config, options.date, (notice,))
    print(_summary(config, results))
    return 0


def _run(options: argparse.Namespace) -> int:
    if options.pipeline != MAIN_JOB:
        return _run_pipeline(_pipeline(options.pipeline), options)
    from recsys_spark.main_job import run_main_job

    config = _logged_config(options)
    with _session(config) as spark:
        results = run_main_job(spark, config, options.date)
    print(_summary(config, results))
    return 0


def _quarantine(options: argparse.Namespace) -> int:
    from recsys_spark.data.outcome import conservation_line
    from recsys_spark.pipelines.replay_quarantine import list_lines, quarantine_of, reason_counts, replay_quarantine

    if options.action == "replay" and (options.reason or options.show_lines):
        raise ConfigError("a replay reads every quarantined line again; leave --reason and --show-lines out")
    config = load_config(options.config, options.set)
    with _session(config) as spark:
        if options.action == "replay":
            counts = replay_quarantine(spark, config, options.date)
            print(conservation_line(counts) if counts.get("read") else "nothing is quarantined")
            print(f"left the quarantine: {counts['removed']:,.0f}")
            return 0
        found = quarantine_of(spark, config, options.feed)
        if found is None:
            print("nothing is quarantined")
        elif options.action == "counts":
            print(reason_counts(found, options.reason).to_string(index=False))
        else:
            print(list_lines(found, options.reason, options.limit, options.show_lines).to_string(index=False))
    return 0


def _migrate(options: argparse.Namespace) -> int:
    from recsys_spark.infra.migrate import migrate_tables

    config = _logged_config(options)
    with _session(config) as spark:
        moved = migrate_tables(spark, config)
    for name, (found, now) in moved.items():
        print(f"{name}: version {found} -> {now}")
    print(f"{len(moved)} tables moved" if moved else "every table has today's layout")
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
        parts += ["", metrics_table(results.metrics_pdf, task, k)]
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


def conf_folder() -> Path:
    """Give the folder of the example configs: the checkout's, or the one that the wheel installs."""
    checkout = Path(__file__).resolve().parents[1] / "conf"
    return checkout if checkout.is_dir() else Path(sys.prefix) / "share" / "recsys_spark" / "conf"


def _doctor(_: argparse.Namespace) -> int:
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
