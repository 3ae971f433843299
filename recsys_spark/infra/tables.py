"""The only code that reads and writes Delta tables. A table is addressed by its name in schemas.TABLES."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import date
from pathlib import Path
from typing import TypeVar

from delta.exceptions import (
    ConcurrentAppendException,
    ConcurrentDeleteDeleteException,
    ConcurrentDeleteReadException,
    MetadataChangedException,
    ProtocolChangedException,
)
from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, DataFrameWriter, Observation, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.errors import DataError, ModelError, RetryableError, SchemaError
from recsys_spark.infra.table_lock import one_process_at_a_time
from recsys_spark.infra.table_log import check_commits
from recsys_spark.schemas import TABLES

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")

VERSION_PROPERTY = "recsys.table_version"


class _BeingCreatedError(Exception):
    """The table's folder holds files and no commit yet: another job is creating it at this moment, or the files are not ours."""


# Two writers met: the work is repeated from a fresh snapshot. ConcurrentTransactionException is not among them:
# it says that the same transaction id was written already.
_CONFLICTS = (
    ConcurrentAppendException,
    ConcurrentDeleteReadException,
    ConcurrentDeleteDeleteException,
    MetadataChangedException,  # two jobs created the table at once
    ProtocolChangedException,
    _BeingCreatedError,
)


def table_address(config: Config, name: str) -> str:
    """Give the SQL name of a table: `catalog.schema.name`, or delta.`root/tables/name` when tables live below a folder."""
    if name not in TABLES:
        raise ValueError(f"table {name!r} is not one of {sorted(TABLES)}")
    if config.tables.catalog is not None:
        return f"{config.tables.catalog}.{name}"
    return f"delta.`{_folder(config, name)}`"


def table_exists(spark: SparkSession, config: Config, name: str) -> bool:
    """Say whether the table has been written."""
    if config.tables.catalog is not None:
        return bool(spark.catalog.tableExists(table_address(config, name)))
    return bool(DeltaTable.isDeltaTable(spark, _folder(config, name)))


def read_table(spark: SparkSession, config: Config, name: str, made_by: str, version: int | None = None) -> DataFrame:
    """Give a table as a lazy frame, as it is or as of a Delta version.

    made_by names the job to run when the table does not exist (DataError) or has an older layout (SchemaError).
    """
    if not table_exists(spark, config, name):
        raise DataError(f"table {table_address(config, name)} does not exist; run jobs/{made_by}.py first")
    check_log(spark, config, name)
    check_version(spark, config, name)
    as_of = "" if version is None else f" VERSION AS OF {version}"
    table = spark.sql(f"SELECT * FROM {table_address(config, name)}{as_of}")
    missing = sorted(set(TABLES[name].schema.fieldNames()) - set(table.columns))
    if missing:
        raise SchemaError(
            f"table {table_address(config, name)} misses columns {missing}; it has {sorted(table.columns)}; "
            f"something else changed it: move it away and run jobs/{made_by}.py again"
        )
    return table.select(*TABLES[name].schema.fieldNames())


def is_delta_folder(spark: SparkSession, path: str) -> bool:
    """Say whether a path is the folder of a Delta table, ours or not."""
    return bool(DeltaTable.isDeltaTable(spark, path))


def read_delta_folder(spark: SparkSession, path: str) -> DataFrame:
    """Give a Delta table that is not one of ours by its folder, as it is."""
    return spark.read.format("delta").load(path)


def table_version(spark: SparkSession, config: Config, name: str) -> int:
    """Give the version of the table's layout as it was written (1 where the property is missing)."""
    rows = spark.sql(f"SHOW TBLPROPERTIES {table_address(config, name)}").collect()
    return int({row["key"]: row["value"] for row in rows}.get(VERSION_PROPERTY, 1))


def check_version(spark: SparkSession, config: Config, name: str) -> None:
    """Raise SchemaError when a table has an older layout than this package writes (`recsys migrate` moves it up) or a newer one."""
    found, expected = table_version(spark, config, name), TABLES[name].version
    if found < expected:
        raise SchemaError(
            f"table {table_address(config, name)} has layout version {found}, this package needs {expected}; "
            "run `recsys migrate` with the same config: it moves the table up in place"
        )
    if found > expected:
        raise SchemaError(
            f"table {table_address(config, name)} has layout version {found}, this package knows {expected}; "
            "install the version of recsys_spark that wrote it, or a newer one"
        )


