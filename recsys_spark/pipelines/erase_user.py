"""Users by a file of ids -> out of every table, its files and its reports, with a receipt that names nobody."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.columns import RAW_LINE, USER_ID
from recsys_spark.config import Config
from recsys_spark.data.erased import LINE, USER, lines_that_name
from recsys_spark.data.id_search import IdIndex, index_ids, names_one
from recsys_spark.data.ids import clean_ids
from recsys_spark.errors import ConfigError, DataError, RetryableError
from recsys_spark.evaluation.notice import erased_page, rewrite_if_named
from recsys_spark.infra import erased, scratch, table_files, tables, tracking
from recsys_spark.infra.session import persisted
from recsys_spark.infra.user_rows import has_column, remove_users, rows_of
from recsys_spark.log import key_values, log_step
from recsys_spark.schemas import TABLES

_log = logging.getLogger(__name__)

EXAMPLE_USER = "evaluation.example_user"


def erase_user(spark: SparkSession, config: Config, run_date: date | None = None) -> dict[str, float]:
    """Erase the users of erase.users_file; safe to repeat, and an interrupted run is completed by running it again.

    Events of these users from before the end of the run date (UTC) stay out from then on. Gives users asked and found, rows
    removed per table and reports replaced. Raises ConfigError without a run date or file, DataError for a file that cannot
    be read, SchemaError for a table of another version, and RetryableError when another job wrote rows of these users meanwhile.
    """
    if run_date is None:
        raise ConfigError("erase_user expects --date YYYY-MM-DD, the day of the erasure; found none")
    asked = read_user_ids(config)
    ids = _as_stored(spark, config, asked)
    erased_at = datetime.combine(run_date + timedelta(days=1), time(), UTC)
    there = [name for name in TABLES if tables.table_exists(spark, config, name)]
    for name in there:
        tables.check_version(spark, config, name)  # older layouts keep ids in their log
    with log_step("erase_user", run_date=run_date) as facts, persisted(_as_frame(spark, ids)) as users:
        found = _count_found(spark, config, there, users)
        # first the hashes: whatever happens after them, a re-delivery stays out and a rerun finds the same users
        erased.remember(spark, config, USER, users, erased_at)
        removed = {name: remove_users(spark, config, name, users) for name in there if has_column(name, USER_ID)}
        scratch.remove_all(spark, config)  # what killed tunes and backtests left; running ones fail
        with _broadcast(spark, config, ids) as words:
            removed |= {
                name: _remove_lines(spark, config, name, words, erased_at)
                for name in there
                if has_column(name, RAW_LINE)
            }
            dirty_logs = [name for name in removed if _forget(spark, config, name)]
            _check_gone(spark, config, list(removed), users, words)
        reports, runs = _replace_reports(config, ids, run_date)
        facts.update(counts := {"users_asked": len(asked), "users_found": found, "reports": reports})
        facts.update({f"rows.{name}": rows for name, rows in removed.items() if rows})
        versions = {name: tables.delta_version(spark, config, name) for name in removed}
        _write_receipt(config, run_date, _receipt(config, run_date, counts, removed, versions, dirty_logs, runs))
    return {name: float(value) for name, value in {**counts, **{f"rows.{k}": v for k, v in removed.items()}}.items()}


def read_user_ids(config: Config) -> list[str]:
    """Give the distinct ids of erase.users_file as they stand there; errors name the file and the line, never an id."""
    if config.erase.users_file is None:
        raise ConfigError("erase.users_file is not set; expected a text file with one raw user id per line")
    path = Path(config.erase.users_file)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"erase.users_file: expected a text file at {path}, found none that can be read ({error.strerror}); check the path"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"erase.users_file {path}: expected UTF-8, found another encoding at byte {error.start}; convert the file to UTF-8"
        ) from None
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    ids = list(dict.fromkeys(line for line in lines if line.strip()))
    if not ids:
        raise DataError(
            f"erase.users_file {path}: expected one user id per line, found blank lines only; nothing was erased"
        )
    for number, line in enumerate(lines, start=1):
        if line.strip() and not any(character.isalnum() for character in line):
            raise DataError(
                f"erase.users_file {path}: line {number} holds no letter or digit; expected a raw user id; nothing was erased"
            )
    return ids


def _as_stored(spark: SparkSession, config: Config, asked: list[str]) -> list[str]:
    """Give the ids as they are and as ingest cleans them: tables may hold rows from before cleaning was switched on."""
    cleaned = clean_ids(_as_frame(spark, asked), [USER_ID], config.ingest.trim_ids, config.ingest.unicode_form)
    return sorted({*asked, *(row[USER_ID] for row in cleaned.collect())})


def _as_frame(spark: SparkSession, ids: list[str]) -> DataFrame:
    return spark.createDataFrame(pa.table({USER_ID: pa.array(ids, pa.string())}))


def _count_found(spark: SparkSession, config: Config, there: list[str], users: DataFrame) -> int:
    all_found = users.limit(0)
    for rows in [rows for name in there for rows in rows_of(spark, config, name, users)]:
        all_found = all_found.unionByName(rows)
    return all_found.distinct().count()


@contextmanager
def _broadcast(spark: SparkSession, config: Config, ids: list[str]) -> Iterator[Broadcast[IdIndex]]:
    """The ids as broken lines may hold them, for every worker."""
    index = spark.sparkContext.broadcast(
        index_ids(ids, (config.sources.events.encoding, config.sources.items.encoding))
    )
    try:
        yield index
    finally:
        index.destroy()


def _lines_of(spark: SparkSession, config: Config, name: str, words: Broadcast[IdIndex]) -> DataFrame:
    return lines_that_name(spark.table(tables.table_address(config, name)), words)


def _remove_lines(
    spark: SparkSession, config: Config, name: str, words: Broadcast[IdIndex], erased_at: datetime
) -> int:
    """Remove quarantined lines that name one of the users, and remember their hashes before that."""
    with persisted(_lines_of(spark, config, name, words)) as lines:
        if not lines.isEmpty():
            erased.remember(spark, config, LINE, lines, erased_at)
        return tables.delete_matching(spark, config, name, lines)


def _forget(spark: SparkSession, config: Config, name: str) -> bool:
    is_log_dirty = table_files.forget_removed_rows(spark, config, name, config.maintain.vacuum_hours)
    _log.info("erase_user %s", key_values({"table": name, "log_holds_statistics": is_log_dirty}))
    return is_log_dirty


def _check_gone(
    spark: SparkSession, config: Config, names: Iterable[str], users: DataFrame, words: Broadcast[IdIndex]
) -> None:
    def is_back(name: str) -> bool:
        found = rows_of(spark, config, name, users)
        found += [_lines_of(spark, config, name, words)] if has_column(name, RAW_LINE) else []
        return not all(rows.isEmpty() for rows in found)

    back = [name for name in names if is_back(name)]
    if back:
        raise RetryableError(
            f"another job wrote rows of these users into {back} meanwhile; let running jobs end, then run erase_user again"
        )


def _replace_reports(config: Config, ids: list[str], run_date: date) -> tuple[int, list[str]]:
    """Replace reports that show one of the users, here and in MLflow; give their number and the runs left to delete."""
    # ids that are numbers count where a report names its user only: numbers like theirs are all over a report
    words = index_ids(user_id for user_id in ids if not user_id.isdigit())
    notice, rewrite = erased_page(run_date), rewrite_if_named(ids, run_date, lambda text: names_one(text, words))
    replaced = 0
    if config.is_local:
        for path in sorted((Path(config.data_root) / "reports").glob("*.html")):
            if rewrite("report.html", path.read_text(encoding="utf-8")) is not None:
                path.write_text(notice, encoding="utf-8")
                replaced += 1
    in_mlflow, runs = tracking.replace_artifacts(
        config, ("report.html", "config.yaml"), rewrite, lambda name, value: name == EXAMPLE_USER and value in ids
    )
    return replaced + in_mlflow, runs


def _receipt(
    config: Config, run_date: date, counts: dict[str, int], removed: dict[str, int], versions: dict[str, int],
    dirty_logs: list[str], runs: list[str],
) -> dict[str, Any]:  # fmt: skip
    remains = [
        f"files of crashed writers: up to {config.maintain.vacuum_hours} hours after they were written, until maintain_tables "
        "runs; the source's own files, backups and copies: with whoever keeps them",
    ]
    if dirty_logs:
        remains.append(
            f"smallest and largest values of removed files in the log of {', '.join(dirty_logs)}, kept there by an older "
            f"version; run erase_user with the same users on {run_date + timedelta(days=1)} or later"
        )
    if runs:
        remains.append(f"a parameter of the MLflow runs {', '.join(runs)}: delete these runs, then run `mlflow gc`")
    tables_of = {name: {"rows_removed": rows, "delta_version": versions[name], "vacuumed": True,
                        "log_is_clean": name not in dirty_logs} for name, rows in removed.items()}  # fmt: skip
    return {"receipt": f"erase-{run_date}-{uuid.uuid4().hex[:8]}", "run_date": str(run_date), **counts,
            "tables": tables_of, "remains": remains}  # fmt: skip


def _write_receipt(config: Config, run_date: date, receipt: dict[str, Any]) -> None:
    if not config.is_local:
        _log.info("erase_user receipt=%s", json.dumps(receipt))
        return
    path = Path(config.data_root) / "receipts" / f"{receipt['receipt']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(receipt, indent=2) + "\n", encoding="utf-8")
    _log.info("erase_user receipt=%s", path)
