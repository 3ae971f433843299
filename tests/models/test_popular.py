"""Popularity: distinct users, the recent window's borders, and nothing from the cutoff on."""

from __future__ import annotations

from datetime import date

import pytest
from factories import make_events

from recsys_spark.models.popular import popular_item_vectors, same_vector_for

CUTOFF = date(2024, 3, 10)


def popularity(spark, events, catalogue, last_days=None):
    items = spark.createDataFrame([(item,) for item in catalogue], "item_id string")
    rows = popular_item_vectors(make_events(spark, events), items, CUTOFF, last_days).collect()
    assert all(len(row["vector"]) == 1 for row in rows)
    return {row["item_id"]: row["vector"][0] for row in rows}


@pytest.fixture
def events():
    def at(day, user, item):
        return {"user_id": user, "item_id": item, "timestamp": f"2024-03-{day} 00:00:00"}

    return [
        at("01", "ann", "bread"), at("02", "ann", "bread"), at("09", "bob", "bread"),  # three events of two users
        at("08", "ann", "milk"), at("09", "cat", None), at("09", "cat", "unlisted"),
        at("10", "cat", "milk"), at("10", "dan", "leak"),  # midnight of the cutoff
    ]  # fmt: skip


def test_distinct_users_before_the_cutoff_are_counted(spark, events):
    assert popularity(spark, events, ["bread", "milk", "leak", "never"]) == {
        "bread": 2, "milk": 1, "leak": 0, "never": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("last_days", "bread"), [(1, 1), (8, 2), (9, 2)])
def test_recent_window_starts_at_midnight_that_many_days_before(spark, events, last_days, bread):
    assert popularity(spark, events, ["bread"], last_days) == {"bread": bread}


def test_event_one_day_before_the_window_is_not_counted(spark):
    events = [{"item_id": "i1", "timestamp": "2024-03-01 23:59:59"}]
    assert popularity(spark, events, ["i1"], last_days=8) == {"i1": 0}
    assert popularity(spark, events, ["i1"], last_days=9) == {"i1": 1}


def test_everybody_gets_the_same_vector(spark):
    users = spark.createDataFrame([("ann",), ("bob",)], "user_id string")
    assert [tuple(row) for row in same_vector_for(users).collect()] == [("ann", [1.0]), ("bob", [1.0])]
