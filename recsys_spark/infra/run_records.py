"""The record of an ingest run: judged by the checks, kept in the table ingest_runs, shown to the log, Prometheus and MLflow."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.columns import (
    COUNTS,
    FEED,
    FIELDS,
    IS_WRITTEN,
    READ,
    RUN_DATE,
    SOURCE,
    STARTED_AT,
    TIMESTAMP,
    UPDATED_AT,
)
from recsys_spark.config import Config
from recsys_spark.config_checks import FeedChecksConfig
from recsys_spark.config_sources import SourceConfig
from recsys_spark.data import checks
from recsys_spark.data.checks import BatchProfile, CheckResult, PastRun
from recsys_spark.data.profile import profile_lines, to_profile
from recsys_spark.errors import ConfigError, DataError, RecsysError
from recsys_spark.infra import ingest_gauges, prometheus, tables, tracking
from recsys_spark.log import key_values
from recsys_spark.schemas import INGEST_RUNS

_log = logging.getLogger(__name__)

Feed = Literal["events", "items"]
_TABLE = "ingest_runs"


@dataclass
class RunRecord:
    """What is known of a run so far; `recorded` makes it and keeps it at the end."""

    spark: SparkSession
    config: Config
    feed: Feed
    run_date: date | None
    ingest_run: str
    started_at: datetime
    is_replay: bool = False
    profile: BatchProfile | None = None
    counts: dict[str, float] = field(default_factory=dict)
    results: list[CheckResult] = field(default_factory=list)
    is_written: bool = False

    @property
    def source(self) -> SourceConfig:
        """The feed's source."""
        return self.config.sources.events if self.feed == "events" else self.config.sources.items

    @property
    def label(self) -> str:
        """The feed as records name it. A replay has a name of its own: it is no delivery to compare others with."""
        return f"{self.feed}_replay" if self.is_replay else self.feed

    @property
    def limits(self) -> FeedChecksConfig:
        """The feed's checks; none for a replay, whose lines were judged as they came."""
        if self.is_replay:
            return FeedChecksConfig()
        return self.config.checks.events if self.feed == "events" else self.config.checks.items


def _utc_now() -> datetime:
    return datetime.now(UTC)


def new_run(source: str, run_date: date | None) -> str:
    """Give the name of a new run: source, run date (or `all`) and eight random hex digits."""
    return f"{source}-{run_date or 'all'}-{uuid.uuid4().hex[:8]}"


@contextmanager
def recorded(
    spark: SparkSession, config: Config, feed: Feed, run_date: date | None, ingest_run: str, is_replay: bool = False,
    now: Callable[[], datetime] = _utc_now,
) -> Iterator[RunRecord]:  # fmt: skip
    """Keep a record of what happens inside: one row in ingest_runs, a log line, and what the config asks for besides.

    now is asked at both ends; nothing else knows the wall clock. A run that one of our own errors stops is kept as failed, and
    the error goes on; not so a ConfigError, which no delivery is to blame for. Raises ConfigError before anything is read when
    monitoring.prometheus_dir cannot be written.
    """
    if config.monitoring.prometheus_dir is not None:
        prometheus.check_folder(config.monitoring.prometheus_dir)
    record = RunRecord(spark, config, feed, run_date, ingest_run, now(), is_replay)
    try:
        yield record
    except ConfigError:
        raise
    except RecsysError as error:
        try:
            _keep(record, "failed", now())
        except Exception as second:  # the first error says what to do; this one must not take its place
            error.add_note(f"the run could not be recorded either: {second}")
            _log.warning("ingest_run_not_recorded run=%s error=%s", ingest_run, type(second).__name__)
        raise
    _keep(record, "ok" if checks.worst_level(record.results) == "ok" else "warned", now())


def profile_batch(record: RunRecord, batch: DataFrame) -> dict[str, float]:
    """Count the lines of a batch, as `outcome.bucket_counts` does, and what the configured checks need besides, in one pass."""
    has_fields = record.limits.needs_fields
    timestamp = TIMESTAMP if record.feed == "events" else UPDATED_AT
    rows = profile_lines(batch, timestamp, record.run_date, tuple(record.source.columns) if has_fields else None)
    record.profile = to_profile(rows.collect(), record.source, has_fields)
    record.counts = {**record.profile.counts, READ: record.profile.read}
    return dict(record.profile.counts)


def check_batch(record: RunRecord) -> None:
    """Judge the batch before it is written. A warning is a log line; DataError for a limit that fails."""
    profile = _profile(record)
    history = _history(record) if record.limits.needs_history else []
    results = checks.check_batch(profile, history, record.run_date, record.limits, record.feed)
    _report(record, results, f"no {record.feed} were written, only quarantined lines; run again when that is done")


def check_written(record: RunRecord, counts: Mapping[str, float]) -> None:
    """Judge what only the table could tell, when everything is written and counted. Raises and warns as `check_batch` does."""
    record.counts |= counts
    record.is_written = True
    results = checks.check_written(_profile(record), counts, record.limits, record.feed)
    _report(record, results, f"the {record.feed} of this run are written; a rerun is safe: it adds nothing twice")


