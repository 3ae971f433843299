"""Data roots for a while: tunes and backtests run the pipelines there, beside the tables that others read."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
from pyspark.sql import SparkSession

from recsys_spark.config import Config
from recsys_spark.infra import tables

FOLDER = "scratch"
_BETWEEN = "__"  # no host name holds it


@contextmanager
def scratch_root(spark: SparkSession, config: Config, label: str) -> Iterator[Config]:
    """Give the config with an empty data root of its own below data_root/scratch, and remove that root with its tables at the end.

    Tables are folders there, also where the config names a catalog. Roots that killed jobs of this machine left are removed
    first. Nothing but tables belongs there: MLflow and reports stay with the config's own root.
    """
    _sweep(spark, config)
    name = _BETWEEN.join((label, socket.gethostname(), str(os.getpid()), uuid.uuid4().hex[:8]))
    root = f"{_scratch_folder(config)}/{name}"
    in_folders = config.tables.model_copy(update={"catalog": None})
    try:
        yield config.model_copy(update={"data_root": root, "tables": in_folders})
    finally:
        _remove(spark, root)


def remove_all(spark: SparkSession, config: Config) -> bool:
    """Remove every scratch root, also those in use, whose jobs fail then; say whether there was one."""
    return _remove(spark, _scratch_folder(config))


def _sweep(spark: SparkSession, config: Config) -> None:
    for name in _names_in(spark, _scratch_folder(config)):
        parts = name.split(_BETWEEN)
        is_ours = len(parts) == 4 and parts[1] == socket.gethostname() and parts[2].isdigit()
        if is_ours and not psutil.pid_exists(int(parts[2])):
            _remove(spark, f"{_scratch_folder(config)}/{name}")


def _scratch_folder(config: Config) -> str:
    return f"{tables.absolute_root(config)}/{FOLDER}"


def _names_in(spark: SparkSession, folder: str) -> list[str]:
    file_system, path = _file_system(spark, folder)
    return [status.getPath().getName() for status in file_system.listStatus(path)] if file_system.exists(path) else []


def _remove(spark: SparkSession, folder: str) -> bool:
    file_system, path = _file_system(spark, folder)
    return bool(file_system.delete(path, True))


def _file_system(spark: SparkSession, folder: str) -> tuple[Any, Any]:
    jvm: Any = spark._jvm
    path = jvm.org.apache.hadoop.fs.Path(folder)
    return path.getFileSystem(spark._jsc.hadoopConfiguration()), path