def read_cutoff(spark: SparkSession, config: Config, cutoff: date) -> DataFrame:
    """Give the interactions of one cutoff; DataError when there are none, naming the cutoffs that there are."""
    interactions = read_table(spark, config, "interactions", made_by="build_interactions")
    found = interactions.where(F.col("cutoff") == F.lit(cutoff))
    if found.isEmpty():
        there = sorted(str(row[0]) for row in interactions.select("cutoff").distinct().collect())
        raise DataError(
            f"there are no interactions of cutoff {cutoff}; there are those of {there}; run jobs/build_interactions.py --date {cutoff}"
        )
    return found


def ensure_table(spark: SparkSession, config: Config, name: str, properties: Mapping[str, str] | None = None) -> None:
    """Create the table with its schema, partitioning and version when it is not there; SchemaError when it has another version.

    properties are added to a new table only; of two jobs that create it at once one wins, with all of its properties. Raises
    DataError when the place of the table is taken by files that are none.
    """
    if table_exists(spark, config, name):
        check_log(spark, config, name)
        check_version(spark, config, name)
        return
    spec = TABLES[name]
    columns = [f"`{c.name}` {c.dataType.simpleString()}{'' if c.nullable else ' NOT NULL'}" for c in spec.schema.fields]
    # in SQL, because Delta's own builder knows no names of three parts
    statement = f"CREATE TABLE IF NOT EXISTS {table_address(config, name)} ({', '.join(columns)}) USING delta"
    if spec.partition_by:
        statement += f" PARTITIONED BY ({', '.join(spec.partition_by)})"
    pairs = {**table_properties(name), **(properties or {})}
    statement += " TBLPROPERTIES (" + ", ".join(f"'{key}' = '{value}'" for key, value in pairs.items()) + ")"
    _create_table(spark, config, name, statement)


def _create_table(spark: SparkSession, config: Config, name: str, statement: str) -> None:
    def create() -> None:
        try:
            spark.sql(statement)
        except AnalysisException as error:
            if not str(error).startswith("[DELTA_CREATE_TABLE_WITH_NON_EMPTY_LOCATION]"):
                raise
            raise _BeingCreatedError from error

    try:
        retry_on_conflict(create, config, name)
    except RetryableError as error:
        if not isinstance(error.__cause__, _BeingCreatedError):
            raise
        raise DataError(
            f"table {table_address(config, name)}: expected a Delta table or an empty place, found other files there; "
            "move them away and run the job again"
        ) from error


def table_properties(name: str) -> dict[str, str]:
    """Give the Delta properties that a table of today's layout has."""
    spec = TABLES[name]
    properties = {VERSION_PROPERTY: str(spec.version)}
    if spec.stats_columns is not None:
        properties["delta.dataSkippingStatsColumns"] = ",".join(spec.stats_columns)
    return properties


def delta_version(spark: SparkSession, config: Config, name: str) -> int:
    """Give the number of the table's newest Delta version."""
    return int(_delta_table(spark, config, name).history(1).select("version").collect()[0][0])


def merge_new(
    spark: SparkSession, config: Config, name: str, rows: DataFrame, bounds: tuple[str, date, date] | None = None
) -> int:
    """Insert the rows whose key the table lacks and give their number. Rows must be distinct by key: MERGE inserts every copy.

    bounds = (date column, first, last) limits the look-up to rows of those dates, or of none, by literals, so that files of
    other dates are skipped and the cost does not grow with the table; a key outside of them counts as new.
    """
    ensure_table(spark, config, name)
    condition = " AND ".join(f"t.{column} = s.{column}" for column in TABLES[name].key)
    if bounds is not None:
        column, first, last = bounds
        within = f"t.{column} >= DATE'{first}' AND t.{column} <= DATE'{last}'"
        is_required = not TABLES[name].schema[column].nullable
        condition += f" AND {within}" if is_required else f" AND ({within} OR t.{column} IS NULL)"

    def merge() -> int:
        merged = _delta_table(spark, config, name).alias("t").merge(rows.alias("s"), condition)
        return int(merged.whenNotMatchedInsertAll().execute().collect()[0]["num_inserted_rows"])

    return retry_on_conflict(merge, config, name)


