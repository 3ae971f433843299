"""Find and read the files of a delivery on any Hadoop file system: the only code that lists folders."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, TypeVar

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, IllegalArgumentException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.columns import DELIVERY_DATE, RAW_LINE, SOURCE_FILE
from recsys_spark.config_sources import SourceConfig
from recsys_spark.errors import ConfigError, DamagedFileError, DataError, SchemaError
from recsys_spark.infra.session import input_errors_explained

_log = logging.getLogger(__name__)

_HEADER_BYTES = 65_536
_HEADER_CHUNK = 4096
_CHECKS_AT_ONCE = 8
_JSON_OPTIONS = {
    # a row's text must not depend on the columns of other files that are read with it
    "ignoreNullFields": "true",
    "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX",  # the default cuts microseconds off
    "timestampNTZFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS",
}


# the last for names that Hadoop does not know how to write, such as one with a colon in a local folder
_UNREADABLE = (Py4JJavaError, AnalysisException, IllegalArgumentException)

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Delivery:
    """Lines of files that share one header (null for formats without one), or one line without text per damaged file."""

    header: str | None
    lines: DataFrame
    is_damage: bool = False
    files: tuple[str, ...] = ()
    """Where the header stands; empty where that is not known or there is none."""


def read_with_salvage(
    spark: SparkSession,
    source: SourceConfig,
    files: list[str],
    run_date: date | None,
    read: Callable[[list[Delivery]], _Result],
) -> _Result:
    """Call read with the deliveries; when a file turns out to be damaged, once more with what can be saved of it.

    Of a truncated archive the lines before the damage are read, of a file that cannot be opened none; each damaged file adds
    one line without text to a delivery of its own, so that it is counted and quarantined. Healthy files cost nothing.
    """
    try:
        with input_errors_explained(source.name):
            deliveries = read_deliveries(spark, source, files, run_date)
        return read(deliveries)
    except DamagedFileError:
        damaged = find_damaged(spark, source, files)
        if not damaged:
            raise
        for file, damage in sorted(damaged.items()):
            _log.warning("damaged_file source=%s file=%s error=%s", source.name, file, damage)
        with input_errors_explained(source.name):
            deliveries = read_deliveries(spark, source, files, run_date, damaged)
        return read(deliveries)


def find_deliveries(spark: SparkSession, source: SourceConfig, run_date: date | None) -> list[str]:
    """Give the files of the source: with date_pattern and a run date that day's only. Raises DataError when there is none."""
    if source.path is None:
        raise ConfigError(f"source {source.name!r} has no path; set sources.events.path or sources.items.path")
    files = list_files(spark, source.path.replace("{date}", str(run_date or "*")))
    if source.date_pattern is not None and run_date is not None:
        files = _files_of(files, source.name, source.date_pattern, run_date)
    if not files:
        day = f" for {run_date}" if run_date else ""
        raise DataError(
            f"source {source.name!r}: expected files at {source.path}{day}, found none; check the path and the date"
        )
    return files


def read_deliveries(
    spark: SparkSession,
    source: SourceConfig,
    files: list[str],
    run_date: date | None,
    damaged: Mapping[str, str] | None = None,
) -> list[Delivery]:
    """Give the physical lines of the files: raw_line (binary, without its newline), source_file, delivery_date.

    With source.date_pattern the delivery date is the file's; without it the run date, or null. Rows of Parquet files become
    JSON lines. damaged (file -> what is wrong) are read as far as they go.
    """
    damaged = damaged or {}
    healthy = [file for file in files if file not in damaged]
    deliveries = _read_group(spark, source, healthy, is_salvage=False) if healthy else []
    if damaged:
        if source.format != "parquet":  # its footer is at the end: a torn file gives no row
            deliveries += _read_group(spark, source, sorted(damaged), is_salvage=True)
        rows = [(None, file) for file in sorted(damaged)]
        files_only = spark.createDataFrame(rows, f"{RAW_LINE} binary, {SOURCE_FILE} string")
        deliveries.append(Delivery(None, files_only, is_damage=True))
    return [replace(d, lines=_with_delivery(d.lines, source, run_date)) for d in deliveries]


def find_damaged(spark: SparkSession, source: SourceConfig, files: list[str]) -> dict[str, str]:
    """Read every compressed file to its end and open every other one; give file -> error for those where that fails."""
    with ThreadPoolExecutor(_CHECKS_AT_ONCE) as pool:
        errors = pool.map(lambda file: _damage(spark, source, file), files)
    return {file: error for file, error in zip(files, errors, strict=True) if error is not None}


