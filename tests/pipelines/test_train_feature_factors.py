"""feature_factors through the pipelines, on a world of two clubs where the truth is known: cold items and cold users."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest
from factories import make_config, utc
from worlds import event, table_pdf, write_events

from recsys_spark.errors import ConfigError, DataError, TrainingError
from recsys_spark.infra import tables
from recsys_spark.pipelines import train_feature_factors as pipeline
from recsys_spark.pipelines.build_interactions import build_interactions
from recsys_spark.pipelines.evaluate import evaluate_run
from recsys_spark.pipelines.recommend import recommend
from recsys_spark.pipelines.train_feature_factors import train_feature_factors
from recsys_spark.pipelines.train_popular import train_popular
from recsys_spark.schemas import ITEMS

pytestmark = pytest.mark.spark

CUTOFF = date(2024, 3, 10)
CLUBS = ("tea", "coffee")
FEATURES = {
    "item_features": ["category"], "user_features": ["club"], "embedding_size": 4, "epochs": 20, "batch_size": 16, "seed": 1,
}  # fmt: skip


def world_events():
    """Six members per club; each had four of the club's six items. `seeker` only searched, `late` came after the cutoff."""
    rows = []
    for club in CLUBS:
        for i in range(6):
            for j in range(6):
                if (i + j) % 6 < 4:
                    rows.append(
                        event(f"{club}-u{i}", f"{club}{j}", CUTOFF - timedelta(days=1 + j))
                        | {"attributes": {"club": club}}
                    )
        rows.append(event(f"{club}-u0", f"{club}-new", CUTOFF))
    rows.append(event("seeker", None, CUTOFF - timedelta(days=1), "search") | {"attributes": {"club": "coffee"}})
    rows.append(event("stranger", None, CUTOFF - timedelta(days=1), "search"))
    rows.append(event("late", "tea0", CUTOFF) | {"attributes": {"club": "tea"}})
    return [row | {"event_id": f"e{n}"} for n, row in enumerate(rows)]


def world_items():
    """(item_id, category, updated_at): every item, one more per club that nobody had, and two that cannot be listed."""
    known = [(f"{club}{j}", club, None) for club in CLUBS for j in range(6)]
    cold = [(f"{club}-new", club, utc("2024-03-09")) for club in CLUBS]
    return [*known, *cold, ("tea-of-tomorrow", "tea", utc("2024-03-11")), ("odd", "cocoa", None)]


def write_items(spark, config):
    rows = [
        (i, i, i, category, None, None, None, updated_at, "", "s", "r") for i, category, updated_at in world_items()
    ]
    tables.merge_new(spark, config, "items", spark.createDataFrame(rows, ITEMS))


def world_config(folder, **features):
    return make_config(
        folder,
        split={"validation_start": CUTOFF - timedelta(days=3), "test_start": CUTOFF},
        feature_factors=FEATURES | features,
        recommend={"k": 4, "models": ["popular", "feature_factors"], "tasks": ["discovery"], "fallback": "popular"},
        evaluation={"k": [4]},
    )


@pytest.fixture(scope="module")
def config(spark_session, tmp_path_factory):
    """Everything up to the lists, made once."""
    config = world_config(tmp_path_factory.mktemp("clubs"))
    write_events(spark_session, config, world_events())
    write_items(spark_session, config)
    for step in (build_interactions, train_popular, train_feature_factors, recommend):
        step(spark_session, config, CUTOFF)
    return config


@pytest.fixture(scope="module")
def lists(spark_session, config):
    rows = table_pdf(spark_session, config, "recommendations").sort_values("rank")
    return {model: dict(list(of_model.groupby("user_id"))) for model, of_model in rows.groupby("model")}


@pytest.fixture(scope="module")
def stored(spark_session, config):
    """(users, items): raw id -> vector."""
    found = []
    for name in ("user_vectors", "item_vectors"):
        rows = table_pdf(spark_session, config, name).query("model == 'feature_factors'")
        assert rows["model_version"].nunique() == 1
        found.append(dict(zip(rows.iloc[:, 0], map(np.array, rows["vector"]), strict=True)))
    return found


def items_of(rows):
    return rows["item_id"].tolist()