def _report(record: RunRecord, results: list[CheckResult], state: str) -> None:
    record.results += results
    for result in results:
        if result.level == "warn":
            _log.warning("source %r: %s", record.source.name, result.message)
    failed = [result.message for result in results if result.level == "fail"]
    if failed:
        raise DataError(f"source {record.source.name!r}: {' | '.join(failed)}; {state}")


def _history(record: RunRecord) -> list[PastRun]:
    """Read the runs of this feed that wrote their lines: of the weeks before the run date, or all without one."""
    if not tables.table_exists(record.spark, record.config, _TABLE):
        return []
    runs = tables.read_table(record.spark, record.config, _TABLE, made_by=f"ingest_{record.feed}")
    runs = runs.where((F.col(SOURCE) == record.source.name) & (F.col(FEED) == record.feed) & F.col(IS_WRITTEN))
    if record.run_date is None:
        runs = runs.where(F.col(RUN_DATE).isNull()).orderBy(F.col(STARTED_AT).desc()).limit(record.limits.drift_runs)
    else:
        first = record.run_date - timedelta(weeks=record.limits.volume_weeks)
        runs = runs.where((F.col(RUN_DATE) >= F.lit(first)) & (F.col(RUN_DATE) < F.lit(record.run_date)))
    rows = runs.select(RUN_DATE, F.unix_micros(STARTED_AT).alias(STARTED_AT), COUNTS, FIELDS).collect()
    return [
        PastRun(row[RUN_DATE], datetime.fromtimestamp(0, UTC) + timedelta(microseconds=row[STARTED_AT]), row[COUNTS][READ], row[FIELDS])
        for row in rows
    ]  # fmt: skip


def _keep(record: RunRecord, status: ingest_gauges.Status, finished_at: datetime) -> None:
    seconds = (finished_at - record.started_at).total_seconds()
    levels = {result.name: result.level for result in record.results}
    facts = {
        "source": record.source.name, "run": record.ingest_run, "status": status, "is_written": record.is_written, **record.counts,
        **{f"check.{name}": level for name, level in levels.items()},
    }  # fmt: skip
    _log.info("ingest_run feed=%s seconds=%.1f %s", record.label, seconds, key_values(facts))
    _write_row(record, status, finished_at, seconds)
    if record.config.monitoring.prometheus_dir is not None:
        _write_gauges(record, status, finished_at, seconds, record.config.monitoring.prometheus_dir)
    if record.config.tracking.log_ingest:
        _log_to_mlflow(record, status, seconds)


def _write_row(record: RunRecord, status: str, finished_at: datetime, seconds: float) -> None:
    profile = record.profile
    row = (
        record.ingest_run, record.source.name, record.label, record.run_date, record.started_at, finished_at, seconds, status,
        record.is_written, {name: float(value) for name, value in record.counts.items()},
        profile.field_shares() if profile else {}, {result.name: result.level for result in record.results},
        profile.first if profile else None, profile.last if profile else None,
    )  # fmt: skip
    rows = record.spark.createDataFrame([row], INGEST_RUNS)
    tables.append_rows(record.spark, record.config, _TABLE, rows)


def _write_gauges(
    record: RunRecord, status: ingest_gauges.Status, finished_at: datetime, seconds: float, folder: str
) -> None:
    labels = {"feed": record.label, "source": record.source.name}
    newest = record.profile.newest if record.profile else None
    levels = {result.name: result.level for result in record.results}
    gauges = ingest_gauges.run_gauges(labels, record.counts, levels, status, seconds, finished_at, newest)
    name = f"{record.label}_{record.source.name}"
    try:
        prometheus.write_gauges(folder, f"recsys_ingest_{name}", gauges)
        if status != "failed":
            success = ingest_gauges.success_gauges(labels, finished_at)
            prometheus.write_gauges(folder, f"recsys_ingest_success_{name}", success)
    except OSError as error:
        # the data is written and recorded; the file's age is what the alert on a silent job looks at
        _log.warning("prometheus_file_not_written folder=%s error=%s", folder, error)


def _log_to_mlflow(record: RunRecord, status: str, seconds: float) -> None:
    tags = {
        "feed": record.label, "source": record.source.name, "status": status, "ingest_run": record.ingest_run,
        "run_date": str(record.run_date or ""),
    }  # fmt: skip
    metrics = {"seconds": seconds, **record.counts}
    metrics |= {f"check.{r.name}.level": float(checks.LEVELS.index(r.level)) for r in record.results}
    name = f"ingest_{record.label} {record.run_date or 'all'}"
    try:
        tracking.finish_run(record.config, tracking.start_run(record.config, name, {}, tags), metrics, {})
    except tracking.UNREACHABLE as error:
        # the lines are written and recorded in ingest_runs; a tracking server that is down must not make them look lost
        _log.warning("ingest_run_not_in_mlflow run=%s error=%s", record.ingest_run, type(error).__name__)


def _profile(record: RunRecord) -> BatchProfile:
    if record.profile is None:
        raise ValueError("a batch is profiled before it is checked: call profile_batch first")
    return record.profile
