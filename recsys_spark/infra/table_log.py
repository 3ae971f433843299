"""What Delta does not notice about its own log: a newest commit that is gone, a commit without content, or with a part of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pyspark.sql import SparkSession

from recsys_spark.errors import DataError
from recsys_spark.infra import files
from recsys_spark.infra.files import literal_paths

_MAX_COMMIT_BYTES = 16 * 2**20
# operations that add a file only when it is new, and name every file that they replace; ANALYZE, for one, adds files once more
_COUNTED_OPERATIONS = ("WRITE", "MERGE", "DELETE", "UPDATE", "OPTIMIZE", "REORG", "CREATE TABLE")


class _Stamp(NamedTuple):
    """What tells a file of a log from another one of the same name."""

    size: int
    modified: int


_WHOLE: set[tuple[str, int, _Stamp, _Stamp]] = set()
"""Commits that were found whole: commits never change, so each is read once."""


def check_commits(spark: SparkSession, folder: str, table: str) -> None:
    """Raise DataError when the newest commit of the table in a folder is missing or a commit is empty or lacks some of its lines.

    Delta takes them for an older or another state of the table and gives its rows without a word. Gaps, commits torn within a line
    and torn checkpoints are errors of Delta's own. Costs one listing of the log, and reading every commit once that Delta wrote
    since the checkpoint; a newest commit that is gone together with its .crc leaves no trace.
    """
    newest_commit = newest_checksum = -1
    commits, checksums = {}, {}
    for version, kind, stamp in _files_since_checkpoint(spark, f"{folder}/_delta_log"):
        if kind == "crc":
            newest_checksum, checksums[version] = max(newest_checksum, version), stamp
            continue
        newest_commit = max(newest_commit, version)
        if kind == "json":
            commits[version] = stamp
            if stamp.size == 0:
                raise _broken(table, folder, version, "is empty")
    # Delta writes the commit before its .crc; the folder may have been listed between two of another writer's files
    if newest_checksum > newest_commit and not _exists(spark, _commit(folder, newest_checksum)):
        raise _broken(table, folder, newest_checksum, "is missing, but its .crc is there")
    for version in sorted({0, *(number + 1 for number in checksums)} & set(commits) & set(checksums)):
        _check_lines(spark, folder, table, version, (commits[version], checksums[version]))


def _check_lines(spark: SparkSession, folder: str, table: str, version: int, stamps: tuple[_Stamp, _Stamp]) -> None:
    """Raise DataError when the files that a commit adds and removes are not what the table grew by, as Delta's .crc counted it."""
    seen = (folder, version, *stamps)
    if seen in _WHOLE or stamps[0].size > _MAX_COMMIT_BYTES:
        return
    lines = _read(spark, _commit(folder, version), _MAX_COMMIT_BYTES).splitlines()
    try:
        operation = json.loads(lines[0]).get("commitInfo", {}).get("operation")
    except ValueError:
        raise _broken(table, folder, version, "is torn") from None
    before = _num_files(spark, folder, version - 1) if version else 0
    now = _num_files(spark, folder, version)
    if operation in _COUNTED_OPERATIONS and before is not None and now is not None:
        grown = sum(line.startswith(b'{"add":') for line in lines) - sum(
            line.startswith(b'{"remove":') for line in lines
        )
        if grown != now - before:
            raise _broken(
                table, folder, version, f"lacks lines: its .crc says {now - before:+} files, its lines say {grown:+}"
            )
    _WHOLE.add(seen)


def _num_files(spark: SparkSession, folder: str, version: int) -> int | None:
    """Files of the table in a version; null where the .crc does not say."""
    found = re.search(rb'"numFiles":(\d+)', _read(spark, _commit(folder, version).removesuffix("json") + "crc", 4096))
    return int(found[1]) if found else None


def _read(spark: SparkSession, file: str, limit: int) -> bytes:
    with files.opened(spark, file) as stream:
        return files.read_bytes(spark, stream, limit)


def _files_since_checkpoint(spark: SparkSession, log: str) -> Iterator[tuple[int, str, _Stamp]]:
    """Version, kind (json, crc, checkpoint...) and stamp of a log's files, newest first, down to the newest checkpoint."""
    jvm: Any = spark._jvm
    pattern = jvm.org.apache.hadoop.fs.Path(f"{literal_paths([log])[0]}/[0-9]*.{{crc,json,parquet}}")
    found = pattern.getFileSystem(spark._jsc.hadoopConfiguration()).globStatus(pattern)
    if found is None:
        return
    # globStatus sorts by path: a version's checkpoint, then its crc, then its json
    for place in reversed(range(len(found))):
        version, _, kind = str(found[place].getPath().getName()).partition(".")
        yield int(version), kind, _Stamp(int(found[place].getLen()), int(found[place].getModificationTime()))
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
