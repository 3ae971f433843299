"""Both popularity models from the events table, with what may not be counted planted."""

from __future__ import annotations

from datetime import timedelta

import pytest
from worlds import CUTOFF, table_pdf, trained_blocks_world

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def world(spark_session, tmp_path_factory):
    return trained_blocks_world(spark_session, tmp_path_factory)


@pytest.fixture(scope="module")
def vectors(spark_session, world):
    return table_pdf(spark_session, world.config, "item_vectors")


@pytest.mark.parametrize(("model", "days"), [("popular", None), ("popular_recent", 28)])
def test_score_is_the_number_of_distinct_buyers_before_the_cutoff(vectors, world, model, days):
    first = str(CUTOFF - timedelta(days=days or 10_000))
    bought = [row for row in world.events if row["event_type"] == "buy" and first <= row["timestamp"] < str(CUTOFF)]
    expected = {item: len({row["user_id"] for row in bought if row["item_id"] == item}) for item in vectors["item_id"]}
    rows = vectors.query("model == @model")
    assert {item: vector[0] for item, vector in zip(rows["item_id"], rows["vector"], strict=True)} == expected


def test_world_tells_the_two_models_apart(vectors):
    scores = {
        (row["model"], row["item_id"]): row["vector"][0] for row in vectors.to_dict("records") if row["model"] != "als"
    }
    # glancer only glanced at A4, and `new` took A0 on the day of the cutoff; `all` did everything 30 days before
    assert (scores["popular", "A4"], scores["popular_recent", "A4"]) == (6, 5)
    assert (scores["popular", "A0"], scores["popular_recent", "A0"]) == (7, 6)


def test_item_outside_the_catalogue_has_no_vector(vectors):
    assert "rare" not in set(vectors["item_id"])


def test_both_models_have_their_own_version(vectors):
    versions = vectors.groupby("model")["model_version"].unique()
    assert [version.startswith(f"{model}-2024-03-10-") for model, (version,) in versions.items()] == [True] * len(
        versions
    )
    assert {"popular", "popular_recent"} <= set(versions.index)
