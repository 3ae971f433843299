"""The Spark edge of the top-K engine: equal to a plain numpy brute force, whatever the partitions."""

from __future__ import annotations

import numpy as np
import pytest
from model_checks import top_k_by_sorting
from pyspark.sql import functions as F
from scipy import sparse

from recsys_spark.config_approximate import ApproximateConfig
from recsys_spark.models.approximate import build_index
from recsys_spark.models.category_cap import CategoryCap
from recsys_spark.models.recommend import (
    ItemMatrix,
    catalogue_positions,
    collect_category_cap,
    collect_item_matrix,
    recommend_by_index,
    recommend_by_neighbours,
    recommend_by_vectors,
    share_index,
)

USERS = "user_id string, vector array<float>, seen array<int>"
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def problem():
    """60 users, 40 items and small whole numbers, so that scores are exact and tie often."""
    rng = np.random.default_rng(5)
    item_ids = sorted((f"{'zZé😀'[i % 4]}{i}" for i in range(40)), key=str.encode)
    items = rng.integers(-2, 3, (40, 3)).astype(np.float32)
    excluded = rng.random(40) < 0.1
    users = {}
    for i in range(60):
        seen = None if i % 3 == 0 else [int(x) for x in rng.choice(40, size=i % 38, replace=False)]
        users[f"u{i}"] = ([float(x) for x in rng.integers(-2, 3, 3)], seen)
    users["saw all"] = ([1.0, 1.0, 1.0], list(range(40)))
    return users, ItemMatrix(item_ids, items, excluded)


def as_lists(frame):
    assert frame.dtypes == [("user_id", "string"), ("item_id", "string"), ("score", "float"), ("rank", "int")]
    found: dict[str, list[tuple[str, float]]] = {}
    for row in sorted(frame.collect(), key=lambda row: row["rank"]):
        found.setdefault(row["user_id"], []).append((row["item_id"], row["score"]))
        assert row["rank"] == len(found[row["user_id"]])
    return found


def brute_force(users, matrix, k):
    answer = {}
    for user_id, (vector, seen) in users.items():
        scores = dict(zip(matrix.item_ids, (matrix.vectors @ np.array(vector, np.float32)).tolist(), strict=True))
        hidden = {matrix.item_ids[i] for i in [*(seen or []), *np.flatnonzero(matrix.excluded)]}
        if best := top_k_by_sorting(scores, hidden, k):
            answer[user_id] = best
    return answer


@pytest.mark.parametrize(("by", "k"), [("user_id", 5), ("1", 5), ("size(seen)", 100)])  # "1": two partitions are empty
def test_equals_brute_force_whatever_the_partitions(spark, problem, by, k):
    users, matrix = problem
    rows = spark.createDataFrame([(user, *values) for user, values in users.items()], USERS).repartition(3, F.expr(by))
    found = as_lists(recommend_by_vectors(rows, spark.sparkContext.broadcast(matrix), k, MEBIBYTE))
    assert found == brute_force(users, matrix, k)
    assert "saw all" not in found


def test_small_batches_in_and_out_give_the_same_lists(spark, problem, monkeypatch):
    users, matrix = problem
    monkeypatch.setattr("recsys_spark.models.recommend._MAX_LIST_ROWS", 10)  # two users at once
    rows = spark.createDataFrame([(user, *values) for user, values in users.items()], USERS)
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "7")
    try:
        found = as_lists(recommend_by_vectors(rows.coalesce(1), spark.sparkContext.broadcast(matrix), 5, MEBIBYTE))
    finally:
        spark.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")
    assert found == brute_force(users, matrix, 5)


def test_no_users_give_no_lists(spark, problem):
    frame = spark.createDataFrame([], USERS)
    assert as_lists(recommend_by_vectors(frame, spark.sparkContext.broadcast(problem[1]), 5, MEBIBYTE)) == {}


@pytest.mark.parametrize("vectors", [[[1.0, 2.0]], [[1.0], [1.0, 2.0, 3.0, 4.0, 5.0]]], ids=["short", "sum fits"])
def test_user_vector_of_another_length_is_a_clear_error(spark, problem, vectors):
    rows = spark.createDataFrame([(f"u{i}", vector, None) for i, vector in enumerate(vectors)], USERS).coalesce(1)
    with pytest.raises(Exception, match="every user vector must have 3 numbers as the item vectors have"):
        recommend_by_vectors(rows, spark.sparkContext.broadcast(problem[1]), 5, MEBIBYTE).collect()


