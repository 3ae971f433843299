"""Features of items and users: which texts they become, and what is known at a cutoff."""

from __future__ import annotations

from datetime import date

import pytest
from factories import make_events, utc

from recsys_spark.config_feature_factors import FeatureFactorsConfig
from recsys_spark.data.features import item_features, known_items, user_features

CUTOFF = date(2024, 3, 10)
ITEMS_SCHEMA = (
    "item_id string, category string, brand string, price double, attributes map<string,string>, updated_at timestamp"
)


def make_items(spark, *rows):
    """(item_id, category, brand, price, attributes, updated_at)."""
    return spark.createDataFrame(list(rows), ITEMS_SCHEMA)


def pairs(frame):
    return sorted(tuple(row) for row in frame.collect())


def test_item_features_are_named_cut_and_distinct(spark):
    items = make_items(
        spark,
        ("film", "Drama| Comedy|Drama|", "Acme", None, {"language": "en", "other": "x"}, None),
        ("book", None, " ", 3.0, None, None),
        ("song", "a+b", "a.c", None, {"language": ""}, None),
    )
    config = FeatureFactorsConfig(item_features=("category", "brand", "language"))
    found = item_features(items, config)
    assert found.columns == ["item_id", "feature"]
    assert pairs(found) == [
        ("film", "brand=Acme"), ("film", "category=Comedy"), ("film", "category=Drama"), ("film", "language=en"),
        ("song", "brand=a.c"), ("song", "category=a+b"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("separator", "expected"),
    [("", ["x=a.b|c"]), (".", ["x=a", "x=b|c"]), ("|", ["x=a.b", "x=c"])],
)
def test_separator_is_no_regular_expression(spark, separator, expected):
    items = make_items(spark, ("i", None, None, None, {"x": "a.b|c"}, None))
    config = FeatureFactorsConfig(item_features=("x",), separator=separator)
    assert [feature for _, feature in pairs(item_features(items, config))] == expected


def test_price_buckets_hold_equally_many_items_and_equal_prices_share_one(spark):
    prices = [1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 5.0, None]
    items = make_items(spark, *[(f"i{n}", None, None, price, None, None) for n, price in enumerate(prices)])
    config = FeatureFactorsConfig(item_features=("price",), price_buckets=2)
    found = dict(pairs(item_features(items, config)))
    assert found == {f"i{n}": "price=0" for n in range(3)} | {f"i{n}": "price=1" for n in range(3, 7)}


def test_items_without_interactions_are_known_if_they_were_there_at_the_cutoff(spark):
    def row(item_id, updated_at):
        return (item_id, None, None, None, None, updated_at and utc(updated_at))

    items = make_items(
        spark,
        row("warm", "2024-05-01"),
        row("old", "2024-03-10 00:00"),
        row("timeless", None),
        row("young", "2024-03-10 00:01"),
    )
    interactions = spark.createDataFrame([("u", "warm"), ("v", "warm")], "user_id string, item_id string")
    for cold_items, expected in ((True, ["old", "timeless", "warm"]), (False, ["warm"])):
        config = FeatureFactorsConfig(cold_items=cold_items)
        known = known_items(items, interactions, config, CUTOFF)
        assert known.columns == items.columns
        assert sorted(row["item_id"] for row in known.collect()) == expected


def test_a_users_feature_is_the_most_frequent_value_and_the_first_of_equals(spark):
    def events_of(user_id, *values):
        return [{"user_id": user_id, "attributes": {"club": value} if value else {}} for value in values]

    events = make_events(
        spark,
        [
            *events_of("often", "tea", "jam", "jam", None, None, None),
            *events_of("equal", "zz", "\uff5e", "Zz", "\U0001f600"),
            *events_of("nobody", None),
            *events_of("both", "tea|jam"),
        ],
    )
    config = FeatureFactorsConfig(user_features=("club",))
    found = user_features(events, config)
    assert found.columns == ["user_id", "feature"]
    assert pairs(found) == [("both", "club=jam"), ("both", "club=tea"), ("equal", "club=Zz"), ("often", "club=jam")]
