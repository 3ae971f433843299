"""Lists made by joins in Spark, for what does not fit into every worker. Same scores and order as the top-K engine's."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from recsys_spark.columns import ITEM_ID, RANK, SCORE, USER_ID, VALUE, WEIGHT
from recsys_spark.models.recommend import POSITION, SEEN, VIA


def recommend_by_join(
    histories: DataFrame, evidence: DataFrame, seen: DataFrame, items: DataFrame, k: int
) -> DataFrame:
    """List the k items with the most evidence per user: score = sum over the history's rows of weight * value.

    Needs histories (user_id, via, weight), evidence (via, position, value), distinct by their first two columns, seen
    (user_id, seen array<int>) and items (item_id, position), numbered in UTF-8 order. The answer is the one of
    `recommend.recommend_by_neighbours`: only scores above 0, seen items left out, equal scores by item_id.
    """
    parts = histories.join(evidence, on=VIA, how="inner")
    score = F.sum(F.col(WEIGHT).cast("double") * F.col(VALUE).cast("double")).cast("float")
    scores = parts.groupBy(USER_ID, POSITION).agg(score.alias(SCORE)).where(F.col(SCORE) > 0)
    hidden = seen.select(USER_ID, F.explode(SEEN).alias(POSITION))
    listed = best_k(scores.join(hidden, on=[USER_ID, POSITION], how="left_anti"), POSITION, k)
    return listed.join(items, on=POSITION, how="inner").select(USER_ID, ITEM_ID, SCORE, RANK)


def best_k(scores: DataFrame, item: str, k: int) -> DataFrame:
    """Rank every user's scores, highest first, equal ones by the item column, and keep k. Adds rank, from 1.

    Needs user_id, score and the item column: an id, since Spark compares strings by their UTF-8 bytes, or a number in that order.
    """
    best_first = W.partitionBy(USER_ID).orderBy(F.col(SCORE).desc(), F.col(item))
    return scores.withColumn(RANK, F.row_number().over(best_first)).where(F.col(RANK) <= k)
