"""Read a table that somebody else wrote: Parquet, CSV or Delta by its path, or any table of the catalog by its name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.errors import DamagedFileError, DataError
from recsys_spark.infra import files, tables

_CSV = re.compile(r"\.(csv|tsv|txt)(\.(gz|bz2|zst|lz4|snappy|deflate))?$", re.IGNORECASE)
_TSV = re.compile(r"\.tsv(\.\w+)?$", re.IGNORECASE)
_GLOB = re.compile(r"[*?\[{\\]")
_TABLE_NAME = re.compile(r"[\w-]+(\.[\w-]+){0,2}")
_UNREADABLE = {
    "MALFORMED_RECORD_IN_PARSING": "a line has too many or too few fields",
    "CANNOT_MERGE_SCHEMAS": "its files hold different columns",
    "UNABLE_TO_INFER_SCHEMA": "it holds no columns",
    "CANNOT_READ_FILE_FOOTER": "it is no Parquet file, or a damaged one",
    "FAILED_READ_FILE": "it is damaged",
}
"""Spark's error conditions, the causes before what they cause."""
_PATH = re.compile(r"(?:reading file|footer for file:?) (\S+?)\.? ", re.IGNORECASE)


def is_there(spark: SparkSession, path: str) -> bool:
    """Say whether a path, on any Hadoop file system, holds anything that could be read."""
    return bool(files.list_files(spark, path)) or tables.is_delta_folder(spark, path)


def read_given_table(spark: SparkSession, address: str, delimiter: str | None = None) -> DataFrame:
    """Give a table by its address: a file, folder or glob (a Delta folder is read as Delta), else a name in the catalog.

    Files whose names end in .csv, .tsv or .txt, also compressed, are CSV with a header in UTF-8; their columns are text. The
    delimiter is a comma unless given, in .tsv a tab. Other files are Parquet. Folders named column=value are columns. Raises
    DataError where there is nothing, or where a folder holds both.
    """
    if tables.is_delta_folder(spark, address):
        return tables.read_delta_folder(spark, address)
    found = files.list_files(spark, address)
    if not found:
        return _catalog_table(spark, address)
    text = [file for file in found if _CSV.search(file)]
    if text and len(text) < len(found):
        raise DataError(
            f"{address}: expected files of one kind, found {len(text)} CSV of {len(found)}; name one kind with a glob"
        )
    base = _partition_base(address, found)
    if not text:
        return spark.read.option("basePath", base).parquet(*files.literal_paths(found))
    separator = delimiter or ("\t" if all(_TSV.search(file) for file in text) else ",")
    # FAILFAST: a line with too many or too few fields is an error, not a row with the wrong item
    reader = spark.read.option("header", True).option("sep", separator).option("mode", "FAILFAST")
    reader = reader.option("escape", '"').option("enforceSchema", False).option("basePath", base)
    return reader.csv(files.literal_paths(text))


def _partition_base(address: str, found: list[str]) -> str:
    """Give the folder below which folders named column=value are columns: the one given, or the fixed part of a glob."""
    fixed = _GLOB.split(address, maxsplit=1)[0]
    if fixed != address:
        return fixed.rpartition("/")[0] or ("/" if fixed.startswith("/") else ".")
    is_file = len(found) == 1 and found[0].rstrip("/").rpartition("/")[2] == address.rstrip("/").rpartition("/")[2]
    return found[0].rpartition("/")[0] if is_file else address


@contextmanager
def unreadable_explained(addresses: list[str]) -> Iterator[None]:
    """Turn Spark's errors about unreadable files into one line that names the file; lines of files are never shown."""
    try:
        yield
    except (Py4JJavaError, PySparkException) as error:
        # Spark's own classes show the first of several causes only
        text = f"{error}\n{getattr(error, '_stackTrace', '')}"
        condition = next((condition for condition in _UNREADABLE if condition in text), None)
        if condition is None:
            raise
        path = _PATH.search(text)
        raise DamagedFileError(
            f"{path[1] if path else ' or '.join(addresses)} cannot be read: {_UNREADABLE[condition]}; expected Parquet, Delta, or CSV "
            "in UTF-8 with a header"
        ) from error


def _catalog_table(spark: SparkSession, name: str) -> DataFrame:
    catalog: Any = spark.catalog
    try:
        if _TABLE_NAME.fullmatch(name) and catalog.tableExists(name):
            return spark.table(name)
    except AnalysisException as error:
        raise DataError(f"{name}: there is no such path, and the catalog says: {str(error).splitlines()[0]}") from error
    raise DataError(
        f"{name}: found neither files at this path nor a table of this name in the catalog; check the spelling"
    )
