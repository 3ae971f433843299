"""Raw ids <-> dense integers. An index only grows: a number that was given out never changes its meaning."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

_BUCKETS = 64
_BUCKET = "_bucket"


def number_new_ids(index: DataFrame, ids: DataFrame, id_column: str, idx_column: str) -> DataFrame:
    """Give (id, idx) rows for the distinct ids that the index lacks, numbered on from its largest number, without gaps.

    The numbers depend on the set of new ids only, not on their order or partitions. Null ids are left out.
    """
    new = ids.select(id_column).where(F.col(id_column).isNotNull()).distinct()
    new = new.join(index.select(id_column), on=id_column, how="left_anti")
    # Numbering in one window would sort all ids in one task: number inside hash buckets, then shift each bucket by the
    # sizes of those before it.
    new = new.withColumn(_BUCKET, F.pmod(F.xxhash64(id_column), F.lit(_BUCKETS)))
    inside = new.withColumn("_number", F.row_number().over(W.partitionBy(_BUCKET).orderBy(id_column)))
    sizes = new.groupBy(_BUCKET).agg(F.count("*").alias("_size"))
    before = sizes.select(F.col(_BUCKET).alias("_other"), F.col("_size").alias("_other_size"))
    lower = sizes.join(F.broadcast(before), on=F.col("_other") < F.col(_BUCKET), how="left")
    shifts = lower.groupBy(_BUCKET).agg(F.coalesce(F.sum("_other_size"), F.lit(0)).alias("_shift"))
    start = index.agg(F.coalesce(F.max(idx_column) + 1, F.lit(0)).alias("_start"))
    numbered = inside.join(F.broadcast(shifts), on=_BUCKET, how="inner").crossJoin(F.broadcast(start))
    idx = F.col("_start") + F.col("_shift") + F.col("_number") - 1
    return numbered.select(id_column, idx.cast("int").alias(idx_column))
