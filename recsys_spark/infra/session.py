"""The one place that starts Spark."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark import SparkContext, StorageLevel
from pyspark.errors import (
    AnalysisException,
    ArithmeticException,
    ArrayIndexOutOfBoundsException,
    DateTimeException,
    IllegalArgumentException,
    NumberFormatException,
    ParseException,
    PySparkException,
    SparkRuntimeException,
)
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.config import Config
from recsys_spark.errors import ConfigError, DamagedFileError, DataError, RecsysError, RetryableError
from recsys_spark.infra.jvm import SUPPORTED_JAVA, find_java, use_spark_conf
from recsys_spark.infra.workers import check_workers

_ARROW_BATCH_ROWS = "spark.sql.execution.arrow.maxRecordsPerBatch"
# what SQL of a config can raise on a line
_LINE_ERRORS = (
    ArithmeticException,
    ArrayIndexOutOfBoundsException,
    DateTimeException,
    IllegalArgumentException,
    NumberFormatException,
    SparkRuntimeException,
)
_MALFORMED_RECORD = "MALFORMED_RECORD_IN_PARSING"
_FULL_DISK = re.compile("No space left on device|Disk quota exceeded")


def build_session(config: Config) -> SparkSession:
    """Start the session (or give the running one with the config's SQL settings applied) and check that Delta is on its class path.

    Settings that are fixed when the JVM starts (jars, driver memory, Delta's extension) come from spark-defaults.conf.
    Raises ConfigError when Java, Delta's jars or, on a cluster, packages of the workers are missing.
    """
    use_spark_conf(config.spark.conf.get("spark.pyspark.python"))
    if (
        SparkContext._active_spark_context is None and "PYSPARK_GATEWAY_PORT" not in os.environ
    ):  # spark-submit has started its JVM
        _require_java()
    builder = SparkSession.builder.appName(config.spark.app_name)
    if config.spark.master is not None:
        builder = builder.master(config.spark.master)
    builder = builder.config("spark.sql.session.timeZone", "UTC")
    # sources.*.encoding: any character set that Java knows, and a byte that it cannot decode becomes U+FFFD, so that the
    # line is quarantined; without these Spark 4 knows six sets and one such byte stops the job
    builder = builder.config("spark.sql.legacy.javaCharsets", "true")
    builder = builder.config("spark.sql.legacy.codingErrorAction", "true")
    # lets the parser see that a JSON line names a field twice, by the map that got smaller; the default would stop the job
    builder = builder.config("spark.sql.mapKeyDedupPolicy", "LAST_WIN")
    # what is kept here is read a few times: compressing it column by column takes longer than what it saves
    builder = builder.config("spark.sql.inMemoryColumnarStorage.compressed", "false")
    # deliveries are read file by file, and the default looks each file up in a task of its own: ten times what the look-up takes
    builder = builder.config("spark.sql.sources.parallelPartitionDiscovery.parallelism", "64")
    # histories are collected per user; above so many users in a task the default of 128 sorts all rows a second time.
    # 4,096 users with 200 items each are some 40 MB of Java objects in a task
    builder = builder.config("spark.sql.objectHashAggregate.sortBased.fallbackThreshold", "4096")
    if config.spark.shuffle_partitions is not None:
        builder = builder.config("spark.sql.shuffle.partitions", config.spark.shuffle_partitions)
    for key, value in config.spark.conf.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    if "DeltaSparkSessionExtension" not in (spark.conf.get("spark.sql.extensions", "") or ""):
        spark.stop()
        raise ConfigError(
            "this Spark session knows no Delta tables: spark.sql.extensions lacks io.delta.sql.DeltaSparkSessionExtension "
            f"(SPARK_CONF_DIR is {os.environ.get('SPARK_CONF_DIR', 'not set')}); run `make setup`, then set SPARK_CONF_DIR "
            "to .venv/spark/conf"
        )
    if config.spark.check_workers:
        try:
            check_cluster(spark, config)
        except RecsysError:
            spark.stop()
            raise
    return spark


def check_cluster(spark: SparkSession, config: Config) -> None:
    """Raise ConfigError when workers lack what this configuration needs of them; see `check_workers`."""
    also = ("faiss",) if config.recommend.index == "approximate" else ()
    check_workers(spark, config.data_root, config.spark.check_workers_seconds, also)


def _require_java() -> None:
    java = find_java()
    if java is None or java.major not in SUPPORTED_JAVA:
        found = "none" if java is None else f"{java.path} with version {java.major or 'unknown (it does not start)'}"
        raise ConfigError(
            f"Spark needs Java {' or '.join(map(str, SUPPORTED_JAVA))}, found {found}; run `recsys doctor` to see how to get it, "
            "or point JAVA_HOME at one"
        )


@contextmanager
def persisted(rows: DataFrame) -> Iterator[DataFrame]:
    """Keep a frame that is used several times on the local disks, and let it go at the end.

    Not in memory: of a partition that did not fit there Spark makes one array when it is read again, and a batch larger than the
    heap stops the job. What fits is read from the system's own cache of files.
    """
    kept = rows.persist(StorageLevel.DISK_ONLY)
    try:
        yield kept
    finally:
        kept.unpersist()


@contextmanager
def arrow_batches_of(spark: SparkSession, rows: int) -> Iterator[None]:
    """Let Spark hand at most so many rows at once to a worker, where rows are large: its own number, 10,000, fits small ones."""
    before = spark.conf.get(_ARROW_BATCH_ROWS)
    spark.conf.set(_ARROW_BATCH_ROWS, str(rows))
    try:
        yield
    finally:
        spark.conf.set(_ARROW_BATCH_ROWS, str(before))


@contextmanager
def input_errors_explained(source: str) -> Iterator[None]:
    """Turn Spark's errors about an unreadable file, a filter or an expression into errors that say where to look."""
    try:
        yield
    except Py4JJavaError as error:
        # Spark raises these without a Python class of their own: a truncated archive, a damaged Parquet file
        text = str(error.java_exception.getMessage() or "")
        if text.startswith(f"[{_MALFORMED_RECORD}"):
            raise _failing_expression(source, _MALFORMED_RECORD) from None
        if not text.startswith(("[FAILED_READ_FILE", "[CANNOT_READ_FILE_FOOTER", "[CANNOT_MERGE_SCHEMAS")):
            raise
        raise DamagedFileError(
            f"source {source!r}: a file cannot be read: {text.splitlines()[0]}; nothing of this run was written; "
            "mend the file or move it out of the source's folder, then run again"
        ) from error
    except (AnalysisException, ParseException) as error:
        raise ConfigError(
            f"source {source!r}: a filter, expression or format of its config is not valid Spark SQL: {_first_line(error)}"
        ) from error
    except _LINE_ERRORS as error:
        name = error.getCondition() or ""
        if name.startswith("INVALID_PARAMETER_VALUE.CHARSET"):
            raise ConfigError(
                f"source {source!r}: sources.*.encoding: expected a character set that Java knows, found none"
            ) from None
        if name.startswith(("INCONSISTENT_BEHAVIOR_CROSS_VERSION", "INVALID_DATETIME_PATTERN")):
            raise ConfigError(
                f"source {source!r}: timestamp_format, or a pattern in a filter or expression: expected one of Spark's datetime "
                f"patterns, found one that it does not read ({name}); see Spark's page on datetime patterns"
            ) from None
        raise _failing_expression(source, _condition(error)) from None


def _failing_expression(source: str, condition: str) -> DataError:
    return DataError(
        f"source {source!r}: a filter or expression of its config fails on a line ({condition}); fields are text that may hold "
        "anything: use what gives null for it, as try_cast(field AS type), try_to_timestamp, get(array, index) and try_parse_json do"
    )


@contextmanager
def full_disk_explained() -> Iterator[None]:
    """Turn an error whose cause is a full disk or quota into one line that says what to do."""
    try:
        yield
    except Exception as error:  # Java's, Spark's or Python's own: the cause is in its text only
        # Spark's own classes show the first of several causes only
        lines = f"{error}\n{getattr(error, '_stackTrace', '')}".splitlines()
        full = next((line.strip() for line in lines if _FULL_DISK.search(line)), None)
        if full is None:
            raise
        raise RetryableError(
            f"no space left where tables, models or temporary files are written ({full[:300]}); a table holds all of a write or "
            "nothing of it: free space and run the same command again"
        ) from error


def _condition(error: PySparkException) -> str:
    """The error's name and the SQL that raised it. Its message holds the value of a line, which may be personal."""
    fragments = [context.fragment() for context in error.getQueryContext() if context.fragment()]
    return " in ".join([error.getCondition() or type(error).__name__, *fragments[:1]])


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]