def append_rows(spark: SparkSession, config: Config, name: str, rows: DataFrame) -> None:
    """Append rows whose key no other row can have, such as a random one; the look-up of a merge is not needed then."""
    ensure_table(spark, config, name)
    writer = rows.select(*TABLES[name].schema.fieldNames()).write.format("delta").mode("append")
    retry_on_conflict(lambda: _write(writer, config, name), config, name)


def upsert(spark: SparkSession, config: Config, name: str, rows: DataFrame, update_when: str) -> tuple[int, int]:
    """Insert new keys and replace rows of known keys where update_when holds (SQL over t and s); give (inserted, updated)."""
    ensure_table(spark, config, name)
    condition = " AND ".join(f"t.{column} = s.{column}" for column in TABLES[name].key)

    def merge() -> tuple[int, int]:
        merged = _delta_table(spark, config, name).alias("t").merge(rows.alias("s"), condition)
        counts = merged.whenMatchedUpdateAll(update_when).whenNotMatchedInsertAll().execute().collect()[0]
        return int(counts["num_inserted_rows"]), int(counts["num_updated_rows"])

    return retry_on_conflict(merge, config, name)


def delete_matching(spark: SparkSession, config: Config, name: str, keys: DataFrame) -> int:
    """Delete the rows that equal one of the keys (distinct rows) in all columns that keys has; give their number.

    By MERGE and not by DELETE ... WHERE: Delta's log keeps the text of a condition, and keys may be personal.
    """
    check_log(spark, config, name)
    condition = " AND ".join(f"t.{column} = s.{column}" for column in keys.columns)

    def merge() -> int:
        merged = _delta_table(spark, config, name).alias("t").merge(keys.alias("s"), condition)
        return int(merged.whenMatchedDelete().execute().collect()[0]["num_deleted_rows"])

    return retry_on_conflict(merge, config, name)


def replace_partition(
    spark: SparkSession, config: Config, name: str, rows: DataFrame, partition: Mapping[str, str | date]
) -> int:
    """Replace one partition (column -> value) by the rows, in one commit; a rerun gives the same table. Gives their number."""
    ensure_table(spark, config, name)
    spec = TABLES[name]
    where = " AND ".join(
        f"{column} = DATE'{value}'" if isinstance(value, date) else f"{column} = '{_checked(value)}'"
        for column, value in partition.items()
    )
    ordered = rows.select(*[F.col(field.name).cast(field.dataType) for field in spec.schema])

    def write() -> Observation:
        written = Observation()
        counted = ordered.observe(written, F.count(F.lit(1)).alias("rows"))
        _write(counted.write.format("delta").mode("overwrite").option("replaceWhere", where), config, name)
        return written

    written = retry_on_conflict(write, config, name)
    if config.tables.catalog is not None:  # there the rows go through a second query, which is not observed
        return spark.table(table_address(config, name)).where(where).count()
    return int(written.get["rows"])  # counted on the way into the files: asking the table costs more than writing it


def replace_model(
    spark: SparkSession, config: Config, name: str, rows: DataFrame, model: str, version: str, run_date: date
) -> None:
    """Replace what one model trained for one date in a table of vectors or neighbours."""
    named = rows.withColumns({"model": F.lit(model), "model_version": F.lit(version), "run_date": F.lit(run_date)})
    replace_partition(spark, config, name, named, {"run_date": run_date, "model": model})


def read_model(spark: SparkSession, config: Config, name: str, model: str, run_date: date) -> tuple[DataFrame, str]:
    """Give (rows, model_version) of what one model trained for one date; ModelError when there is nothing."""
    made_by = f"train_{'popular' if model == 'popular_recent' else model}"
    rows = read_table(spark, config, name, made_by)
    rows = rows.where((F.col("model") == model) & (F.col("run_date") == F.lit(run_date)))
    first = rows.select("model_version").head()
    if first is None:
        raise ModelError(f"model {model!r} was not trained for {run_date}; run jobs/{made_by}.py --date {run_date}")
    return rows, str(first[0])


