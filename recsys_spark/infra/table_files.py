"""The files behind the Delta tables: compacting them, deleting those no longer used, and making deleted rows unreadable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.config_upkeep import SAFE_VACUUM_HOURS
from recsys_spark.infra import files, tables
from recsys_spark.schemas import TABLES

RETENTION_CHECK = "spark.databricks.delta.retentionDurationCheck.enabled"

_IGNORE_RETENTION = (
    "spark.databricks.delta.vacuum.retentionWindowIgnore.enabled"  # by default RETAIN counts when it is 0 only
)
_LISTING_TASKS = "spark.sql.sources.parallelPartitionDiscovery.parallelism"
_NO_RETENTION = "interval 0 hours"
_SHORT_LOG = {  # the log may not forget earlier than the table its files; the commit that sets this writes a checkpoint
    "delta.logRetentionDuration": _NO_RETENTION,
    "delta.deletedFileRetentionDuration": _NO_RETENTION,
    "delta.checkpointInterval": "1",
}
_FIRST_COMMIT = f"/{0:020d}.json"
_INVENTORY = "path string, length long, isDir boolean, modificationTime long"
_ADD = "struct<path: string, stats: string>"


@dataclass(frozen=True)
class TableFacts:
    """Size of a table as it is now."""

    delta_version: int
    num_files: int
    size_bytes: int


def table_facts(spark: SparkSession, config: Config, name: str) -> TableFacts:
    """Give version, files and bytes of a table's current state."""
    detail = _detail(spark, config, name)
    return TableFacts(tables.delta_version(spark, config, name), int(detail["numFiles"]), int(detail["sizeInBytes"]))


def compact(spark: SparkSession, config: Config, name: str, before: tuple[str, date] | None = None) -> tuple[int, int]:
    """Put small files of a partition together and give (files removed, files added); rows stay as they are.

    before = (partition column, day) leaves that day and later ones alone. A partition of one file is not touched, so that
    a rerun does nothing. A writer that was faster makes it start again.
    """
    tables.check_log(spark, config, name)
    where = f" WHERE {before[0]} < DATE'{before[1]}'" if before else ""
    statement = f"OPTIMIZE {tables.table_address(config, name)}{where}"
    metrics = tables.retry_on_conflict(lambda: spark.sql(statement).collect()[0]["metrics"], config, name)
    return int(metrics["numFilesRemoved"]), int(metrics["numFilesAdded"])


def vacuum(spark: SparkSession, config: Config, name: str, hours: int) -> None:
    """Delete the files that the table has not used for so many hours, also those that crashed writers left behind."""
    tables.check_log(spark, config, name)
    with _vacuum_settings(spark, any_retention=hours < SAFE_VACUUM_HOURS):
        statement = f"VACUUM {tables.table_address(config, name)} RETAIN {hours} HOURS"
        tables.retry_on_conflict(lambda: spark.sql(statement), config, name)  # its start and end are commits, too


def update_matching(
    spark: SparkSession, config: Config, name: str, keys: DataFrame, column: str, changes: dict[str, str]
) -> int:
    """Set columns (name -> SQL over t) of the rows whose column is among the keys', and give their number."""

    def merge() -> int:
        merged = _merge(spark, config, name, keys, column).whenMatchedUpdate(set=changes)
        return int(merged.execute().collect()[0]["num_updated_rows"])

    return tables.retry_on_conflict(merge, config, name)


def forget_removed_rows(spark: SparkSession, config: Config, name: str, hours: int) -> bool:
    """Delete the bytes of rows that were deleted or replaced, now; say whether the log still holds statistics of them.

    Rewrites files whose rows are only marked as deleted, then deletes every file that the log names as removed, and where
    the log was cut also those unused for longer than `hours`. Files that a running writer has not committed yet are in no
    log and stay. Older versions cannot be read afterwards; a reader that is still at one fails.
    """
    tables.check_log(spark, config, name)
    address, detail = tables.table_address(config, name), _detail(spark, config, name)
    root = detail["location"]
    if "deletionVectors" in (detail["tableFeatures"] or ()):
        tables.retry_on_conflict(lambda: spark.sql(f"REORG TABLE {address} APPLY (PURGE)"), config, name)
    if not _log_is_whole(spark, root):
        vacuum(spark, config, name, hours)  # a cut log names what was removed within a week only
    # VACUUM LITE would do, but refuses for good once the log was cut and a full VACUUM had run (docs/adr/0012)
    removed = _removed_files(spark, root)
    if removed:
        view = f"removed_files_of_{name}"
        spark.createDataFrame([(path, 0, False, 0) for path in removed], _INVENTORY).createOrReplaceTempView(view)
        try:
            statement = f"VACUUM {address} USING INVENTORY (SELECT * FROM {view}) RETAIN 0 HOURS"
            with _vacuum_settings(spark, any_retention=True):
                tables.retry_on_conflict(lambda: spark.sql(statement), config, name)
        finally:
            spark.catalog.dropTempView(view)
    if not _log_describes_removed_rows(spark, config, name, root):
        return False
    _shorten_log(spark, config, name)
    return _log_describes_removed_rows(spark, config, name, root)


