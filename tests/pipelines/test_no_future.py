"""A leak planted into the events table: what happens from the cutoff on changes nothing that is learned or listed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from factories import make_events, table_rows
from worlds import BLOCK_USERS, CUTOFF, add_events, event, trained_blocks_world

from recsys_spark.errors import DataError
from recsys_spark.infra import tables
from recsys_spark.pipelines.build_interactions import build_interactions
from recsys_spark.pipelines.recommend import recommend
from recsys_spark.pipelines.train_neighbours import train_neighbours
from recsys_spark.pipelines.train_popular import train_popular

pytestmark = pytest.mark.spark

MODELS = ("popular", "popular_recent", "neighbours")


@pytest.fixture(scope="module")
def world(spark_session, tmp_path_factory):
    return trained_blocks_world(spark_session, tmp_path_factory)


def learned(spark, config):
    """Everything that was learned or listed, without the version's name, which tells the state of the events table."""
    names = ("interactions", "item_vectors", "item_neighbours", "recommendations")
    frames = {name: tables.read_table(spark, config, name, made_by="this test") for name in names}
    by_model = {
        name: frame.where(frame["model"].isin(*MODELS)) if "model" in frame.columns else frame
        for name, frame in frames.items()
    }
    return {name: table_rows(frame.drop("model_version")) for name, frame in by_model.items()}


def test_events_from_the_cutoff_on_change_nothing_that_is_learned_or_listed(spark, world, tmp_path):
    copy = world.copied_to(tmp_path, recommend={"k": 5, "models": MODELS})
    # every user of the blocks takes the least popular items again and again, from midnight on
    planted = [
        event(user, item, CUTOFF + timedelta(days=days), at="00:00:00") | {"event_id": f"leak-{user}-{item}-{days}"}
        for user in BLOCK_USERS for item in ("C0x", "d0", "rare") for days in range(2)
    ]  # fmt: skip
    add_events(spark, copy.config, planted)
    for step in (build_interactions, train_popular, train_neighbours, recommend):
        step(spark, copy.config, CUTOFF)
    before, after = learned(spark, world.config), learned(spark, copy.config)
    for name in before:
        assert before[name], name
        assert after[name] == before[name], name


def test_later_event_under_an_earlier_date_stops_the_build(spark, world, tmp_path):
    copy = world.copied_to(tmp_path)
    leak = make_events(spark, [event("a0", "A0", CUTOFF) | {"event_id": "leak"}])
    dated = leak.selectExpr(
        *[name for name in leak.columns if name != "event_date"], f"DATE'{CUTOFF - timedelta(days=1)}' AS event_date"
    )
    tables.merge_new(spark, copy.config, "events", dated)
    with pytest.raises(DataError, match=r"1 events have an event_date before 2024-03-10 and a timestamp that is not"):
        build_interactions(spark, copy.config, CUTOFF)
