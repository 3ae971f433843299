"""Dates of interactions, models and lists that nobody needs any more: all but the newest are deleted."""

from __future__ import annotations

from datetime import date
from functools import partial
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import Column, SparkSession
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from recsys_spark.columns import CUTOFF, MODEL, RUN_DATE
from recsys_spark.config import Config
from recsys_spark.infra import tables
from recsys_spark.schemas import TABLES

EXPIRING = ("interactions", "user_vectors", "item_vectors", "item_neighbours", "user_neighbours", "recommendations")
"""Tables that every night adds a date to; metrics and table_stats are small and a history worth keeping."""


def keep_newest_dates(spark: SparkSession, config: Config, name: str, number: int) -> int:
    """Delete all but the newest dates of a table, those of each model apart; give how many (of models) were deleted.

    Whole partitions go, so no file is rewritten; their bytes go with the VACUUM after the retention. A writer that was faster
    makes it start again.
    """
    tables.check_log(spark, config, name)
    partitions = TABLES[name].partition_by
    dated, of = (CUTOFF if CUTOFF in partitions else RUN_DATE), [column for column in (MODEL,) if column in partitions]
    address = tables.table_address(config, name)
    place = F.row_number().over(W.partitionBy(*of).orderBy(F.desc(dated)))
    dates = spark.table(address).select(*of, dated).distinct().withColumn("place", place)
    expired = dates.where(F.col("place") > number).select(*of, dated).collect()
    newest_expired: dict[tuple[Any, ...], date] = {}
    for row in expired:
        key = tuple(row[column] for column in of)
        newest_expired[key] = max(row[dated], newest_expired.get(key, row[dated]))
    for key, last in newest_expired.items():
        condition = F.col(dated) <= F.lit(last)
        for column, value in zip(of, key, strict=True):
            condition &= F.col(column) == F.lit(value)
        tables.retry_on_conflict(partial(_delete, spark, address, condition), config, name)
    return len(expired)


def _delete(spark: SparkSession, address: str, condition: Column) -> None:
    DeltaTable.forName(spark, address).delete(condition)
