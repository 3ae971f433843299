"""Every recommender, through the real pipelines on the blocks world (tests/worlds.py), against tests/model_checks.py."""

from __future__ import annotations

import numpy as np
import pytest
from factories import make_items
from model_checks import (
    TOLERANCE,
    as_lists,
    check_at_most_k,
    check_beats,
    check_fallback,
    check_no_item_twice,
    check_nothing_seen,
    check_only_catalogue,
    check_ranks,
    check_same_lists,
    check_schema,
    check_scores_are_finite,
    mean_recall,
    top_k_by_sorting,
)
from worlds import (
    BLOCK_USERS,
    CUTOFF,
    MODELS,
    REPEATERS,
    TWIN_ITEMS,
    UNKNOWN_USERS,
    add_events,
    blocks_world,
    event,
    run_line,
    table_pdf,
    trained_blocks_world,
)

from recsys_spark.errors import DataError, ModelError
from recsys_spark.infra import tables
from recsys_spark.infra.user_rows import remove_users
from recsys_spark.models.approximate import build_index
from recsys_spark.pipelines.recommend import recommend

pytestmark = pytest.mark.spark

LISTS = [("next", model) for model in MODELS] + [("discovery", model) for model in MODELS if model != "again"]
DISCOVERY = [model for task, model in LISTS if task == "discovery"]
every_list = pytest.mark.parametrize(("task", "model"), LISTS)


@pytest.fixture(scope="module")
def world(spark_session, tmp_path_factory):
    return trained_blocks_world(spark_session, tmp_path_factory)


@pytest.fixture(scope="module")
def recommendations(spark_session, world):
    return table_pdf(spark_session, world.config, "recommendations")


@pytest.fixture(scope="module")
def interactions(spark_session, world):
    return table_pdf(spark_session, world.config, "interactions")


@pytest.fixture(scope="module")
def lists_of(recommendations):
    def rows_of(task, model, pdf=recommendations):
        return pdf[(pdf["task"] == task) & (pdf["model"] == model)]

    return rows_of


@pytest.fixture(scope="module")
def other_world(spark_session, tmp_path_factory):
    """The same events in another order, in five files and with five shuffle partitions, trained from nothing."""
    before = spark_session.conf.get("spark.sql.shuffle.partitions")
    spark_session.conf.set("spark.sql.shuffle.partitions", "5")
    # the mask of discovery is checked by check_nothing_seen
    models = [model for model in MODELS if model != "popular_recent"]
    recommending = {"k": 5, "tasks": ["next"], "models": models, "max_broadcast_bytes": 0}  # neighbours by join
    other = blocks_world(spark_session, tmp_path_factory.mktemp("other"), partitions=5, recommend=recommending)
    run_line(spark_session, other.config)
    spark_session.conf.set("spark.sql.shuffle.partitions", before)
    return table_pdf(spark_session, other.config, "recommendations")


def test_every_task_and_model_has_lists(recommendations):
    assert set(zip(recommendations["task"], recommendations["model"], strict=True)) == set(LISTS)


def test_table_has_the_contracts_columns_and_no_nulls(spark, world):
    check_schema(tables.read_table(spark, world.config, "recommendations", made_by="recommend"))


@every_list
def test_lists_have_at_most_k_items(lists_of, task, model):
    check_at_most_k(lists_of(task, model), k=5)


@every_list
def test_ranks_follow_the_scores_and_ties_the_utf8_order(lists_of, task, model):
    check_ranks(lists_of(task, model))


@every_list
def test_scores_are_finite_float32(lists_of, task, model):
    check_scores_are_finite(lists_of(task, model))


@every_list
def test_no_item_stands_twice_in_a_list(lists_of, task, model):
    check_no_item_twice(lists_of(task, model))


@every_list
def test_only_items_of_the_catalogue_are_listed(lists_of, interactions, task, model):
    assert "rare" not in set(interactions["item_id"])
    check_only_catalogue(lists_of(task, model), set(interactions["item_id"]))