def clone_table(
    spark: SparkSession, config: Config, target: Config, name: str, version: int,
    keep: tuple[str, date | None, date] | None = None,
) -> None:  # fmt: skip
    """Give the target's data root a table of its own over the files of one Delta version: a log and no copy of the data.

    What is written to one of the two never shows in the other. keep = (partition column, first or null, end) leaves other
    days out, which costs no rewriting. The files belong to the original: its VACUUM or an erasure breaks a clone that is
    older than that, so clones are for hours, not for keeping.
    """
    address = table_address(target, name)
    spark.sql(f"CREATE TABLE {address} SHALLOW CLONE {table_address(config, name)} VERSION AS OF {version}")
    if keep is not None:
        column, first, end = keep
        before = f"{column} < DATE'{first}' OR " if first is not None else ""
        spark.sql(f"DELETE FROM {address} WHERE {before}{column} >= DATE'{end}'")


def append_to_index(spark: SparkSession, config: Config, name: str, new_rows: Callable[[DataFrame], DataFrame]) -> int:
    """Append to an index table what new_rows(current table) gives; tried again from a fresh snapshot when another writer was faster.

    The rows are merged on the raw id, so that a repeated try adds nothing twice. Gives the number of ids added.
    """
    ensure_table(spark, config, name)
    key = TABLES[name].key[0]

    def merge() -> int:
        table = _delta_table(spark, config, name)
        # `t.key = s.key` reads the whole table inside the transaction: a concurrent append of other ids is a conflict,
        # and that is wanted, because both writers would have given out the same numbers.
        merged = table.alias("t").merge(new_rows(table.toDF()).alias("s"), f"t.{key} = s.{key}")
        return int(merged.whenNotMatchedInsertAll().execute().collect()[0]["num_inserted_rows"])

    return retry_on_conflict(merge, config, name)


def retry_on_conflict(write: Callable[[], _Result], config: Config, name: str) -> _Result:
    """Call write, which changes one table, until no other writer was faster; below a local data root one process at a time.

    Every try has to start from a fresh snapshot. After tables.merge_attempts tries raise RetryableError (exit code 75).
    """
    limits = config.tables
    pause = limits.merge_backoff_seconds
    for attempt in range(1, limits.merge_attempts + 1):
        try:
            with _turn(config, name):
                return write()
        except _CONFLICTS as error:
            if attempt == limits.merge_attempts:
                raise RetryableError(
                    f"another writer changed the table {attempt} times in a row ({type(error).__name__}); nothing of this write "
                    "was kept; run the job again, or raise tables.merge_attempts"
                ) from error
            _log.warning("table_conflict attempt=%d error=%s pause_seconds=%.1f", attempt, type(error).__name__, pause)
            time.sleep(pause)
            pause *= 2
    raise AssertionError("unreachable: merge_attempts is at least 1")


def _turn(config: Config, name: str) -> AbstractContextManager[None]:
    root = absolute_root(config).removeprefix("file:")
    is_folder = config.tables.catalog is None and (config.is_local or root != absolute_root(config))
    return one_process_at_a_time(Path(root) / "locks" / name) if is_folder else nullcontext()


def _write(writer: DataFrameWriter, config: Config, name: str) -> None:
    if config.tables.catalog is not None:
        writer.saveAsTable(table_address(config, name))
    else:
        writer.save(_folder(config, name))


def absolute_root(config: Config) -> str:
    """Give the data root as an absolute path or URI, without a slash at its end."""
    # Spark resolves a relative path against the driver's folder in some places and the user's home in others
    root = os.path.abspath(config.data_root) if config.is_local else config.data_root
    return root.rstrip("/")


def _folder(config: Config, name: str) -> str:
    return f"{absolute_root(config)}/tables/{name}"


def check_log(spark: SparkSession, config: Config, name: str) -> None:
    """Raise DataError when the table's log lost its newest commit: whatever is written then would take that commit's number."""
    if config.tables.catalog is None:
        folder = _folder(config, name)
    else:
        folder = str(_delta_table(spark, config, name)._jdt.deltaLog().dataPath().toString())
    check_commits(spark, folder, table_address(config, name))


def _delta_table(spark: SparkSession, config: Config, name: str) -> DeltaTable:
    return DeltaTable.forName(spark, table_address(config, name))


def _checked(value: str) -> str:
    if not value.replace("_", "").replace("-", "").isalnum():
        raise ValueError(f"partition value {value!r} may hold letters, digits, - and _ only")
    return value
