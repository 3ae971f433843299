"""ALS from the interactions table: whose vectors are stored, when they are replaced, and when the old ones stay."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pyspark.sql import functions as F
from worlds import CUTOFF, table_pdf, trained_blocks_world

from recsys_spark.errors import TrainingError
from recsys_spark.infra import tables
from recsys_spark.pipelines import train_als as pipeline

pytestmark = pytest.mark.spark

ALS = {"rank": 6, "max_iter": 4, "alpha": 5.0, "num_blocks": 2}


@pytest.fixture(scope="module")
def world(spark_session, tmp_path_factory):
    return trained_blocks_world(spark_session, tmp_path_factory)


def vectors(spark, config):
    """(table, raw id) -> vector, and the versions that are stored."""
    found, versions = {}, set()
    for name in ("user_vectors", "item_vectors"):
        rows = table_pdf(spark, config, name).query("model == 'als'")
        assert not rows.iloc[:, 0].duplicated().any()
        found |= {(name, raw): np.array(vector) for raw, vector in zip(rows.iloc[:, 0], rows["vector"], strict=True)}
        versions |= set(rows["model_version"])
    return found, versions


def largest_difference(left, right):
    assert left.keys() == right.keys()
    return max(float(np.abs(left[key] - right[key]).max()) for key in left)


@pytest.fixture(scope="module")
def trained(spark_session, world):
    return vectors(spark_session, world.config)


def test_users_and_items_of_the_interactions_have_vectors_under_their_raw_ids(trained, world):
    found, versions = trained
    assert {raw for name, raw in found if name == "user_vectors"} == world.users() - {"once", "new"}
    assert {raw for name, raw in found if name == "item_vectors"} == {
        row["item_id"] for row in world.events if row["item_id"] not in (None, "rare")
    }
    assert {len(vector) for vector in found.values()} == {6}
    assert len(versions) == 1


def test_other_seed_replaces_vectors_and_version_and_no_other_model(spark, world, trained, tmp_path):
    copy = world.copied_to(tmp_path, als=ALS | {"seed": 1})
    pipeline.train_als(spark, copy.config, CUTOFF)
    found, versions = vectors(spark, copy.config)
    assert largest_difference(found, trained[0]) > 1e-3
    assert versions.isdisjoint(trained[1])
    assert set(table_pdf(spark, copy.config, "item_vectors")["model"]) == {
        "als",
        "ease",
        "popular",
        "popular_recent",
        "feature_factors",
    }


def test_engine_implicit_stores_vectors_of_the_same_users_and_items(spark, world, trained, tmp_path):
    copy = world.copied_to(tmp_path, als=ALS | {"engine": "implicit"})
    pipeline.train_als(spark, copy.config, CUTOFF)
    found, versions = vectors(spark, copy.config)
    assert found.keys() == trained[0].keys()
    assert versions.isdisjoint(trained[1])


@pytest.mark.parametrize("part", [0, 1], ids=["users", "items"])
def test_factors_that_are_not_finite_keep_the_old_vectors(spark, world, trained, tmp_path, monkeypatch, part):
    copy = world.copied_to(tmp_path, als=ALS | {"seed": 1})
    frames = [
        spark.createDataFrame([(0, [0.5, math.nan if number == part else 0.5])], f"{idx} int, vector array<float>")
        for number, idx in enumerate(("user_idx", "item_idx"))
    ]
    monkeypatch.setattr(pipeline, "fit_als", lambda *_: frames)
    with pytest.raises(TrainingError, match=r"not finite.*the vectors of the run before are kept"):
        pipeline.train_als(spark, copy.config, CUTOFF)
    kept, versions = vectors(spark, copy.config)
    assert largest_difference(kept, trained[0]) == 0
    assert versions == trained[1]


def test_absurd_weights_end_in_a_training_error_and_keep_the_old_vectors(spark, world, trained, tmp_path):
    copy = world.copied_to(tmp_path, als=ALS | {"weight_scale": "linear", "alpha": 1e30})
    huge = tables.read_table(spark, copy.config, "interactions", made_by="build_interactions").localCheckpoint()
    tables.replace_partition(
        spark, copy.config, "interactions", huge.withColumn("weight", F.lit(1e38)), {"cutoff": CUTOFF}
    )
    with pytest.raises(TrainingError, match=r"lower als.alpha, raise als.reg_param"):
        pipeline.train_als(spark, copy.config, CUTOFF)
    assert largest_difference(vectors(spark, copy.config)[0], trained[0]) == 0