@pytest.mark.parametrize("model", DISCOVERY)
def test_discovery_never_shows_what_a_user_had(lists_of, world, model):
    assert "rare" in world.had("a1")  # left out of the interactions by min_item_events
    assert "B0" in world.had("once")  # left out of the interactions by min_user_events
    check_nothing_seen(lists_of("discovery", model), world.had)


@pytest.mark.parametrize("model", DISCOVERY)
def test_user_who_had_everything_gets_no_discovery(lists_of, model):
    assert "all" not in set(lists_of("discovery", model)["user_id"])


@every_list
def test_exactly_the_unknown_users_get_the_marked_fallback(lists_of, task, model):
    unknown = set() if model in ("popular", "popular_recent") else UNKNOWN_USERS
    check_fallback(lists_of(task, model), lists_of(task, "popular_recent"), unknown)


@every_list
def test_every_user_of_the_index_has_a_list(lists_of, world, task, model):
    everybody = world.users() - ({"all"} if task == "discovery" else set())
    assert set(lists_of(task, model)["user_id"]) == everybody


@pytest.mark.parametrize("model", ["popular", "again", "neighbours", "user_neighbours", "feature_factors"])
def test_other_order_files_partitions_and_a_join_give_the_same_lists(lists_of, other_world, model):
    check_same_lists(lists_of("next", model), lists_of("next", model, other_world))


@pytest.mark.parametrize("model", ["ease", "als"])
def test_other_order_files_and_partitions_give_nearly_the_same_lists(lists_of, other_world, model):
    check_same_lists(lists_of("next", model), lists_of("next", model, other_world), TOLERANCE)


@pytest.mark.parametrize("model", ["neighbours", "user_neighbours", "ease", "als", "feature_factors"])
def test_learned_models_find_the_own_block_where_popularity_cannot(lists_of, world, model):
    truth = world.truth(BLOCK_USERS)
    check_beats(lists_of("discovery", model), lists_of("discovery", "popular"), truth, at_least=0.95, k=3)


def test_again_beats_popularity_where_people_buy_the_same_again(lists_of, world):
    check_beats(lists_of("next", "again"), lists_of("next", "popular"), world.truth(REPEATERS), at_least=1.0, k=2)


def test_popularity_serves_the_larger_block_only(lists_of, world):
    small, large = [user for user in BLOCK_USERS if user[0] == "a"], [user for user in BLOCK_USERS if user[0] == "b"]
    popular = lists_of("discovery", "popular")
    assert mean_recall(popular, world.truth(small), k=3) == 0
    assert mean_recall(popular, world.truth(large), k=3) > 0.5


@pytest.mark.parametrize("model", ["again", "neighbours", "user_neighbours", "ease", "als"])
def test_ties_go_by_utf8_not_by_utf16_or_case(lists_of, model):
    items = [item for item, _ in as_lists(lists_of("next", model))["d0"]][:4]
    if model in ("ease", "als"):  # equal items do not promise equal bits of a solution or a dot product
        assert set(items) == set(TWIN_ITEMS)
    else:
        assert items == TWIN_ITEMS


def test_again_counts_no_event_of_weight_0(lists_of):
    assert "A4" not in [item for item, _ in as_lists(lists_of("next", "again"))["glancer"]]


# what is stored is enough to make the same lists


