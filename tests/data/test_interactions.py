"""Events -> interactions: weights, decay, minimum counts, and nothing from the cutoff on."""

from __future__ import annotations

from datetime import date

import pytest
from factories import make_events, table_rows
from pyspark.testing import assertSchemaEqual

from recsys_spark.config import InteractionsConfig
from recsys_spark.data.interactions import build_interactions
from recsys_spark.schemas import INTERACTIONS

CUTOFF = date(2024, 3, 11)


def weights(spark, rows, **config):
    """Give (user, item) -> (weight, count)."""
    pairs = build_interactions(make_events(spark, rows), InteractionsConfig(**config), CUTOFF)
    return {(row.user_id, row.item_id): (round(row.weight, 9), row["count"]) for row in pairs.collect()}


def test_weights_add_up_by_type_and_types_of_weight_zero_are_left_out(spark):
    rows = [
        {"event_type": "view"},
        {"event_type": "buy"},
        {"event_type": "buy"},
        {"event_type": "hover"},
        {"event_type": "hover", "item_id": "only hovered"},
        {"event_type": "like", "item_id": "other type"},
        {"event_type": "search", "item_id": None},
    ]
    found = weights(spark, rows, event_weights={"view": 0.5, "buy": 3, "hover": 0}, default_weight=2)
    assert found == {("u1", "i1"): (6.5, 3), ("u1", "other type"): (2.0, 1)}


def test_a_default_weight_of_zero_keeps_the_named_types_only(spark):
    found = weights(spark, [{"event_type": "view"}, {"event_type": "buy"}], event_weights={"buy": 1}, default_weight=0)
    assert found == {("u1", "i1"): (1.0, 1)}


def test_weight_halves_with_every_half_life_before_the_cutoff(spark):
    rows = [
        {"item_id": "at 0 days", "timestamp": "2024-03-10 23:59:59.999999"},
        {"item_id": "at 5 days", "timestamp": "2024-03-06 00:00:00"},
        {"item_id": "at 10 days", "timestamp": "2024-03-01 00:00:00"},
        {"item_id": "at 2.5 days", "timestamp": "2024-03-08 12:00:00"},
    ]
    found = {item: weight for (_, item), (weight, _) in weights(spark, rows, half_life_days=5).items()}
    assert found == pytest.approx(
        {"at 0 days": 1, "at 5 days": 0.5, "at 10 days": 0.25, "at 2.5 days": 0.5**0.5}, abs=1e-6
    )


def test_nothing_from_the_cutoff_on_is_counted(spark):
    rows = [
        {"timestamp": "2024-03-10 23:59:59.999999"},
        {"timestamp": "2024-03-11 00:00:00"},
        {"timestamp": "2024-03-11 00:00:01", "item_id": "leak"},
        {"timestamp": "2024-03-12 10:00:00", "user_id": "leak"},
    ]
    assert weights(spark, rows) == {("u1", "i1"): (1.0, 1)}


def test_events_behind_the_cutoff_do_not_lift_an_item_over_its_minimum(spark):
    rows = [{"timestamp": "2024-03-10 10:00:00"}, {"timestamp": "2024-03-11 00:00:00"}]
    assert weights(spark, rows, min_item_events=2) == {}


def test_rare_items_go_first_and_then_users_who_are_left_with_too_little(spark):
    rows = [
        *[{"user_id": "u1", "item_id": "frequent"}] * 2,
        {"user_id": "u2", "item_id": "frequent"},
        {"user_id": "u2", "item_id": "rare"},
    ]
    assert weights(spark, rows, min_item_events=2, min_user_events=2) == {("u1", "frequent"): (2.0, 2)}
    assert set(weights(spark, rows, min_user_events=2)) == {("u1", "frequent"), ("u2", "frequent"), ("u2", "rare")}


def test_the_frame_is_the_interactions_table_with_first_and_last_time(spark):
    events = make_events(spark, [{"timestamp": "2024-03-02 10:00:00"}, {"timestamp": "2024-03-01 09:00:00"}])
    pairs = build_interactions(events, InteractionsConfig(), CUTOFF)
    assertSchemaEqual(pairs.schema, INTERACTIONS, ignoreNullable=True)
    assert table_rows(pairs) == [("u1", "i1", "2.0", "2", "2024-03-01 09:00:00", "2024-03-02 10:00:00", "2024-03-11")]


def test_no_events_give_no_interactions(spark):
    assert weights(spark, []) == {}


def test_a_weight_column_multiplies_and_never_gives_a_weight_that_is_negative_or_no_number(spark):
    numbers = {"twice": 2, "missing": None, "zero": 0, "negative": -3, "no number": float("nan"), "huge": 1e308}
    rows = [{"item_id": item, "value": None if number is None else float(number)} for item, number in numbers.items()]
    rows.append({"item_id": "negative", "event_type": "buy", "value": 1.0})
    found = weights(spark, rows, weight_column="value", event_weights={"buy": 3})
    assert found == {
        ("u1", item): weight
        for item, weight in {
            "twice": (2, 1), "missing": (1, 1), "no number": (1, 1), "huge": (1e30, 1), "negative": (3, 1),
        }.items()
    }  # fmt: skip


def test_an_attribute_can_be_the_weight_column(spark):
    rows = [{"attributes": {"stars": text}} for text in ("4", "0.5", "n/a")]
    assert weights(spark, rows, weight_column="stars") == {("u1", "i1"): (5.5, 3)}
