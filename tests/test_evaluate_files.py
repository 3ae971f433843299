"""`recsys evaluate` from files to what it prints, on a world small enough to compute by hand."""

from __future__ import annotations

import json
import math

import pytest

from recsys_spark.config_evaluation import EvaluationConfig
from recsys_spark.errors import ConfigError, DataError
from recsys_spark.evaluate_files import GivenTables, evaluate_files
from recsys_spark.evaluation.given_lists import GivenColumns

pytestmark = pytest.mark.spark

WANTED = EvaluationConfig(k=(2, 1), num_resamples=200)
# four users, five items: tea 3 users, jam 2, milk 1, bread 1, of 7 interactions
TRAIN = [
    ("1", "tea"),
    ("1", "tea"),
    ("1", "jam"),
    ("2", "tea"),
    ("2", "bread"),
    ("3", "tea"),
    ("3", "milk"),
    ("3", "jam"),
]
TRUTH = [("1", "milk"), ("1", "milk"), ("1", "fig"), ("2", "jam"), ("9", "tea"), ("8", None)]
ALS = {1: ["milk", "tea", "jam"], 2: ["tea", "jam"], 3: ["bread"], 9: ["fig", "tea"]}
POPULAR = {"1": ["tea"], "2": ["tea"], "9": ["tea"]}
CATEGORIES = [("tea", "drink"), ("milk", "drink"), ("jam", "food"), ("bread", "food")]


def write_csv(path, header, rows):
    lines = [",".join("" if value is None else str(value) for value in row) for row in rows]
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def tables(spark_session, tmp_path_factory):
    """Lists as Parquet with whole numbers as ids, everything else as CSV."""
    folder = tmp_path_factory.mktemp("given")
    als = [(user, item, 10.0 - place) for user, items in ALS.items() for place, item in enumerate(items)]
    frame = spark_session.createDataFrame(als, "user_id long, item_id string, score double")
    frame.coalesce(1).write.parquet(str(folder / "als"))
    popular = [(user, item, rank) for user, items in POPULAR.items() for rank, item in enumerate(items, start=1)]
    return GivenTables(
        recommendations=(
            str(folder / "als"),
            f"popular={write_csv(folder / 'lists.csv', 'user_id,item_id,rank', popular)}",
        ),
        truth=write_csv(folder / "truth.csv", "user_id,item_id", TRUTH),
        train=write_csv(folder / "train.csv", "user_id,item_id", TRAIN),
        items=write_csv(folder / "items.csv", "item_id,category", CATEGORIES),
    )


@pytest.fixture(scope="module")
def result(spark_session, tables):
    return evaluate_files(spark_session, tables, WANTED)


@pytest.fixture(scope="module")
def values(result):
    rows = json.loads(result.as_json())["metrics"]
    return {(row["model"], row["slice"], row["metric"], row["k"]): (row["value"], row["num_users"]) for row in rows}


def test_metrics_by_hand(values):
    # truth: 1 {milk, fig}, 2 {jam}, 9 {tea}; hits of als: milk first, jam second, tea second; of popular: tea of 9
    assert values["als", "all", "hr", 2] == (1.0, 3)
    assert values["als", "all", "hr", 1] == (pytest.approx(1 / 3), 3)
    assert values["popular", "all", "mrr", 2] == (pytest.approx(1 / 3), 3)
    ndcg = (1 / (1 + 1 / math.log2(3)) + 2 / math.log2(3)) / 3
    assert values["als", "all", "ndcg", 2] == (pytest.approx(ndcg), 3)


def test_train_gives_coverage_novelty_and_slices(values):
    assert values["als", "all", "coverage", 2] == (
        pytest.approx(4 / 4),
        0,
    )  # tea jam milk bread; the fig is in no catalogue
    assert values["popular", "all", "coverage", 2] == (pytest.approx(1 / 4), 0)
    assert values["popular", "all", "novelty", 2] == (pytest.approx(0), 3)  # all three users of train had tea
    assert values["als", "warm_users", "hr", 1] == (0.5, 2)
    assert values["als", "cold_users", "hr", 1] == (0.0, 1)
    assert values["als", "cold_items", "hr", 2] == (0.0, 1)  # the fig of 1
    assert values["als", "head_items", "hr", 2] == (1.0, 2)  # jam of 2 and tea of 9
    assert values["als", "category:drink", "hr", 1] == (0.5, 2)  # milk of 1 at once, tea of 9 not
    assert not any(name == "new_users" for _, name, *_ in values)  # files tell no times


def test_items_give_diversity_and_calibration(values):
    assert values["als", "all", "diversity", 2] == (pytest.approx((0 + 1 + 1) / 3), 3)  # the fig is a kind of its own
    assert values["als", "all", "miscalibration", 2][1] == 2  # 9 has no past


def test_notices_say_what_does_not_count(result, tables):
    assert list(result.notices) == [
        f"users without any item in {tables.truth}: 1; they do not count",
        "als: 1 of 4 users with a list have no truth; they do not count",
        f"als: 1 of 7 places in the top 2 (14.3%) hold items without a category in {tables.items}; for diversity and calibration they are "
        "one category",
        f"1 of 3 users with truth are not in {tables.train}: they are the slice cold_users",
        f"als: 2 of 7 places in the top 2 (28.6%) hold items that their user had in {tables.train}",
        f"als: 1 of 7 places in the top 2 (14.3%) hold items that nobody had in {tables.train}; coverage leaves them out",
        f"popular: 2 of 3 places in the top 2 (66.7%) hold items that their user had in {tables.train}",
    ]