def check_lists_of_scores(found, scores, hidden, only_positive=False):
    """A list is the top of these scores, but for items of nearly equal score."""
    expected = top_k_by_sorting(scores, hidden, k=5, only_positive=only_positive)
    np.testing.assert_allclose([s for _, s in found], [s for _, s in expected], atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose([scores[item] for item, _ in found], [s for _, s in expected], atol=TOLERANCE, rtol=0)


def weighted_sum(weights, values_of):
    """item -> sum over what weights holds of weight * value of the item there."""
    scores: dict[str, float] = {}
    for name, weight in weights.items():
        for item, value in values_of.get(name, {}).items():
            scores[item] = scores.get(item, 0.0) + weight * value
    return scores


def nested(pdf, outer, inner, value):
    return {name: dict(zip(rows[inner], rows[value], strict=True)) for name, rows in pdf.groupby(outer)}


OF_VECTORS = ("popular", "popular_recent", "als", "feature_factors")


@pytest.mark.parametrize(("task", "model"), [pair for pair in LISTS if pair[1] in OF_VECTORS])
def test_stored_vectors_give_the_same_lists(spark, world, lists_of, interactions, task, model):
    items = table_pdf(spark, world.config, "item_vectors").query("model == @model")
    users = table_pdf(spark, world.config, "user_vectors").query("model == @model")
    vectors = dict(zip(users["user_id"], users["vector"], strict=True)) or {user_id: [1.0] for user_id in world.users()}
    lists = as_lists(lists_of(task, model).query("not is_fallback"))
    for user_id, vector in vectors.items():
        scores = {
            item: float(np.dot(vector, other)) for item, other in zip(items["item_id"], items["vector"], strict=True)
        }
        check_lists_of_scores(lists.get(user_id, []), scores, world.had(user_id) if task == "discovery" else ())


@pytest.fixture(scope="module")
def histories(interactions):
    return nested(interactions.assign(log_weight=np.log1p(interactions["weight"])), "user_id", "item_id", "log_weight")


@pytest.mark.parametrize("task", ["next", "discovery"])
def test_stored_neighbours_give_the_same_lists(spark, world, lists_of, histories, task):
    similar = nested(table_pdf(spark, world.config, "item_neighbours"), "item_id", "neighbour_id", "similarity")
    lists = as_lists(lists_of(task, "neighbours").query("not is_fallback"))
    for user_id, history in histories.items():
        hidden = world.had(user_id) if task == "discovery" else ()
        check_lists_of_scores(lists.get(user_id, []), weighted_sum(history, similar), hidden, only_positive=True)


@pytest.mark.parametrize("task", ["next", "discovery"])
def test_stored_user_neighbours_give_the_same_lists(spark, world, lists_of, histories, task):
    similar = nested(table_pdf(spark, world.config, "user_neighbours"), "user_id", "neighbour_user_id", "similarity")
    lists = as_lists(lists_of(task, "user_neighbours").query("not is_fallback"))
    for user_id, of_user in similar.items():
        hidden = world.had(user_id) if task == "discovery" else ()
        check_lists_of_scores(lists.get(user_id, []), weighted_sum(of_user, histories), hidden, only_positive=True)


@pytest.mark.parametrize("task", ["next", "discovery"])
def test_stored_weights_of_ease_give_the_same_lists(spark, world, lists_of, histories, task):
    items = table_pdf(spark, world.config, "item_vectors").query("model == 'ease'")
    catalogue = sorted(items["item_id"], key=str.encode)
    weights = {
        item: dict(zip(catalogue, vector, strict=True))
        for item, vector in zip(items["item_id"], items["vector"], strict=True)
    }
    assert all(of_item[item] == 0 for item, of_item in weights.items())
    lists = as_lists(lists_of(task, "ease").query("not is_fallback"))
    for user_id, history in histories.items():
        scores = weighted_sum(dict.fromkeys(history, 1.0), weights)
        check_lists_of_scores(lists.get(user_id, []), scores, world.had(user_id) if task == "discovery" else ())


# runs over what is there


def test_rerun_replaces_its_own_partition_and_no_other(spark, world, recommendations, lists_of, tmp_path):
    recommending = {"k": 3, "models": ["popular"], "tasks": ["next"]}
    copy = world.copied_to(tmp_path, recommend=recommending, evaluation={"k": [3]})
    assert recommend(spark, copy.config, CUTOFF) == {"next.popular": 3 * len(world.users())}
    after = table_pdf(spark, copy.config, "recommendations")
    is_rerun = (after["task"] == "next") & (after["model"] == "popular")
    check_same_lists(after[is_rerun], lists_of("next", "popular").query("rank <= 3"))
    others = recommendations[(recommendations["task"] != "next") | (recommendations["model"] != "popular")]
    assert len(after[~is_rerun]) == len(others)


def test_an_erased_user_gets_no_lists(spark, world, tmp_path):
    copy = world.copied_to(tmp_path, recommend={"models": ["popular"], "tasks": ["next"]})
    gone = spark.createDataFrame([("a1",), ("new",)], "user_id string")
    assert remove_users(spark, copy.config, "user_index", gone) == 2
    recommend(spark, copy.config, CUTOFF)
    lists_pdf = table_pdf(spark, copy.config, "recommendations").query("task == 'next' and model == 'popular'")
    assert set(lists_pdf["user_id"]) == world.users() - {"a1", "new"}


def test_stored_rows_carry_the_version_of_their_model(spark, world, recommendations):
    vectors = table_pdf(spark, world.config, "item_vectors")
    stored = dict(zip(vectors["model"], vectors["model_version"], strict=True))
    listed = dict(zip(recommendations["model"], recommendations["model_version"], strict=True))
    assert {model: listed[model] for model in stored} == stored
    assert recommendations.groupby("model")["model_version"].nunique().max() == 1


def test_date_without_interactions_names_those_there_are(spark, world):
    with pytest.raises(DataError, match=r"no interactions of cutoff 2024-03-01.*2024-03-10.*build_interactions"):
        recommend(spark, world.config, CUTOFF.replace(day=1))


def test_default_date_is_the_split_of_all_events_as_in_the_other_pipelines(spark, world, tmp_path):
    # with the glances 99 of 267 events are from the cutoff on; without them 69 of 235 would be less than the share
    copy = world.copied_to(
        tmp_path, split={"test_share": 0.3, "validation_share": 0.1}, recommend={"models": ["popular"], "tasks": ["next"]},
    )  # fmt: skip
    add_events(spark, copy.config, [event("a0", "A1", CUTOFF, "glance") | {"event_id": f"g{i}"} for i in range(30)])
    assert recommend(spark, copy.config) == {"next.popular": 20 * len(world.users())}


def test_model_that_was_not_trained_names_its_job(spark, world, tmp_path):
    copy = world.copied_to(tmp_path, recommend={"models": ["als"], "tasks": ["next"]})
    tables.replace_partition(
        spark, copy.config, "user_vectors",
        tables.read_table(spark, copy.config, "user_vectors", made_by="train_als").limit(0), {"run_date": CUTOFF},
    )  # fmt: skip
    with pytest.raises(
        ModelError, match=r"'als' was not trained for 2024-03-10; run jobs/train_als.py --date 2024-03-10"
    ):
        recommend(spark, copy.config, CUTOFF)


def test_vectors_of_two_training_runs_are_refused(spark, world, tmp_path):
    copy = world.copied_to(tmp_path, recommend={"models": ["als"], "tasks": ["next"]})
    users = tables.read_table(spark, copy.config, "user_vectors", made_by="train_als").localCheckpoint()
    tables.replace_model(spark, copy.config, "user_vectors", users, "als", "als-of-another-run", CUTOFF)
    with pytest.raises(ModelError, match=r"als-of-another-run.*do not belong together.*train_als"):
        recommend(spark, copy.config, CUTOFF)


def test_weights_of_ease_for_another_catalogue_are_refused(spark, world, tmp_path):
    copy = world.copied_to(tmp_path, recommend={"models": ["ease"], "tasks": ["next"]})
    interactions = tables.read_table(spark, copy.config, "interactions", made_by="build_interactions").localCheckpoint()
    without_one = interactions.where("item_id != 'A0'")
    tables.replace_partition(spark, copy.config, "interactions", without_one, {"cutoff": CUTOFF})
    with pytest.raises(
        ModelError, match=r"weights between the 27 items.*28 of another catalogue.*train the model again"
    ):
        recommend(spark, copy.config, CUTOFF)


# caps per category


def test_no_list_holds_more_of_a_category_than_its_cap(spark, world, tmp_path):
    models = ["popular", "again", "neighbours", "ease", "als"]
    copy = world.copied_to(
        tmp_path, recommend={"k": 5, "models": models, "tasks": ["next"], "max_per_category": 2},
    )  # fmt: skip
    category = {f"{block}{i}": block for block in "AB" for i in range(8)} | {TWIN_ITEMS[0]: None}
    tables.upsert(spark, copy.config, "items", make_items(spark, category), "true")
    recommend(spark, copy.config, CUTOFF)
    lists_pdf = table_pdf(spark, copy.config, "recommendations").query("task == 'next' and model in @models")
    categories = lists_pdf["item_id"].map(category)
    per_category = lists_pdf[categories.notna()].groupby(["model", "user_id", categories]).size()
    assert per_category.max() == 2
    assert set(per_category.groupby("model").max()) == {2}
    check_ranks(lists_pdf.query("model == 'popular'"))
    # skipped items are replaced while there are others: everybody has 5 of popular's list, which B alone would fill
    assert (lists_pdf.query("model == 'popular'").groupby("user_id").size() == 5).all()


def test_cap_without_any_category_says_where_categories_come_from(spark, world, tmp_path):
    copy = world.copied_to(tmp_path, recommend={"models": ["popular"], "tasks": ["next"], "max_per_category": 2})
    with pytest.raises(DataError, match=r"table .*items.* does not exist; run jobs/ingest_items.py"):
        recommend(spark, copy.config, CUTOFF)
    tables.upsert(spark, copy.config, "items", make_items(spark, {"A0": None}), "true")
    with pytest.raises(DataError, match=r"none of the \d+ items of the catalogue has a category.*ingest_items"):
        recommend(spark, copy.config, CUTOFF)


# the approximate index


def approximate_world(world, folder, **settings):
    recommending = {"k": 5, "models": ["popular", "als"], "tasks": ["discovery"], "index": "approximate"}
    return world.copied_to(folder, recommend=recommending, approximate=settings)


def test_index_that_visits_every_cell_gives_the_lists_of_the_exact_engine(spark, world, lists_of, tmp_path, caplog):
    pytest.importorskip("faiss", reason="the extra `ann` is not installed")
    copy = approximate_world(world, tmp_path)
    with caplog.at_level("INFO", logger="recsys_spark"):
        recommend(spark, copy.config, CUTOFF)
    assert "model=als items=28 cells=1 discovery_recall_at_10=1 discovery_exact_share=" in caplog.text
    again = table_pdf(spark, copy.config, "recommendations").query("task == 'discovery'")
    for model in ("popular", "als"):
        check_same_lists(lists_of("discovery", model), again.query("model == @model"), TOLERANCE)


def test_index_below_the_floor_stops_the_job_before_any_list_is_written(spark, world, tmp_path, monkeypatch):
    pytest.importorskip("faiss", reason="the extra `ann` is not installed")
    # an index whose cells hold the opposite of every item finds the worst ones first, and enough of them
    monkeypatch.setattr(
        "recsys_spark.pipelines.recommend.build_index",
        lambda vectors, excluded, config: build_index(-vectors, excluded, config),
    )
    copy = approximate_world(world, tmp_path)
    before = tables.delta_version(spark, copy.config, "recommendations")
    message = r"of als \(discovery\) finds 0\.\d+ of the exact first 10 .*min_recall = 0.95.*no list was written; raise"
    with pytest.raises(ModelError, match=message):
        recommend(spark, copy.config, CUTOFF)
    assert tables.delta_version(spark, copy.config, "recommendations") == before