def test_item_matrix_has_catalogue_order_and_excludes_items_without_a_vector(spark):
    rows = [("b", [1.0, 2.0]), ("not in the catalogue", [9.0, 9.0]), ("a", [3.0, 4.0])]
    vectors = spark.createDataFrame(rows, "item_id string, vector array<float>")
    matrix = collect_item_matrix(vectors, ["a", "b", "c"])
    assert matrix.vectors.tolist() == [[3.0, 4.0], [1.0, 2.0], [0.0, 0.0]]
    assert matrix.excluded.tolist() == [False, False, True]


def test_item_matrix_of_no_vectors_excludes_everything(spark):
    matrix = collect_item_matrix(spark.createDataFrame([], "item_id string, vector array<float>"), ["a"])
    assert matrix.excluded.tolist() == [True]


@pytest.mark.parametrize(
    "item_ids", [["b", "a"], ["a", "a"], ["\U0001f600", "\uff5e"]], ids=["order", "twice", "utf16"]
)
def test_positions_need_distinct_ids_in_utf8_order(spark, item_ids):
    with pytest.raises(ValueError, match="distinct and in UTF-8 order"):
        catalogue_positions(spark, item_ids)


def test_positions_number_the_catalogue_from_0(spark):
    rows = catalogue_positions(spark, ["a", "\uff5e", "\U0001f600"]).collect()
    assert [tuple(row) for row in rows] == [("a", 0), ("\uff5e", 1), ("\U0001f600", 2)]


def test_neighbour_lists_equal_the_sum_of_similarities(spark):
    ids = ["a", "b", "c", "d"]
    similarity = sparse.csr_matrix(
        np.array([[0, 0.5, 0.25, 0], [0.5, 0, 0.5, 0], [0.25, 0.5, 0, 0], [0, 0, 0, 0]], np.float32)
    )
    rows = [("had a", [0], [1.0], None), ("had a, b", [0, 1], [1.0, 2.0], [0, 1]), ("had d", [3], [1.0], None)]
    users = spark.createDataFrame(rows, "user_id string, position array<int>, weights array<float>, seen array<int>")
    found = as_lists(recommend_by_neighbours(users, spark.sparkContext.broadcast((ids, similarity)), 3, MEBIBYTE))
    # nothing speaks for an item: it is not listed, and a user for whom nothing speaks has no list
    assert found == {"had a": [("b", 0.5), ("c", 0.25)], "had a, b": [("c", 0.25 + 2 * 0.5)]}


def test_index_that_reaches_every_worker_gives_the_exact_lists_when_it_visits_everything(spark, problem):
    pytest.importorskip("faiss", reason="the extra `ann` is not installed")
    users, matrix = problem
    file = share_index(spark, build_index(matrix.vectors, matrix.excluded, ApproximateConfig()), "als-2024")
    rows = spark.createDataFrame([(user_id, *rest) for user_id, rest in users.items()], USERS).repartition(2)
    found = as_lists(recommend_by_index(rows, spark.sparkContext.broadcast(matrix), file, 5, 8, MEBIBYTE))
    assert found == brute_force(
        users, matrix, 5
    )  # overfetch takes all 40 items, so that ties at the end are defined too


def test_caps_hold_for_vectors_and_for_neighbours(spark):
    ids, cap = ["a", "b", "c", "d"], spark.sparkContext.broadcast(CategoryCap(np.array([0, 0, 1, -1], np.int32), 1))
    vectors = spark.sparkContext.broadcast(
        ItemMatrix(ids, np.array([[4], [3], [2], [1]], np.float32), np.zeros(4, dtype=bool))
    )
    users = spark.createDataFrame([("u", [1.0], None)], USERS)
    found = as_lists(recommend_by_vectors(users, vectors, 3, MEBIBYTE, cap))
    assert found == {"u": [("a", 4.0), ("c", 2.0), ("d", 1.0)]}
    similarity = sparse.csr_matrix(np.array([[0, 0.5, 0.25, 0.75]] + [[0] * 4] * 3, np.float32))
    users = spark.createDataFrame(
        [("u", [0], [1.0], [3])], "user_id string, position array<int>, weights array<float>, seen array<int>"
    )
    found = as_lists(recommend_by_neighbours(users, spark.sparkContext.broadcast((ids, similarity)), 3, MEBIBYTE, cap))
    assert found == {"u": [("b", 0.5), ("c", 0.25)]}


def test_category_codes_follow_the_catalogue_and_missing_categories_are_none(spark):
    rows = [("b", "film"), ("not in the catalogue", "book"), ("a", "game"), ("d", None), ("e", "film")]
    cap = collect_category_cap(spark.createDataFrame(rows, "item_id string, category string"), list("abcde"), 2)
    assert (cap.categories.tolist(), cap.limit) == ([0, 1, -1, -1, 1], 2)
