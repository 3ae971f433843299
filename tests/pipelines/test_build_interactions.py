"""Events of the table -> interactions as of a cutoff, and indexes that only grow."""

from __future__ import annotations

import pytest
from factories import utc
from worlds import CUTOFF, add_events, event, is_past, table_pdf, trained_blocks_world

from recsys_spark.errors import DataError
from recsys_spark.pipelines.build_interactions import build_interactions

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def world(spark_session, tmp_path_factory):
    return trained_blocks_world(spark_session, tmp_path_factory)


@pytest.fixture(scope="module")
def interactions(spark_session, world):
    pdf = table_pdf(spark_session, world.config, "interactions")
    return {(row["user_id"], row["item_id"]): row for row in pdf.to_dict("records")}


def test_one_row_per_pair_with_its_counts_and_times(interactions):
    row = interactions["c0", "C0x"]
    assert (row["weight"], row["count"], row["cutoff"]) == (3.0, 3, CUTOFF)
    first, last = (row[name].tz_localize("UTC") for name in ("first_timestamp", "last_timestamp"))
    assert (first, last) == (utc("2024-02-19 12:00"), utc("2024-03-05 12:00"))  # not the purchase on the cutoff


def test_exactly_what_was_had_often_enough_before_the_cutoff_is_in(interactions, world):
    users = world.users() - {"once", "new"}
    assert set(interactions) == {(user, item) for user in users for item in world.had(user) - {"rare"}}


def test_indexes_hold_every_id_densely_also_those_of_after_the_cutoff(spark, world):
    users = table_pdf(spark, world.config, "user_index")
    items = table_pdf(spark, world.config, "item_index")
    assert set(users["user_id"]) == world.users()
    assert set(items["item_id"]) == {row["item_id"] for row in world.events} - {None}
    for index, name in ((users, "user_idx"), (items, "item_idx")):
        assert sorted(index[name]) == list(range(len(index)))


def test_rerun_replaces_the_pairs_and_changes_no_number_of_an_index(spark, world, tmp_path):
    copy = world.copied_to(tmp_path)
    before = {name: table_pdf(spark, copy.config, name) for name in ("interactions", "user_index", "item_index")}
    add_events(spark, copy.config, [event("a0 is new", "brand new", CUTOFF) | {"event_id": "late"}])

    counts = build_interactions(spark, copy.config, CUTOFF)
    assert counts == {"interactions": len(before["interactions"]), "new_users": 1, "new_items": 1}

    after = {name: table_pdf(spark, copy.config, name) for name in before}
    for name, key in (("user_index", "user_id"), ("item_index", "item_id")):
        numbers = dict(zip(after[name][key], after[name].iloc[:, 1], strict=True))
        assert {raw: numbers[raw] for raw in before[name][key]} == dict(before[name].itertuples(index=False)), name
        assert max(numbers.values()) == len(before[name])
    assert len(after["interactions"]) == len(before["interactions"])


def test_cleaning_reaches_the_interactions_and_its_counts_the_log_line(spark, world, tmp_path, caplog):
    # the user `all` had everything within one hour; no event has a value
    copy = world.copied_to(
        tmp_path,
        interactions={"event_weights": {"glance": 0}, "min_item_events": 2, "weight_column": "value"},
        cleaning={
            "robots": {"max_events_per_hour": 20},
            "missing": {"value": {"method": "default", "default": 2}},
            "outliers": {"value": {"method": "quantile", "high": 0.9}},
        },
    )
    past = [row for row in world.events if is_past(row)]
    robot_events = sum(row["user_id"] == "all" for row in past)

    with caplog.at_level("INFO", logger="recsys_spark"):
        counts = build_interactions(spark, copy.config, CUTOFF)

    expected = {
        "cleaning.dropped": robot_events, "cleaning.robots.users": 1, "cleaning.robots.events": robot_events,
        "cleaning.outliers.value": 0, "cleaning.missing.value": len(past) - robot_events,
    }  # fmt: skip
    assert {name: count for name, count in counts.items() if name.startswith("cleaning.")} == expected
    for name, count in expected.items():
        assert f"{name}={count}" in caplog.text
    pairs = table_pdf(spark, copy.config, "interactions").set_index(["user_id", "item_id"])
    assert "all" not in pairs.index.get_level_values("user_id")
    assert (pairs.loc[("c0", "C0x"), "weight"], pairs.loc[("c0", "C0x"), "count"]) == (6.0, 3)
    assert len(table_pdf(spark, copy.config, "events")) == len(world.events)


def test_no_interaction_left_says_what_to_check(spark, world, tmp_path):
    copy = world.copied_to(tmp_path, interactions={"min_item_events": 1000})
    with pytest.raises(DataError, match=r"no interaction is left before 2024-03-10 out of \d+ events; check the date"):
        build_interactions(spark, copy.config, CUTOFF)


def test_missing_events_table_names_the_job(spark, config):
    with pytest.raises(DataError, match=r"events` does not exist; run jobs/ingest_events.py first"):
        build_interactions(spark, config)