def test_text_and_json_say_the_same(result):
    text = result.as_text()
    assert text.splitlines()[0] == "truth, k = 2, 3 users"
    assert "ndcg@2 by slice" in text
    assert result.notices[-1] in text
    found = json.loads(result.as_json())
    assert (found["k"], found["notices"]) == ([2, 1], list(result.notices))
    assert [(pair["model"], pair["other"]) for pair in found["comparisons"]] == [("als", "popular")]
    coverage = next(row for row in found["metrics"] if row["metric"] == "coverage")
    assert coverage["ci_low"] is None


def test_lists_and_truth_are_enough(spark, tables, tmp_path):
    rows = [("u1", "x", 1, "a"), ("u1", "x", 1, "b"), ("u2", "q", 1, "a"), ("u1", "x", 1, "old")]
    frame = spark.createDataFrame(rows, "who string, what string, place int, model string")
    frame.write.format("delta").save(str(tmp_path / "lists"))
    truth = write_csv(tmp_path / "t.csv", "who,what", [("u1", "x"), ("u2", "x")])
    names = GivenColumns(user="who", item="what", rank="place")
    given = GivenTables((str(tmp_path / "lists"),), truth, columns=names, where="model <> 'old'")
    result = evaluate_files(spark, given, WANTED)
    found = {(r["model"], r["metric"], r["k"]): r["value"] for r in json.loads(result.as_json())["metrics"]}
    assert (found["a", "hr", 1], found["b", "hr", 1]) == (0.5, 0.5)
    assert {metric for _, metric, _ in found} == {"hr", "recall", "recall_min", "precision", "f1", "ndcg", "map", "mrr"}
    assert result.notices == ("b: 1 of 2 users with truth have no list; they count as 0",)
    assert "by slice" not in result.as_text()


def test_ids_that_do_not_meet_are_an_error_that_shows_their_form(spark, tables, tmp_path):
    truth = write_csv(tmp_path / "other.csv", "user_id,item_id", [("u17", "tea")])
    with pytest.raises(DataError, match=r"users there look like 'a9', in the recommendations like '9'") as raised:
        evaluate_files(spark, GivenTables((tables.recommendations[0],), truth), WANTED)
    assert "u17" not in str(raised.value)


def test_two_tables_of_one_model_are_told_apart_by_names(spark, tables):
    twice = GivenTables((tables.recommendations[0], tables.recommendations[0]), tables.truth)
    with pytest.raises(ConfigError, match="the model 'als' is in another table too; name tables as NAME="):
        evaluate_files(spark, twice, WANTED)


@pytest.mark.parametrize(
    ("rows", "message"),
    [([], "expected users with items, found 0"), ([("1", None)], "found 1 users"), ([(None, "a")], "without a user")],
)
def test_truth_that_says_nothing_is_an_error(spark, tables, tmp_path, rows, message):
    truth = write_csv(tmp_path / "truth.csv", "user_id,item_id", rows)
    with pytest.raises(DataError, match=message):
        evaluate_files(spark, GivenTables((tables.recommendations[0],), truth), WANTED)


def test_a_folder_of_models_is_read_with_its_models(spark, tables, tmp_path):
    rows = [("1", "milk", 1, "a"), ("1", "tea", 1, "b")]
    frame = spark.createDataFrame(rows, "user_id string, item_id string, rank int, model string")
    frame.write.partitionBy("model").parquet(str(tmp_path / "recs"))
    found = evaluate_files(spark, GivenTables((str(tmp_path / "recs"),), tables.truth, where="model = 'b'"), WANTED)
    assert {row["model"] for row in json.loads(found.as_json())["metrics"]} == {"b"}


@pytest.mark.parametrize("where", ["modle = 'x'", "user_id ="])
def test_a_condition_that_does_not_fit_names_the_columns(spark, tables, where):
    with pytest.raises(ConfigError, match=r"--where: expected a condition .* \['user_id', 'item_id', 'score'\]; found"):
        evaluate_files(spark, GivenTables((tables.recommendations[0],), tables.truth, where=where), WANTED)


def test_items_and_train_whose_ids_do_not_meet_are_named_with_their_forms(spark, tables, tmp_path):
    items = write_csv(tmp_path / "items.csv", "item_id,category", [("i-17", "drink")])
    train = write_csv(tmp_path / "train.csv", "user_id,item_id", [("u1", "tea")])
    given = GivenTables((tables.recommendations[0],), tables.truth, train=train, items=items)
    notices = evaluate_files(spark, given, WANTED).notices
    assert (
        f"no listed item has a category: items look like 'a-9' in {items}, like 'a' in the lists (9: digits, a: letters)"
        in notices
    )
    assert any(
        notice.startswith(f"3 of 3 users with truth are not in {train}") and "'a9' there, like '9'" in notice
        for notice in notices
    )