def _removed_files(spark: SparkSession, root: str) -> list[str]:
    """Give the full paths of files that the table's log names as removed and that are not part of the table again."""
    removed = _log_entries(spark, root).where(F.col("removed").isNotNull()).select("removed").distinct()
    # paths in the log are URL-encoded, and a plus sign stands for itself
    decoded = removed.select(F.url_decode(F.replace("removed", F.lit("+"), F.lit("%2B"))).alias("path")).collect()
    return [f"{root}/{row['path']}" for row in decoded if "://" not in row["path"]]


def _log_describes_removed_rows(spark: SparkSession, config: Config, name: str, root: str) -> bool:
    """Say whether the log holds minima of other columns than allowed, of files that are no longer part of the table."""
    allowed = F.array(*[F.lit(column) for column in TABLES[name].stats_columns or ()]).cast("array<string>")
    described = F.json_object_keys(F.get_json_object("stats", "$.minValues"))
    current = [(path.rsplit("/", 1)[1],) for path in spark.table(tables.table_address(config, name)).inputFiles()]
    entries = _log_entries(spark, root).where(F.size(F.array_except(described, allowed)) > 0)
    entries = entries.withColumn("file", F.element_at(F.split("path", "/"), -1))
    return not entries.join(spark.createDataFrame(current, "file string"), on="file", how="left_anti").isEmpty()


def _log_is_whole(spark: SparkSession, root: str) -> bool:
    """Say whether the log still holds every commit, so that no removed file is missing in it."""
    return any(file.endswith(_FIRST_COMMIT) for file in _log_files(spark, root))


def _log_files(spark: SparkSession, root: str) -> list[str]:
    return files.list_files(spark, files.literal_paths([f"{root}/_delta_log"])[0])


def _log_entries(spark: SparkSession, root: str) -> DataFrame:
    """Give what commits, checkpoints and checksums say about files: path and stats of each one added, removed (paths)."""
    found = _log_files(spark, root)
    commits = files.literal_paths([file for file in found if file.endswith(".json")])
    checkpoints = files.literal_paths([file for file in found if file.endswith(".parquet")])
    checksums = files.literal_paths([file for file in found if file.endswith(".crc")])
    actions = f"add {_ADD}, remove struct<path: string>"
    entries = spark.read.schema(actions).json(commits)
    if checkpoints:
        entries = entries.unionByName(spark.read.schema(actions).parquet(*checkpoints))
    if checksums:
        listed = spark.read.schema(f"allFiles array<{_ADD}>").json(checksums)
        listed = listed.select(
            F.explode("allFiles").alias("add"), F.lit(None).cast("struct<path: string>").alias("remove")
        )
        entries = entries.unionByName(listed)
    return entries.select("add.path", "add.stats", F.col("remove.path").alias("removed"))


def _shorten_log(spark: SparkSession, config: Config, name: str) -> None:
    """Write a checkpoint and delete the log's files from before today that it makes superfluous, then keep the log as before.

    Delta cuts at midnight UTC, so that a running writer still finds the commits since its start.
    """
    before = {key: value for key, value in _properties(spark, config, name).items() if key in _SHORT_LOG}
    before = {key: value for key, value in before.items() if value != _SHORT_LOG[key]}  # left by a run that was killed
    try:
        _set_properties(spark, config, name, _SHORT_LOG)
    finally:
        keys = ", ".join(f"'{key}'" for key in _SHORT_LOG)
        unset = f"ALTER TABLE {tables.table_address(config, name)} UNSET TBLPROPERTIES IF EXISTS ({keys})"
        tables.retry_on_conflict(lambda: spark.sql(unset), config, name)
        if before:
            _set_properties(spark, config, name, before)


@contextmanager
def _vacuum_settings(spark: SparkSession, any_retention: bool) -> Iterator[None]:
    """Set what VACUUM needs around one statement: few listing tasks, the retention that it names and, if asked for, no guard
    against short ones.
    """
    # by default Delta lists a table of three files in 10,000 tasks, which takes most of a minute on one machine
    wanted = {_LISTING_TASKS: str(spark.sparkContext.defaultParallelism), _IGNORE_RETENTION: "false"}
    if any_retention:
        wanted[RETENTION_CHECK] = "false"
    before = {key: spark.conf.get(key, None) for key in wanted}  # null: not set, or not known to this version of Delta
    for key, value in wanted.items():
        spark.conf.set(key, value)
    try:
        yield
    finally:
        for key, setting in before.items():
            spark.conf.unset(key) if setting is None else spark.conf.set(key, setting)


def _merge(spark: SparkSession, config: Config, name: str, keys: DataFrame, column: str) -> Any:
    tables.check_log(spark, config, name)
    table = DeltaTable.forName(spark, tables.table_address(config, name))
    return table.alias("t").merge(keys.alias("s"), f"t.{column} = s.{column}")


def _detail(spark: SparkSession, config: Config, name: str) -> Any:
    return spark.sql(f"DESCRIBE DETAIL {tables.table_address(config, name)}").collect()[0]


def _properties(spark: SparkSession, config: Config, name: str) -> dict[str, str]:
    rows = spark.sql(f"SHOW TBLPROPERTIES {tables.table_address(config, name)}").collect()
    return {row["key"]: row["value"] for row in rows}


def _set_properties(spark: SparkSession, config: Config, name: str, properties: dict[str, str]) -> None:
    pairs = ", ".join(f"'{key}' = '{value}'" for key, value in properties.items())
    statement = f"ALTER TABLE {tables.table_address(config, name)} SET TBLPROPERTIES ({pairs})"
    tables.retry_on_conflict(lambda: spark.sql(statement), config, name)
