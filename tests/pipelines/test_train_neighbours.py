"""Neighbours from the interactions table: by hand, and independent of the blocks of the tasks."""

from __future__ import annotations

import math

import pytest
from worlds import CUTOFF, TWIN_ITEMS, table_pdf, trained_blocks_world

from recsys_spark.models import neighbour_blocks
from recsys_spark.pipelines.train_neighbours import train_neighbours

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def world(spark_session, tmp_path_factory):
    return trained_blocks_world(spark_session, tmp_path_factory)


@pytest.fixture(scope="module")
def neighbours(spark_session, world):
    return as_dict(table_pdf(spark_session, world.config, "item_neighbours"))


def as_dict(pdf):
    assert not pdf.duplicated(["item_id", "neighbour_id"]).any()
    return {(row["item_id"], row["neighbour_id"]): row["similarity"] for row in pdf.to_dict("records")}


def test_similarity_by_hand_with_shrink_1(neighbours):
    # c0 and `all` had both; d0, d1 and `all` had all twins; only `all` had one of each
    assert neighbours["C0x", "C0y"] == pytest.approx(2 / (2 + 1))
    assert neighbours[TWIN_ITEMS[0], TWIN_ITEMS[3]] == pytest.approx(3 / (3 + 1))
    assert neighbours["C0x", TWIN_ITEMS[0]] == pytest.approx(1 / (math.sqrt(2 * 3) + 1))


def test_similarity_is_symmetric_and_no_item_is_its_own_neighbour(neighbours):
    assert all(neighbours[other, item] == similarity for (item, other), similarity in neighbours.items())
    assert all(item != other for item, other in neighbours)


def test_blocks_of_the_tasks_change_nothing(spark, world, neighbours, tmp_path, monkeypatch):
    copy = world.copied_to(tmp_path)
    monkeypatch.setattr(neighbour_blocks, "_SMALLEST_BLOCK", 30)
    counts = train_neighbours(spark, copy.config, CUTOFF)
    assert counts["items"] == 28
    assert counts["blocks"] > 3
    assert as_dict(table_pdf(spark, copy.config, "item_neighbours")) == neighbours


def test_only_the_nearest_are_kept(spark, world, neighbours, tmp_path):
    copy = world.copied_to(tmp_path, neighbours={"num_neighbours": 3, "shrink": 1.0})
    train_neighbours(spark, copy.config, CUTOFF)
    found = as_dict(table_pdf(spark, copy.config, "item_neighbours"))
    for item in {item for item, _ in neighbours}:
        of_item = [(-similarity, other.encode()) for (mine, other), similarity in neighbours.items() if mine == item]
        assert sorted((-s, other.encode()) for (mine, other), s in found.items() if mine == item) == sorted(of_item)[:3]