def _damage(spark: SparkSession, source: SourceConfig, file: str) -> str | None:
    try:
        if source.format == "parquet":
            _ = spark.read.parquet(*literal_paths([file])).schema
        else:
            with opened(spark, file) as stream:
                if _is_compressed(spark, file):
                    spark._jvm.org.apache.commons.io.IOUtils.consume(stream)  # type: ignore[union-attr]
                else:
                    stream.read()  # nothing in plain text can be torn; it may be unreadable
    except _UNREADABLE as error:
        return str(error.java_exception.toString() if isinstance(error, Py4JJavaError) else error).splitlines()[0]
    return None


def _read_group(spark: SparkSession, source: SourceConfig, files: list[str], is_salvage: bool) -> list[Delivery]:
    if source.format == "parquet":
        return [Delivery(None, lines) for lines in _parquet_lines(spark, files)]
    if source.format == "csv" and source.header is True:
        by_header = _group_by_header(spark, files, source, is_salvage)
        return [
            Delivery(header, _text_lines(spark, group, is_salvage), files=tuple(group))
            for header, group in sorted(by_header.items())
        ]
    return [Delivery(None, _text_lines(spark, files, is_salvage))]


def list_files(spark: SparkSession, path: str) -> list[str]:
    """Give the files at a path, folder (with its subfolders) or glob, sorted.

    Names that start with _ or . are left out, unless the path itself spells them.
    """
    jvm: Any = spark._jvm
    root = jvm.org.apache.hadoop.fs.Path(path)
    file_system = root.getFileSystem(spark._jsc.hadoopConfiguration())
    matches = file_system.globStatus(root)
    is_glob = re.search(r"(?<!\\)[\[{*?]", root.getName()) is not None
    matches = [status for status in matches or () if not (is_glob and _is_hidden(status))]
    folders = [status.getPath() for status in matches if status.isDirectory()]
    found = [str(status.getPath()) for status in matches if status.isFile()]
    while folders:
        for status in file_system.listStatus(folders.pop()):
            if _is_hidden(status):
                continue
            if status.isDirectory():
                folders.append(status.getPath())
            else:
                found.append(str(status.getPath()))
    return sorted(found)


def _is_hidden(status: Any) -> bool:
    return bool(status.getPath().getName().startswith(("_", ".")))


def _group_by_header(
    spark: SparkSession, files: list[str], source: SourceConfig, is_salvage: bool
) -> dict[str, list[str]]:
    by_header: dict[str, list[str]] = defaultdict(list)
    for file in files:
        try:
            header = _first_line(spark, file, source)
        except DamagedFileError:
            if not is_salvage:
                raise
            continue  # torn before its first line ends: without names none of its lines can be read
        if header is None:
            continue  # an empty file has no lines either
        if not header.strip():
            raise SchemaError(
                f"source {source.name!r}: expected names in the first line of {file}, but its first line is blank; "
                "remove that line, or give sources.*.header as a list of names"
            )
        by_header[header].append(file)
    if by_header or is_salvage:
        return by_header
    # where every file is empty, the configured names stand for the header that nobody wrote
    names = [column.column for column in source.columns.values() if column.column]
    return {source.delimiter.join(names): files}


def _text_lines(spark: SparkSession, files: list[str], is_salvage: bool) -> DataFrame:
    # Spark's text reader keeps the bytes of a line as they are, so the cast to binary is the raw line.
    reader = spark.read.option("lineSep", "\n").option("ignoreCorruptFiles", str(is_salvage).lower())
    text = reader.text(literal_paths(files))
    return text.select(F.col("value").cast("binary").alias(RAW_LINE), _file_of_line())


def _file_of_line() -> Column:
    """The file of a line as `list_files` spells it; Spark gives it URL-encoded, with a plus sign that stands for itself."""
    path = F.col("_metadata.file_path")
    decoded = F.url_decode(F.replace(path, F.lit("+"), F.lit("%2B")))
    return F.when(F.contains(path, F.lit("%")), decoded).otherwise(path).alias(SOURCE_FILE)


def _parquet_lines(spark: SparkSession, files: list[str]) -> list[DataFrame]:
    """One frame where all files fit one schema; where a column changed its type, one per schema."""
    try:
        groups = [spark.read.option("mergeSchema", "true").parquet(*literal_paths(files))]
    except Py4JJavaError as error:
        if not str(error.java_exception.getMessage()).startswith("[CANNOT_MERGE_SCHEMAS"):
            raise
        by_schema: dict[str, list[str]] = defaultdict(list)
        for file in files:
            by_schema[spark.read.parquet(*literal_paths([file])).schema.simpleString()].append(file)
        groups = [spark.read.parquet(*literal_paths(group)) for _, group in sorted(by_schema.items())]
    frames = []
    for rows in groups:
        columns = [F.col("`" + name.replace("`", "``") + "`") for name in sorted(rows.columns)]
        line = F.to_json(F.struct(*columns), _JSON_OPTIONS)
        frames.append(rows.select(line.cast("binary").alias(RAW_LINE), _file_of_line()))
    return frames


