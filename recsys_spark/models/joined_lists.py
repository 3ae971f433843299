"""Lists made by joins in Spark, for what does not fit into every worker. Same scores and order as the top-K engine's."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from recsys_spark.columns import CATEGORY, ITEM_ID, RANK, SCORE, USER_ID, VALUE, WEIGHT
from recsys_spark.models.recommend import POSITION, SEEN, VIA


def recommend_by_join(
    histories: DataFrame,
    evidence: DataFrame,
    seen: DataFrame,
    items: DataFrame,
    k: int,
    max_per_category: int | None = None,
) -> DataFrame:
    """List the k items with the most evidence per user: score = sum over the history's rows of weight * value.

    Needs histories (user_id, via, weight), evidence (via, position, value), distinct by their first two columns, seen
    (user_id, seen array<int>) and items (item_id, position; with max_per_category also category), numbered in UTF-8 order. The
    answer is the one of `recommend.recommend_by_neighbours`: only scores above 0, seen items left out, equal scores by item_id.
    """
    parts = histories.join(evidence, on=VIA, how="inner")
    score = F.sum(F.col(WEIGHT).cast("double") * F.col(VALUE).cast("double")).cast("float")
    scores = parts.groupBy(USER_ID, POSITION).agg(score.alias(SCORE)).where(F.col(SCORE) > 0)
    hidden = seen.select(USER_ID, F.explode(SEEN).alias(POSITION))
    candidates = scores.join(hidden, on=[USER_ID, POSITION], how="left_anti")
    if max_per_category is not None:
        candidates = candidates.join(items.select(POSITION, CATEGORY), on=POSITION, how="inner")
    listed = best_k(candidates, POSITION, k, max_per_category).select(USER_ID, POSITION, SCORE, RANK)
    return listed.join(items, on=POSITION, how="inner").select(USER_ID, ITEM_ID, SCORE, RANK)


def best_k(scores: DataFrame, item: str, k: int, max_per_category: int | None = None) -> DataFrame:
    """Rank every user's scores, highest first, equal ones by the item column, and keep k. Adds rank, from 1.

    Needs user_id, score and the item column: an id, since Spark compares strings by their UTF-8 bytes, or a number in that order.
    max_per_category leaves out items beyond so many better ones of their category (null is not limited) before the cut.
    """
    order = (F.col(SCORE).desc(), F.col(item))
    if max_per_category is not None:
        in_category = F.row_number().over(W.partitionBy(USER_ID, CATEGORY).orderBy(*order))
        is_within = F.col(CATEGORY).isNull() | (F.col("_number") <= max_per_category)
        scores = scores.withColumn("_number", in_category).where(is_within).drop("_number")
    return scores.withColumn(RANK, F.row_number().over(W.partitionBy(USER_ID).orderBy(*order))).where(F.col(RANK) <= k)