def test_vectors_are_of_all_that_have_a_learned_feature(stored):
    users, items = stored
    assert set(users) == {f"{club}-u{i}" for club in CLUBS for i in range(6)} | {"seeker"}
    assert set(items) == {f"{club}{j}" for club in CLUBS for j in range(6)} | {"tea-new", "coffee-new"}
    assert {len(vector) for vector in (*users.values(), *items.values())} == {5}


def test_cold_item_of_the_own_club_is_listed_above_that_of_the_other(stored, lists):
    users, items = stored
    for user_id, vector in users.items():
        own = user_id.split("-")[0] if user_id != "seeker" else "coffee"
        other = CLUBS[own == "tea"]
        assert vector @ items[f"{own}-new"] > vector @ items[f"{other}-new"], user_id
    for club in CLUBS:  # two unseen items and the new one are left in the own club
        for i in range(6):
            assert f"{club}-new" in items_of(lists["feature_factors"][f"{club}-u{i}"])[:3]


def test_cold_user_with_a_telling_feature_gets_the_clubs_items(lists):
    rows = lists["feature_factors"]["seeker"]
    assert not rows["is_fallback"].any()
    assert {item.rstrip("012345-new") for item in items_of(rows)} == {"coff"}


def test_users_without_anything_get_the_fallback_and_values_after_the_cutoff_are_not_known(lists):
    for user_id in ("stranger", "late"):
        assert lists["feature_factors"][user_id]["is_fallback"].all()
        assert items_of(lists["feature_factors"][user_id]) == items_of(lists["popular"][user_id])


def test_other_models_list_no_cold_items(lists):
    assert not {item for rows in lists["popular"].values() for item in items_of(rows)} & {"tea-new", "coffee-new"}


def test_evaluation_counts_cold_items_in_the_models_own_catalogue(spark, config):
    metrics = evaluate_run(spark, config, CUTOFF).metrics_pdf.set_index(["model", "slice", "metric"])["value"]
    # both new items were bought by a member of their club, who finds them
    assert metrics["feature_factors", "cold_items", "hr"] == 1
    assert metrics["popular", "cold_items", "hr"] == 0
    lists_pdf = table_pdf(spark, config, "recommendations").query("model == 'feature_factors'")
    listed = set(lists_pdf["item_id"])
    assert {"tea-new", "coffee-new"} <= listed
    assert metrics["feature_factors", "all", "coverage"] == pytest.approx(len(listed) / 14)  # 12 items and 2 cold ones
    # a cold item has its category: lists of u0 hold three items of the own club and one of the other
    assert metrics["feature_factors", "cold_items", "diversity"] == pytest.approx(3 / 6)


def test_factors_that_are_not_finite_keep_the_old_vectors(spark, config, stored):
    broken = config.model_copy(
        update={"feature_factors": config.feature_factors.model_copy(update={"learning_rate": 1e38})}
    )
    with pytest.raises(TrainingError, match="the vectors of the run before are kept"):
        train_feature_factors(spark, broken, CUTOFF)
    rows = table_pdf(spark, config, "item_vectors").query("model == 'feature_factors'")
    assert all((stored[1][raw] == vector).all() for raw, vector in zip(rows["item_id"], rows["vector"], strict=True))


def changed(config, **features):
    return config.model_copy(update={"feature_factors": config.feature_factors.model_copy(update=features)})


def test_a_feature_that_nothing_has_is_named(spark, config):
    with pytest.raises(DataError, match=r"\['colour'\].*no item has a value.*found were values of \['category'\]"):
        train_feature_factors(spark, changed(config, item_features=("category", "colour")), CUTOFF)


def test_too_little_memory_says_what_is_needed(spark, config):
    with pytest.raises(ConfigError, match=r"needs about [\d,]+ bytes.*feature_factors.max_driver_bytes = 1,000"):
        train_feature_factors(spark, changed(config, max_driver_bytes=1000), CUTOFF)


def test_features_of_items_need_an_items_table(spark, config, monkeypatch):
    exists = tables.table_exists
    monkeypatch.setattr(pipeline.tables, "table_exists", lambda *names: names[-1] != "items" and exists(*names))
    with pytest.raises(ConfigError, match=r"items table, which does not exist; run jobs/ingest_items.py"):
        train_feature_factors(spark, config, CUTOFF)
