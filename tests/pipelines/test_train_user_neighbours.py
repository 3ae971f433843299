"""User neighbours from the interactions table: by hand, with either similarity, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from worlds import CUTOFF, table_pdf, trained_blocks_world

from recsys_spark.models import neighbour_blocks
from recsys_spark.pipelines.train_user_neighbours import train_user_neighbours

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def world(spark_session, tmp_path_factory):
    return trained_blocks_world(spark_session, tmp_path_factory)


@pytest.fixture(scope="module")
def weights(spark_session, world):
    """log(1 + weight), users as rows and items as columns."""
    interactions = table_pdf(spark_session, world.config, "interactions")
    return np.log1p(interactions.pivot(index="user_id", columns="item_id", values="weight")).fillna(0.0)


def stored(spark, config):
    rows = table_pdf(spark, config, "user_neighbours")
    assert not rows.duplicated(["user_id", "neighbour_user_id"]).any()
    return dict(zip(zip(rows["user_id"], rows["neighbour_user_id"], strict=True), rows["similarity"], strict=True))


def above_0(similarities, users):
    pairs = [(i, j) for i in range(len(users)) for j in range(len(users)) if i != j and similarities[i, j] > 1e-9]
    return {(users[i], users[j]): pytest.approx(similarities[i, j], rel=1e-5) for i, j in pairs}


def test_cosine_of_what_users_weigh_shrunk_by_1(spark, world, weights):
    values = weights.to_numpy()
    norms = np.linalg.norm(values, axis=1)
    expected = above_0(values @ values.T / (np.outer(norms, norms) + 1.0), list(weights.index))
    assert stored(spark, world.config) == expected


def test_pearson_over_the_whole_catalogue_in_several_blocks(spark, world, weights, tmp_path, monkeypatch):
    settings = {"similarity": "pearson", "shrink": 0.0, "num_neighbours": 3}
    copy = world.copied_to(tmp_path, user_neighbours=settings)
    monkeypatch.setattr(neighbour_blocks, "_SMALLEST_BLOCK", 30)
    assert train_user_neighbours(spark, copy.config, CUTOFF)["blocks"] > 3
    expected = above_0(np.corrcoef(weights.to_numpy()), list(weights.index))
    found = stored(spark, copy.config)
    assert {pair: expected[pair] for pair in found} == found
    for user in weights.index:
        best = sorted((value.expected for (mine, _), value in expected.items() if mine == user), reverse=True)[:3]
        kept = sorted((value for (mine, _), value in found.items() if mine == user), reverse=True)
        np.testing.assert_allclose(kept, best, rtol=1e-5)
