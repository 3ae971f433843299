"""What the user had before, most and latest first: the baseline to respect where things are bought again."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.columns import CATEGORY, ITEM_ID, RANK, SCORE, USER_ID
from recsys_spark.config import AgainConfig
from recsys_spark.data.interactions import decay
from recsys_spark.data.split import events_before
from recsys_spark.models.joined_lists import best_k


def recommend_again(
    events: DataFrame,
    catalogue: DataFrame,
    config: AgainConfig,
    cutoff: date,
    k: int,
    max_per_category: int | None = None,
) -> DataFrame:
    """List a user's own items by score = sum over past events of 0.5^(age at the cutoff / half-life).

    Needs events (user_id, item_id, timestamp, event_date) and catalogue (item_id; with max_per_category also category, null
    where an item has none and is not limited). Gives user_id, item_id, score, rank: at most k rows per user, equal scores by
    item_id; a user with fewer items gets a shorter list, one without any gets none.
    """
    past = events_before(events, cutoff).join(catalogue, on=ITEM_ID, how="left_semi")
    scores = past.groupBy(USER_ID, ITEM_ID).agg(F.sum(decay(cutoff, config.half_life_days)).cast("float").alias(SCORE))
    if max_per_category is not None:
        scores = scores.join(catalogue.select(ITEM_ID, CATEGORY), on=ITEM_ID, how="inner")
    return best_k(scores, ITEM_ID, k, max_per_category).select(USER_ID, ITEM_ID, SCORE, RANK)
