"""Find and read the files of a delivery on any Hadoop file system: the only code that lists folders."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.columns import DELIVERY_DATE, RAW_LINE, SOURCE_FILE
from recsys_spark.config import SourceConfig
from recsys_spark.errors import ConfigError, DataError, SchemaError

_HEADER_BYTES = 65_536
_JSON_OPTIONS = {
    "ignoreNullFields": "false",
    "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX",  # the default cuts microseconds off
    "timestampNTZFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS",
}


@dataclass(frozen=True)
class Delivery:
    """Lines of files that share one header (null for formats without one)."""

    header: str | None
    lines: DataFrame


def read_deliveries(spark: SparkSession, source: SourceConfig, run_date: date | None) -> list[Delivery]:
    """Give the physical lines of the source's files: raw_line (binary, without its newline), source_file, delivery_date.

    With source.date_pattern the delivery date is the file's, and a run date reads that day's files only; without it the
    delivery date is the run date, or null. Rows of Parquet files become JSON lines. Raises DataError when no file is there.
    """
    if source.path is None:
        raise ConfigError(f"source {source.name!r} has no path; set sources.events.path or sources.items.path")
    files = list_files(spark, source.path.replace("{date}", str(run_date or "*")))
    if source.date_pattern is not None and run_date is not None:
        files = [file for file in files if _date_in(file, source.date_pattern) == str(run_date)]
    if not files:
        day = f" for {run_date}" if run_date else ""
        raise DataError(
            f"source {source.name!r}: expected files at {source.path}{day}, found none; check the path and the date"
        )
    if source.format == "parquet":
        return [Delivery(None, _with_delivery(_parquet_lines(spark, files), source, run_date))]
    if source.format == "csv" and source.header is True:
        by_header = _group_by_header(spark, files, source)
        return [
            Delivery(header, _with_delivery(_text_lines(spark, group), source, run_date))
            for header, group in sorted(by_header.items())
        ]
    return [Delivery(None, _with_delivery(_text_lines(spark, files), source, run_date))]


def list_files(spark: SparkSession, path: str) -> list[str]:
    """Give the files at a path, folder (with its subfolders) or glob, sorted; names that start with _ or . are left out."""
    jvm: Any = spark._jvm
    root = jvm.org.apache.hadoop.fs.Path(path)
    file_system = root.getFileSystem(spark._jsc.hadoopConfiguration())
    matches = file_system.globStatus(root)
    found: list[str] = []
    folders = [status.getPath() for status in matches or () if status.isDirectory()]
    found += [str(status.getPath()) for status in matches or () if status.isFile()]
    while folders:
        for status in file_system.listStatus(folders.pop()):
            name = status.getPath().getName()
            if name.startswith(("_", ".")):
                continue
            if status.isDirectory():
                folders.append(status.getPath())
            else:
                found.append(str(status.getPath()))
    return sorted(found)


def _group_by_header(spark: SparkSession, files: list[str], source: SourceConfig) -> dict[str, list[str]]:
    by_header: dict[str, list[str]] = defaultdict(list)
    for file in files:
        header = _first_line(spark, file, source)
        if header is None:
            continue  # an empty file has no lines either
        if not header.strip():
            raise SchemaError(
                f"source {source.name!r}: expected names in the first line of {file}, but its first line is blank; "
                "remove that line, or give sources.*.header as a list of names"
            )
        by_header[header].append(file)
    # where every file is empty, the configured names stand for the header that nobody wrote
    names = [column.column for column in source.columns.values() if column.column]
    return by_header or {source.delimiter.join(names): files}


def _text_lines(spark: SparkSession, files: list[str]) -> DataFrame:
    # Spark's text reader keeps the bytes of a line as they are, so the cast to binary is the raw line.
    text = spark.read.option("lineSep", "\n").text(_literal_paths(files))
    return text.select(F.col("value").cast("binary").alias(RAW_LINE), F.col("_metadata.file_path").alias(SOURCE_FILE))


def _parquet_lines(spark: SparkSession, files: list[str]) -> DataFrame:
    rows = spark.read.option("mergeSchema", "true").parquet(*_literal_paths(files))
    line = F.to_json(F.struct(*[F.col(f"`{name}`") for name in rows.columns]), _JSON_OPTIONS)
    return rows.select(line.cast("binary").alias(RAW_LINE), F.col("_metadata.file_path").alias(SOURCE_FILE))


def _with_delivery(lines: DataFrame, source: SourceConfig, run_date: date | None) -> DataFrame:
    if source.date_pattern is None:
        delivery_date = F.lit(run_date).cast("date")
    else:
        # try_cast, because the pattern may also match text that is no date
        delivery_date = F.regexp_extract(SOURCE_FILE, source.date_pattern, 1).try_cast("date")
    return lines.withColumn(DELIVERY_DATE, delivery_date)


def _first_line(spark: SparkSession, file: str, source: SourceConfig) -> str | None:
    jvm: Any = spark._jvm
    path = jvm.org.apache.hadoop.fs.Path(file)
    hadoop_conf = spark._jsc.hadoopConfiguration()
    stream = path.getFileSystem(hadoop_conf).open(path)
    try:
        codec = jvm.org.apache.hadoop.io.compress.CompressionCodecFactory(hadoop_conf).getCodec(path)
        head = bytes(jvm.org.apache.commons.io.IOUtils.toByteArray(
            jvm.org.apache.commons.io.input.BoundedInputStream(codec.createInputStream(stream) if codec else stream, _HEADER_BYTES)
        ))  # fmt: skip
    finally:
        stream.close()
    if not head:
        return None
    return head.split(b"\n", 1)[0].decode(source.encoding, errors="replace").removeprefix("\ufeff").rstrip("\r")


def _literal_paths(files: list[str]) -> list[str]:
    """Escape glob characters: Spark expands them again in every path that it is given."""
    return [re.sub(r"([\[\]{}*?\\])", r"\\\1", file) for file in files]


def _date_in(file: str, pattern: str) -> str | None:
    match = re.search(pattern, file)
    return match.group(1) if match else None
