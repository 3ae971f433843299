"""Entry points: `run_job` for jobs/*.py under spark-submit, and the `recsys` command."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

from recsys_spark import __version__, commands
from recsys_spark.columns import Protocol
from recsys_spark.errors import RecsysError
from recsys_spark.log import configure_logging

PIPELINES = (
    "ingest_events", "ingest_items", "build_interactions", "train_popular", "train_neighbours", "train_user_neighbours", "train_ease",
    "train_als", "train_feature_factors", "recommend", "evaluate",
    "merge_late_events", "replay_quarantine", "maintain_tables", "erase_user",
)  # fmt: skip
_PROTOCOLS = (Protocol.ROLLING_WINDOWS, Protocol.LEAVE_LAST, Protocol.BY_USER, Protocol.BY_ITEM)


def run_job(pipeline: commands.Pipeline, arguments: Sequence[str] | None = None) -> None:
    """Run one pipeline as a job and end the process with its exit code: 0, 1, 2 (configuration), 3 (data) or 75 (try again)."""
    parser = argparse.ArgumentParser(description=(pipeline.__doc__ or "").split("\n")[0])
    _add_job_options(parser)
    sys.exit(_guarded(lambda options: commands.run_pipeline(pipeline, options), parser.parse_args(arguments)))


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected YYYY-MM-DD, found {text!r}") from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """The `recsys` command."""
    options = recsys_parser().parse_args(arguments)
    sys.exit(_guarded(options.run, options))


def recsys_parser() -> argparse.ArgumentParser:
    """Give the parser of the `recsys` command; `run` among its options is the function to call with them."""
    parser = argparse.ArgumentParser(prog="recsys", description="Recommendations from behaviour logs, on Spark.")
    parser.add_argument("--version", action="version", version=f"recsys_spark {__version__}")
    subcommands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    for add in (
        _add_demo,
        _add_run,
        _add_evaluate,
        _add_quarantine,
        _add_migrate,
        _add_tune,
        _add_backtest,
        _add_doctor,
    ):
        add(subcommands)
    return parser


def _add_demo(subcommands: Any) -> None:
    demo = subcommands.add_parser("demo", help="the whole line on a year of purchases, or on MovieLens")
    demo.add_argument(
        "--data",
        metavar="ml-1m=FOLDER",
        help="MovieLens in the publisher's layout: ml-100k, ml-1m, ml-10m, ml-20m or ml-25m",
    )
    demo.add_argument(
        "--sample", type=float, default=1.0, metavar="SHARE", help="share of the households, for a shorter demo"
    )
    _add_job_options(demo)
    demo.set_defaults(run=commands.demo)


def _add_run(subcommands: Any) -> None:
    run = subcommands.add_parser("run", help="one pipeline, or the main job: all of them in order")
    run.add_argument("pipeline", choices=(commands.MAIN_JOB, *PIPELINES))
    _add_job_options(run)
    run.set_defaults(run=commands.run)


def _add_quarantine(subcommands: Any) -> None:
    quarantine = subcommands.add_parser("quarantine", help="what was quarantined and why, and a second try after a fix")
    quarantine.add_argument("action", choices=("counts", "list", "replay"))
    feed_help = "which quarantine; without it events, and for replay both"
    quarantine.add_argument("--feed", choices=("events", "items"), help=feed_help)
    quarantine.add_argument("--reason", help="only lines of this reason")
    quarantine.add_argument("--limit", type=_positive, default=20, help="list: at most so many lines")
    quarantine.add_argument(
        "--show-lines", action="store_true", help="list: the lines themselves, which may be personal"
    )
    _add_job_options(quarantine)
    quarantine.set_defaults(run=commands.quarantine)


def _add_migrate(subcommands: Any) -> None:
    migrate = subcommands.add_parser("migrate", help="move tables of an older version to today's layout, in place")
    _add_job_options(migrate)
    migrate.set_defaults(run=commands.migrate)


def _add_tune(subcommands: Any) -> None:
    tune = subcommands.add_parser("tune", help="search for the settings of a model that do best on validation")
    tune.add_argument(
        "--model", required=True, help="one of recommend.models; its space is tune.spaces or its own section"
    )
    tune.add_argument(
        "--trials", type=_positive, default=20, metavar="N", help="finished trials that the study shall have"
    )
    tune.add_argument("--timeout", type=float, metavar="SECONDS", help="no trial starts later than this")
    tune.add_argument(
        "--workers", type=_positive, default=1, metavar="N", help="trials at once, in threads of this driver"
    )
    tune.add_argument(
        "--study", metavar="NAME", help="go on with this study; default: that of these settings on this data"
    )
    _add_job_options(tune)
    tune.set_defaults(run=commands.tune)


def _add_backtest(subcommands: Any) -> None:
    backtest = subcommands.add_parser(
        "backtest", help="the models on cuts of the past, with mean and spread over windows"
    )
    backtest.add_argument("--protocol", default=Protocol.ROLLING_WINDOWS, choices=_PROTOCOLS)
    backtest.add_argument(
        "--windows", type=_positive, metavar="N", help="number of rolling windows (split.windows.count)"
    )
    _add_job_options(backtest)
    backtest.set_defaults(run=commands.backtest)


def _add_doctor(subcommands: Any) -> None:
    doctor = subcommands.add_parser("doctor", help="what is installed, what is missing and how to get it")
    doctor.set_defaults(run=commands.doctor)


def _add_evaluate(subcommands: Any) -> None:
    about = "lists of any origin against truth: Parquet, CSV or Delta tables by path or catalog name; needs no configuration"
    command = subcommands.add_parser("evaluate", help=about, description=about)
    command.add_argument(
        "--recommendations", nargs="+", action="extend", required=True, metavar="[NAME=]TABLE",
        help="user_id, item_id, and rank or score; of several models by a column model or in several tables",
    )  # fmt: skip
    command.add_argument("--truth", required=True, metavar="TABLE", help="user_id, item_id: what users had afterwards")
    command.add_argument(
        "--train", metavar="TABLE", help="user_id, item_id: what they had before; adds coverage, novelty, slices"
    )
    command.add_argument(
        "--items", metavar="TABLE", help="item_id, category; adds diversity and, with --train, calibration"
    )
    command.add_argument(
        "-k",
        nargs="+",
        type=_positive,
        default=[10],
        metavar="K",
        help="list lengths; models are compared at the first",
    )
    for name in ("user", "item", "score", "rank", "model", "category"):
        default = f"{name}_id" if name in ("user", "item") else name
        command.add_argument(f"--{name}-column", default=default, metavar="NAME", help=f"instead of {default}")
    command.add_argument("--delimiter", help="of CSV files; default: a comma, in .tsv a tab")
    command.add_argument("--where", metavar="SQL", help="keep only rows of the recommendations for which this holds")
    command.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    _add_job_options(command, with_date=False)
    command.set_defaults(run=commands.evaluate)


def _add_job_options(parser: argparse.ArgumentParser, with_date: bool = True) -> None:
    parser.add_argument(
        "--config",
        action="append",
        metavar="PATH",
        help="YAML file with what differs from the defaults; of several later ones win",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override one key, for example als.rank=32"
    )
    if with_date:
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
