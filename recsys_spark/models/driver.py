"""Models that are trained in the driver's memory: what they may take of it, and how their vectors go back to Spark."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.columns import VECTOR
from recsys_spark.errors import ConfigError


def check_driver_memory(what: str, needed: int, knob: str, limit: int, otherwise: str) -> None:
    """Raise ConfigError, before anything is collected, when training needs more bytes than the knob allows."""
    if needed > limit:
        raise ConfigError(
            f"{what} trains in the driver's memory and needs about {needed:,} bytes for these interactions, above {knob} = "
            f"{limit:,}; raise it where the driver has as much, beside its JVM, or {otherwise}"
        )


def vectors_frame(spark: SparkSession, key: str, keys: np.ndarray | list[str], vectors: np.ndarray) -> DataFrame:
    """Give a matrix (n, d) as a frame of key, vector array<float>: row i belongs to keys[i]."""
    num_rows, width = vectors.shape
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
    lists = pa.LargeListArray.from_arrays(np.arange(num_rows + 1, dtype=np.int64) * width, flat)
    return spark.createDataFrame(pa.table({key: keys, VECTOR: lists}))
