"""Tables -> the same rows in fewer files, files no longer used deleted, and the sizes of the day in table_stats."""

from __future__ import annotations

import logging
from datetime import date

from pyspark.sql import SparkSession

from recsys_spark.columns import EVENT_DATE
from recsys_spark.config import Config
from recsys_spark.errors import ConfigError
from recsys_spark.infra import table_dates, table_files, tables
from recsys_spark.log import key_values, log_step
from recsys_spark.schemas import TABLE_STATS, TABLES

_log = logging.getLogger(__name__)

STATS = "table_stats"


def maintain_tables(spark: SparkSession, config: Config, run_date: date | None = None) -> dict[str, float]:
    """Thin out, compact, vacuum and measure every table that exists.

    Of tables that every night adds a date to only maintain.keep_dates are kept. Tables by event_date are compacted up to the
    day before the run date, the others as a whole while they are small. Runs beside ingest: a writer that was faster is waited
    for. Gives dates removed, files removed and added, and bytes and files at the end. Raises ConfigError without a run date.
    """
    if run_date is None:
        raise ConfigError("maintain_tables expects --date YYYY-MM-DD: days before it are closed, found none")
    totals = {
        "tables": 0.0,
        "dates_removed": 0.0,
        "files_removed": 0.0,
        "files_added": 0.0,
        "num_files": 0.0,
        "size_bytes": 0.0,
    }
    rows = []
    with log_step("maintain_tables", run_date=run_date) as facts:
        for name in [name for name in TABLES if tables.table_exists(spark, config, name)]:
            expired = _expire(spark, config, name)
            removed, added = _compact(spark, config, name, run_date)
            table_files.vacuum(spark, config, name, config.maintain.vacuum_hours)
            now = table_files.table_facts(spark, config, name)
            num_rows = spark.table(tables.table_address(config, name)).count()  # out of the log, without reading rows
            rows.append((run_date, name, now.delta_version, now.num_files, now.size_bytes, num_rows))
            found = {
                "dates_removed": expired,
                "files_removed": removed,
                "files_added": added,
                "num_files": now.num_files,
                "size_bytes": now.size_bytes,
            }
            _log.info("maintain_tables table=%s rows=%d %s", name, num_rows, key_values({**found}))
            totals = {key: total + found.get(key, 1) for key, total in totals.items()}
        tables.upsert(spark, config, STATS, spark.createDataFrame(rows, TABLE_STATS), "true")
        facts.update(totals)
    return totals


def _expire(spark: SparkSession, config: Config, name: str) -> int:
    if config.maintain.keep_dates is None or name not in table_dates.EXPIRING:
        return 0
    return table_dates.keep_newest_dates(spark, config, name, config.maintain.keep_dates)


def _compact(spark: SparkSession, config: Config, name: str, run_date: date) -> tuple[int, int]:
    if EVENT_DATE in TABLES[name].partition_by:
        return table_files.compact(spark, config, name, before=(EVENT_DATE, run_date))
    size = table_files.table_facts(spark, config, name).size_bytes
    return table_files.compact(spark, config, name) if size <= config.maintain.whole_table_bytes else (0, 0)