def _with_delivery(lines: DataFrame, source: SourceConfig, run_date: date | None) -> DataFrame:
    if source.date_pattern is None:
        delivery_date = F.lit(run_date).cast("date")
    else:
        # the pattern may also match text that is no date; as `_date_in` reads it (Spark 4.0 has no F.try_to_date)
        text = F.regexp_extract(SOURCE_FILE, source.date_pattern, 1)
        delivery_date = F.try_to_timestamp(text, F.lit("yyyy-MM-dd")).cast("date")
    return lines.withColumn(DELIVERY_DATE, delivery_date)


def _first_line(spark: SparkSession, file: str, source: SourceConfig) -> str | None:
    """The first line of a text file; null for an empty one. DamagedFileError where reading fails before that line ends."""
    try:
        head = _head(spark, file, _HEADER_CHUNK)
    except _UNREADABLE:
        # what a chunk held before the damage is lost with it: byte by byte is slow, and gives all that there is
        try:
            head = _head(spark, file, 1)
        except _UNREADABLE as error:
            raise DamagedFileError(
                f"source {source.name!r}: {file} cannot be read to the end of its first line, which names the fields"
            ) from error
    if not head:
        return None
    # Java's own decoder: it knows the sets that Spark reads the lines with, and the two results have to be equal
    text = str(spark._jvm.java.lang.String(head.split(b"\n", 1)[0], source.encoding))  # type: ignore[union-attr]
    return text.removeprefix("\ufeff").rstrip("\r")


def _head(spark: SparkSession, file: str, chunk: int) -> bytes:
    """The bytes of a file up to the chunk in which its first line ends, at most _HEADER_BYTES. Raises as the stream does."""
    head = bytearray()
    with opened(spark, file) as stream:
        while len(head) < _HEADER_BYTES and b"\n" not in head:
            part = read_bytes(spark, stream, chunk)
            if not part:
                break
            head += part
    return bytes(head)


def read_bytes(spark: SparkSession, stream: Any, limit: int) -> bytes:
    """At most so many of the next bytes of a Java stream; none at its end."""
    jvm: Any = spark._jvm
    bounded = jvm.org.apache.commons.io.input.BoundedInputStream(stream, limit)
    return bytes(jvm.org.apache.commons.io.IOUtils.toByteArray(bounded))


@contextmanager
def opened(spark: SparkSession, file: str) -> Iterator[Any]:
    """The bytes of a file as a Java stream, decompressed as its name says."""
    jvm: Any = spark._jvm
    path = jvm.org.apache.hadoop.fs.Path(file)
    stream = path.getFileSystem(spark._jsc.hadoopConfiguration()).open(path)
    try:
        codec = _codec(spark, file)
        yield codec.createInputStream(stream) if codec else stream
    finally:
        stream.close()


def _is_compressed(spark: SparkSession, file: str) -> bool:
    return _codec(spark, file) is not None


def _codec(spark: SparkSession, file: str) -> Any:
    """The codec that a file's name asks for, or null."""
    jvm: Any = spark._jvm
    factory = jvm.org.apache.hadoop.io.compress.CompressionCodecFactory(spark._jsc.hadoopConfiguration())
    return factory.getCodec(jvm.org.apache.hadoop.fs.Path(file))


def literal_paths(files: list[str]) -> list[str]:
    """Escape glob characters: Spark expands them again in every path that it is given."""
    return [re.sub(r"([\[\]{}*?\\])", r"\\\1", file) for file in files]


def _files_of(files: list[str], source: str, pattern: str, run_date: date) -> list[str]:
    """The files whose name holds the date; a warning tells of those without any, which no dated run ever reads."""
    dates = {file: _date_in(file, pattern) for file in files}
    undated = sorted(file for file, found in dates.items() if found is None)
    if undated:
        _log.warning(
            "files_without_date source=%s files=%d first=%s date_pattern=%s", source, len(undated), undated[0], pattern
        )
    return [file for file, found in dates.items() if found == run_date]


def _date_in(file: str, pattern: str) -> date | None:
    """The date that the pattern finds in a file's path; null where it finds none, or something that is no YYYY-MM-DD."""
    match = re.search(pattern, file)
    if match is None or not re.fullmatch(r"\d{4}-\d{2}-\d{2}", match.group(1), re.ASCII):
        return None
    try:
        return date.fromisoformat(match.group(1))
    except ValueError:
        return None
