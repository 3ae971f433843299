"""`recsys backtest`: the models on cuts of the past, by rolling windows or by another protocol."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.columns import METRIC, MODEL, PROTOCOL, RUN_DATE, RUN_ID, SLICE, TASK, VALUE, K, Protocol
from recsys_spark.config import Config
from recsys_spark.config_file import dump_config, flatten_config, without_secrets
from recsys_spark.data.interactions import counted_events
from recsys_spark.data.split import count_events_per_day, events_before, events_between
from recsys_spark.data.splitters import by_item, by_user, leave_last_k, rolling_windows
from recsys_spark.errors import DataError
from recsys_spark.evaluation.evaluate import truth_pairs
from recsys_spark.evaluation.run_results import ALL_USERS
from recsys_spark.evaluation.windows import MEAN, SD, spread_over_windows
from recsys_spark.folds import Fold, build_base, fill_scratch, input_versions, run_models
from recsys_spark.infra import tables, tracking
from recsys_spark.infra.scratch import scratch_root
from recsys_spark.infra.session import persisted
from recsys_spark.log import log_step


@dataclass(frozen=True)
class BacktestResult:
    """The metrics of every window; protocols without windows have one."""

    protocol: str
    """As it is stored, with its k."""
    metrics_pdf: pd.DataFrame
    """Columns as in the table metrics."""


def backtest(
    spark: SparkSession, config: Config, protocol: str = Protocol.ROLLING_WINDOWS, end: date | None = None
) -> BacktestResult:
    """Run the line up to the metrics on each cut of the events before `end` (left out; null: after the last event).

    Nothing that other jobs read is changed but the table metrics, where rows of the same protocol and dates are replaced. One
    MLflow run holds mean and spread, its children hold the windows. Raises DataError when the events are too few, or when a
    cut would leak.
    """
    versions = input_versions(spark, config)
    events = tables.read_table(spark, config, "events", made_by="ingest_events", version=versions.get("events"))
    name = protocol_name(config, protocol)
    with log_step("backtest", protocol=name) as facts:
        tags = {"protocol": name, **{f"delta.{table}": str(version) for table, version in versions.items()}}
        run_id = tracking.start_run(config, f"backtest {name}", flatten_config(without_secrets(config)), tags)
        measured = []
        with tracking.closed_on_error(config, run_id):
            for fold in folds_of(events, config, protocol, end):
                with log_step("backtest_window", cutoff=fold.cutoff):
                    measured.append(_run_fold(spark, config, fold, versions, name, run_id))
        metrics_pdf = pd.concat(measured, ignore_index=True)
        texts = {"metrics.csv": metrics_pdf.to_csv(index=False), "config.yaml": dump_config(without_secrets(config))}
        tracking.finish_run(config, run_id, _spread_metrics(metrics_pdf), texts)
        facts["windows"] = len(measured)
    return BacktestResult(name, metrics_pdf)


def protocol_name(config: Config, protocol: str) -> str:
    """Give the name under which a protocol's numbers are stored: it says how many last events are truth."""
    names = {
        Protocol.LEAVE_LAST: f"{Protocol.LEAVE_LAST}_{config.split.leave_last}",
        Protocol.BY_USER: f"{Protocol.BY_USER}_last_{config.split.leave_last}",
    }
    return names.get(protocol, protocol)


def folds_of(events: DataFrame, config: Config, protocol: str, end: date | None) -> Iterator[Fold]:
    """Cut the events before `end` (null: all) as the protocol says, windows in the order of time. Runs a Spark job."""
    days = [day for day in count_events_per_day(events) if end is None or day < end]
    if not days:
        raise DataError(
            f"there are no events before {end or 'today'}; check --date, or run jobs/ingest_events.py first"
        )
    first, end = min(days), end or max(days) + timedelta(days=1)
    counted = counted_events(events, config.interactions)
    if protocol == Protocol.ROLLING_WINDOWS:
        for window in rolling_windows(first, end, config.split.windows):
            days_of_train = (window.train_start or first, window.cutoff)
            yield Fold(
                protocol=protocol, cutoff=window.cutoff, train=events_between(events, *days_of_train), train_days=days_of_train,
                test=events_between(counted, window.truth_start, window.truth_end), past=events_before(counted, window.truth_start),
            )  # fmt: skip
        return
    yield _fold_without_time(events_before(counted, end), config, protocol, end)


def _fold_without_time(counted: DataFrame, config: Config, protocol: str, end: date) -> Fold:
    """The cuts that are not by date take counted events only: a search of the last day would tell of the day's purchase."""
    split = config.split
    if protocol == Protocol.LEAVE_LAST:
        train, test = leave_last_k(counted, split.leave_last)
        return Fold(protocol=protocol, cutoff=end, train=train, test=test, past=train)
    if protocol == Protocol.BY_ITEM:
        train, test = by_item(counted, split.held_out_share, split.seed)
        return Fold(protocol=protocol, cutoff=end, train=train, test=test, past=train)
    if protocol == Protocol.BY_USER:
        parts = by_user(counted, split.held_out_share, split.seed, split.leave_last)
        return Fold(
            protocol=protocol,
            cutoff=end,
            train=parts.train,
            test=parts.truth,
            past=parts.history,
            history=parts.history,
        )
    raise ValueError(f"protocol {protocol!r} is none of rolling windows, last events, users and items")


def _run_fold(
    spark: SparkSession, config: Config, fold: Fold, versions: dict[str, int], protocol: str, parent: str
) -> pd.DataFrame:
    """Run one cut in a scratch root; its metrics go to the table and to a child run."""
    truth = truth_pairs(fold.past, fold.test, config.recommend.tasks)
    with scratch_root(spark, config, f"backtest-{protocol}") as scratch, persisted(truth) as truth:
        fill_scratch(spark, config, scratch, fold, versions)
        build_base(spark, scratch, fold.cutoff, truth)
        metrics_pdf = run_models(spark, scratch, fold.cutoff, truth, fold.history)
    run_id = tracking.log_child_run(
        config, parent, f"{protocol} {fold.cutoff}", {"cutoff": str(fold.cutoff)}, _named_values(metrics_pdf, VALUE)
    )
    metrics_pdf = metrics_pdf.assign(**{RUN_ID: run_id, PROTOCOL: protocol})
    rows = spark.createDataFrame(metrics_pdf).withColumn(RUN_DATE, F.lit(fold.cutoff))
    tables.replace_partition(spark, config, "metrics", rows, {RUN_DATE: fold.cutoff, PROTOCOL: protocol})
    return metrics_pdf.assign(**{RUN_DATE: fold.cutoff})


def _spread_metrics(metrics_pdf: pd.DataFrame) -> dict[str, float]:
    spread = spread_over_windows(metrics_pdf)
    means = _named_values(spread, MEAN)
    return means | {f"{name}.{SD}": value for name, value in _named_values(spread.dropna(), SD).items()}


def _named_values(pdf: pd.DataFrame, column: str) -> dict[str, float]:
    rows = pdf[pdf[SLICE] == ALL_USERS].to_dict("records")
    return {f"{row[TASK]}.{row[MODEL]}.{row[METRIC]}_at_{row[K]}": float(row[column]) for row in rows}
