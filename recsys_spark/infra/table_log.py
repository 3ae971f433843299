"""What Delta does not notice about its own log: a newest commit that is gone, and a commit without content."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyspark.sql import SparkSession

from recsys_spark.errors import DataError
from recsys_spark.infra.files import literal_paths


def check_commits(spark: SparkSession, folder: str, table: str) -> None:
    """Raise DataError when the newest commit of the table in a folder is missing or a commit is empty.

    Delta takes both for an older state of the table and gives its rows without a word. Gaps, torn commits and torn checkpoints
    are errors of Delta's own. Costs one listing of the log; a newest commit that is gone together with its .crc leaves no trace.
    """
    newest_commit = newest_checksum = -1
    for version, kind, size in _files_since_checkpoint(spark, f"{folder}/_delta_log"):
        if kind == "crc":
            newest_checksum = max(newest_checksum, version)
            continue
        newest_commit = max(newest_commit, version)
        if kind == "json" and size == 0:
            raise _broken(table, folder, version, "is empty")
    # Delta writes the commit before its .crc; the folder may have been listed between two of another writer's files
    if newest_checksum > newest_commit and not _exists(spark, _commit(folder, newest_checksum)):
        raise _broken(table, folder, newest_checksum, "is missing, but its .crc is there")


def _files_since_checkpoint(spark: SparkSession, log: str) -> Iterator[tuple[int, str, int]]:
    """Version, kind (json, crc, checkpoint...) and bytes of a log's files, newest first, down to the newest checkpoint."""
    jvm: Any = spark._jvm
    pattern = jvm.org.apache.hadoop.fs.Path(f"{literal_paths([log])[0]}/[0-9]*.{{crc,json,parquet}}")
    files = pattern.getFileSystem(spark._jsc.hadoopConfiguration()).globStatus(pattern)
    if files is None:
        return
    # globStatus sorts by path: a version's checkpoint, then its crc, then its json
    for place in reversed(range(len(files))):
        version, _, kind = str(files[place].getPath().getName()).partition(".")
        yield int(version), kind, int(files[place].getLen())
        if kind.startswith("checkpoint"):  # it stands for all before it
            return


def _exists(spark: SparkSession, file: str) -> bool:
    jvm: Any = spark._jvm
    path = jvm.org.apache.hadoop.fs.Path(file)
    return bool(path.getFileSystem(spark._jsc.hadoopConfiguration()).exists(path))


def _commit(folder: str, version: int) -> str:
    return f"{folder}/_delta_log/{version:020}.json"


def _broken(table: str, folder: str, version: int, what: str) -> DataError:
    commit = _commit(folder, version)
    return DataError(
        f"table {table}: expected version {version}, but its commit {commit} {what}; nothing was read or written. Bring the file "
        f"back from a backup; if there is none, move it and {version:020}.crc away, which gives up that version, and run the jobs "
        "of the lost days again: they add what is missing"
    )
