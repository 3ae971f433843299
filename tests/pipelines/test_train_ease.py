"""EASE from the interactions table: the stored weights, blocks of users, and a catalogue that is too large."""

from __future__ import annotations

import numpy as np
import pytest
from worlds import CUTOFF, table_pdf, trained_blocks_world

from recsys_spark.errors import TrainingError
from recsys_spark.pipelines import train_ease as pipeline
from recsys_spark.pipelines.train_ease import train_ease

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def world(spark_session, tmp_path_factory):
    return trained_blocks_world(spark_session, tmp_path_factory)


def stored(spark, config):
    """Catalogue in UTF-8 order and the weights as one matrix."""
    rows = table_pdf(spark, config, "item_vectors").query("model == 'ease'")
    vectors = dict(zip(rows["item_id"], rows["vector"], strict=True))
    catalogue = sorted(vectors, key=str.encode)
    return catalogue, np.array([vectors[item] for item in catalogue])


def solved(spark, config, weight_of, regularization):
    interactions = table_pdf(spark, config, "interactions")
    interactions["x"] = weight_of(interactions["weight"])
    matrix = interactions.pivot(index="user_id", columns="item_id", values="x").fillna(0.0)
    catalogue = sorted(matrix.columns, key=str.encode)
    values = matrix[catalogue].to_numpy()
    inverse = np.linalg.inv(values.T @ values + regularization * np.eye(len(catalogue)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return catalogue, weights


def test_stored_weights_are_the_closed_form_over_the_catalogue(spark, world):
    catalogue, weights = stored(spark, world.config)
    expected_catalogue, expected = solved(spark, world.config, np.ones_like, 5.0)
    assert catalogue == expected_catalogue
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-6)


def test_weighted_pairs_some_users_at_a_time(spark, world, tmp_path, monkeypatch):
    copy = world.copied_to(tmp_path, ease={"regularization": 2.0, "weight_scale": "log"})
    monkeypatch.setattr(pipeline, "_INTERACTIONS_AT_ONCE", 100)
    monkeypatch.setattr(pipeline, "_MAX_BATCH_BYTES", 28 * 4 * 9)  # nine rows of weights at a time
    assert train_ease(spark, copy.config, CUTOFF) == {"items": 28}
    np.testing.assert_allclose(
        stored(spark, copy.config)[1], solved(spark, copy.config, np.log1p, 2.0)[1], rtol=1e-4, atol=1e-6
    )


def test_catalogue_that_is_too_large_says_what_it_would_take(spark, world, tmp_path):
    copy = world.copied_to(tmp_path, ease={"max_items": 27})
    with pytest.raises(
        TrainingError, match=r"at most ease.max_items = 27 items, found 28.*interactions.min_item_events"
    ):
        train_ease(spark, copy.config, CUTOFF)
    with pytest.raises(
        TrainingError, match=r"found 50,000, which take 30.0 GB on the driver and 10.0 GB in every worker"
    ):
        pipeline.check_size(50_000, 20_000)
