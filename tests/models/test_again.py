"""Repeats: the decayed count by hand, and what may not be in it."""

from __future__ import annotations

from datetime import date

import pytest
from factories import make_events

from recsys_spark.config import AgainConfig
from recsys_spark.models.again import recommend_again

CUTOFF = date(2024, 3, 10)


def lists(spark, events, catalogue, k=10, half_life_days=4.0):
    items = spark.createDataFrame([(item,) for item in catalogue], "item_id string")
    rows = recommend_again(make_events(spark, events), items, AgainConfig(half_life_days=half_life_days), CUTOFF, k)
    assert rows.columns == ["user_id", "item_id", "score", "rank"]
    return sorted(tuple(row) for row in rows.select("user_id", "rank", "item_id", "score").collect())


def bought(item, day, user="ann"):
    return {"user_id": user, "item_id": item, "timestamp": f"2024-03-{day} 00:00:00"}


def test_score_is_the_sum_of_halvings_since_each_event(spark):
    events = [
        bought("milk", "06"),
        bought("milk", "02"),
        bought("tea", "06"),
        bought("tea", "10"),
        bought("gone", "06"),
    ]
    # at the cutoff the 6th is one half-life old, the 2nd two; the 10th is the cutoff and does not exist yet
    assert lists(spark, events, ["milk", "tea"]) == [("ann", 1, "milk", 0.75), ("ann", 2, "tea", 0.5)]


def test_list_ends_at_k_and_ties_go_by_utf8(spark):
    events = [bought(item, "06") for item in ("z", "\U0001f600", "\uff5e", "Z")] + [bought(None, "06")]
    found = [item for _, _, item, _ in lists(spark, events, ["z", "\U0001f600", "\uff5e", "Z"], k=3)]
    assert found == ["Z", "z", "\uff5e"]


def test_user_without_past_gets_no_list(spark):
    events = [bought("milk", "06"), bought("milk", "10", user="bob")]
    assert [row[0] for row in lists(spark, events, ["milk"])] == ["ann"]


def test_more_often_beats_more_recent_only_within_the_half_life(spark):
    events = [bought("often", "01")] * 3 + [bought("lately", "09")]
    assert [row[2] for row in lists(spark, events, ["often", "lately"], half_life_days=100.0)] == ["often", "lately"]
    assert [row[2] for row in lists(spark, events, ["often", "lately"], half_life_days=1.0)] == ["lately", "often"]


@pytest.mark.parametrize("half_life_days", [0.5, 60.0])
def test_scores_are_float32_as_the_table_wants(spark, half_life_days):
    items = spark.createDataFrame([("milk",)], "item_id string")
    rows = recommend_again(make_events(spark, []), items, AgainConfig(half_life_days=half_life_days), CUTOFF, 3)
    assert dict(rows.dtypes)["score"] == "float"


def test_cap_keeps_the_best_of_each_category_and_does_not_limit_items_without_one(spark):
    bought_at = {"milk": "08", "tea": "06", "rice": "04", "soap": "03", "salt": "02"}
    events = make_events(spark, [bought(item, day) for item, day in bought_at.items()])
    categories = {"milk": "drinks", "tea": "drinks", "rice": None, "soap": None, "salt": "spices"}
    items = spark.createDataFrame(list(categories.items()), "item_id string, category string")
    rows = recommend_again(events, items, AgainConfig(), CUTOFF, 4, max_per_category=1).orderBy("rank").collect()
    assert [(row["rank"], row["item_id"]) for row in rows] == [(1, "milk"), (2, "rice"), (3, "soap"), (4, "salt")]
