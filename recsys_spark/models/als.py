"""Implicit ALS: Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", 2008. Two engines, one objective."""

from __future__ import annotations

import math

from py4j.protocol import Py4JJavaError
from pyspark.ml.recommendation import ALS
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.columns import ITEM_IDX, USER_IDX, VECTOR
from recsys_spark.config import AlsConfig
from recsys_spark.data.interactions import scaled_weight
from recsys_spark.errors import TrainingError
from recsys_spark.models.als_implicit import ADVICE, fit_implicit, needed_bytes
from recsys_spark.models.driver import check_driver_memory, vectors_frame

_RATING = "_rating"


def fit_als(interactions: DataFrame, config: AlsConfig) -> tuple[DataFrame, DataFrame]:
    """Factorise interactions; give (user_idx, vector) and (item_idx, vector), whose dot product is the predicted preference.

    Needs user_idx, item_idx (int), weight (positive). Confidence is 1 + alpha * scaled weight; reg_param has Spark's meaning
    in both engines. The result depends on the rows, the config and, with engine spark, num_blocks, not on how the rows are
    partitioned. Engine implicit runs Spark jobs and trains on the driver; it raises ConfigError where max_driver_bytes is
    too little or the package is missing.
    """
    rated = interactions.select(USER_IDX, ITEM_IDX, scaled_weight(config.weight_scale).cast("float").alias(_RATING))
    return _fit_on_driver(rated, config) if config.engine == "implicit" else _fit_on_cluster(rated, config)


def _fit_on_driver(rated: DataFrame, config: AlsConfig) -> tuple[DataFrame, DataFrame]:
    counts = rated.agg(F.count("*"), F.count_distinct(USER_IDX), F.count_distinct(ITEM_IDX)).collect()[0]
    needed = needed_bytes(counts[0], counts[1] + counts[2], config.rank)
    check_driver_memory(
        "als.engine: implicit", needed, "als.max_driver_bytes", config.max_driver_bytes, "set als.engine=spark"
    )
    table = rated.toArrow()
    user_idx, item_idx, ratings = (table[name].to_numpy() for name in (USER_IDX, ITEM_IDX, _RATING))
    users, items = fit_implicit(user_idx, item_idx, ratings, config)
    spark = rated.sparkSession
    return vectors_frame(spark, USER_IDX, users.idx, users.vectors), vectors_frame(
        spark, ITEM_IDX, items.idx, items.vectors
    )


def _fit_on_cluster(rated: DataFrame, config: AlsConfig) -> tuple[DataFrame, DataFrame]:
    # a fixed order inside fixed blocks, because floating point sums depend on it
    ordered = rated.repartition(config.num_blocks, USER_IDX).sortWithinPartitions(USER_IDX, ITEM_IDX)
    als = ALS(
        rank=config.rank, maxIter=config.max_iter, regParam=config.reg_param, alpha=config.alpha, seed=config.seed,
        numUserBlocks=config.num_blocks, numItemBlocks=config.num_blocks, implicitPrefs=True,
        userCol=USER_IDX, itemCol=ITEM_IDX, ratingCol=_RATING, intermediateStorageLevel="MEMORY_AND_DISK",
    )  # fmt: skip
    try:
        model = als.fit(ordered)
    except Py4JJavaError as error:
        if "SingularMatrixException" not in str(error.java_exception):
            raise
        raise TrainingError(f"ALS met a matrix that it cannot solve; {ADVICE}") from error
    users = model.userFactors.select(F.col("id").alias(USER_IDX), F.col("features").alias(VECTOR))
    items = model.itemFactors.select(F.col("id").alias(ITEM_IDX), F.col("features").alias(VECTOR))
    return users, items


def check_factors(vectors: DataFrame, what: str) -> None:
    """Raise TrainingError when a factor is not finite. Runs a Spark job."""
    is_finite = F.forall(VECTOR, lambda x: F.abs(x) < math.inf)  # NaN is above infinity in Spark
    broken = vectors.where(~is_finite).count()
    if broken:
        raise TrainingError(
            f"ALS gave {broken} {what} with factors that are not finite; {ADVICE}; the vectors of the run before are kept"
        )
