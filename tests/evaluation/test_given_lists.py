"""Tables of any origin: what is understood, and what the errors say. Literal frames."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from recsys_spark.errors import DataError, SchemaError
from recsys_spark.evaluation.given_lists import (
    GivenColumns,
    check_lists,
    common_forms,
    given_categories,
    given_lists,
    given_pairs,
    ranked_lists,
)

COLUMNS = GivenColumns()
LISTS = "model string, user_id string, item_id string, rank double, score double"


def pairs_of(spark, rows, schema, columns=COLUMNS):
    return {tuple(row) for row in given_pairs(spark.createDataFrame(rows, schema), columns, "truth").collect()}


def test_ids_of_any_type_become_text(spark):
    rows = [(1, 2.0, Decimal("3.00"), 1.5, "")]
    frame = spark.createDataFrame(rows, "a long, b double, c decimal(9,2), d double, e string")
    found = [
        given_pairs(frame, GivenColumns(user=user, item=item), "truth").first()
        for user, item in (("a", "b"), ("C", "d"), ("a", "e"))
    ]
    assert [tuple(row) for row in found] == [("1", "2"), ("3", "1.5"), ("1", None)]


def test_a_gap_in_a_column_of_decimals_is_a_missing_id(spark):
    assert pairs_of(spark, [(1.0, math.nan), (2.0, None)], "user_id double, item_id double") == {
        ("1", None),
        ("2", None),
    }


def test_lists_are_ordered_by_rank_then_score_then_item_as_utf8(spark):
    rows = [
        ("m", "ann", "b", 7.0, 0.5), ("m", "ann", "a", 3.0, 0.1), ("m", "ann", "d", 7.0, 0.9),  # ranks need not be dense
        ("m", "bob", "\U0001f600", None, 0.5), ("m", "bob", "\uff5e", None, 0.5), ("m", "bob", "z", None, 0.7),
        ("m", "cat", "x", 1.0, None), ("m", "cat", "w", 1.0, None),
    ]  # fmt: skip
    ranked = ranked_lists(spark.createDataFrame(rows, LISTS), "t").orderBy("user_id", "rank").collect()
    assert [(row["user_id"], row["item_id"]) for row in ranked] == [
        ("ann", "a"), ("ann", "d"), ("ann", "b"), ("bob", "z"), ("bob", "\uff5e"), ("bob", "\U0001f600"), ("cat", "w"), ("cat", "x"),
    ]  # fmt: skip
    assert [row["rank"] for row in ranked] == [1, 2, 3, 1, 2, 3, 1, 2]


def test_the_model_is_the_tables_own_or_the_name_given(spark):
    frame = spark.createDataFrame(
        [("ann", "a", "0.5", "knn")], "user_id string, item_id string, score string, model string"
    )
    assert given_lists(frame, COLUMNS, "file", "F").first().asDict() == {
        "model": "knn", "user_id": "ann", "item_id": "a", "rank": None, "score": 0.5,
    }  # fmt: skip
    assert given_lists(frame.drop("model"), COLUMNS, "file", "F").first()["model"] == "file"


def test_categories_are_one_per_item(spark):
    frame = spark.createDataFrame([(1, "b"), (1, "a"), (2, None), (None, "c")], "item_id int, category string")
    assert {tuple(row) for row in given_categories(frame, COLUMNS, "items").collect()} == {("1", "a"), ("2", None)}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (
            "user_id string, movie string, rank int",
            r"\['item_id'\] are missing: name them with --user-column, --item-column",
        ),
        ("user_id string, item_id string, value double", "a column 'rank' or 'score' that orders the lists"),
        (
            "user_id string, item_id array<string>, rank int",
            r"text or numbers in the column 'item_id', found array<string>",
        ),
        ("user_id boolean, item_id string, rank int", r"text or numbers in the column 'user_id', found boolean"),
        ("user_id string, item_id string, score boolean", r"numbers in the column 'score', found boolean"),
    ],
)
def test_missing_columns_and_wrong_types_are_named(spark, schema, message):
    with pytest.raises(SchemaError, match=message):
        given_lists(spark.createDataFrame([], schema), COLUMNS, "m", "F.csv")


@pytest.mark.parametrize(
    ("rows", "has_rank", "message"),
    [
        ([], True, "expected lists, found no row"),
        ([("m", None, "a", 1.0, 1.0)], True, "1 of 1 rows without a user"),
        ([("m", "ann", None, 1.0, 1.0), ("m", "ann", "b", 2.0, 1.0)], True, "1 of 2 rows without an item"),
        ([(None, "ann", "a", 1.0, 1.0)], True, "1 of 1 rows without a model"),
        ([("m", "ann", "a", math.nan, 1.0)], True, "whose rank is missing, NaN or no number"),
        ([("m", "ann", "a", 1.0, math.nan)], True, "whose score is missing, NaN or no number"),
        (
            [("m", "ann", "a", None, math.nan), ("m", "ann", "b", None, None)],
            False,
            "2 of 2 rows whose score is missing",
        ),
        (
            [("m", "ann", "a", 1.0, 1.0), ("m", "ann", "a", 9.0, 1.0), ("n", "ann", "a", 1.0, 1.0)],
            True,
            "1 of 3 rows repeat an item",
        ),
    ],
)
def test_lists_that_cannot_be_measured_are_refused_with_a_number(spark, rows, has_rank, message):
    with pytest.raises(DataError, match=rf"^F.csv: .*{message}|^F.csv: {message}") as raised:
        check_lists(spark.createDataFrame(rows, LISTS), has_rank, True, "F.csv")
    assert "ann" not in str(raised.value)


def test_good_lists_give_their_models(spark):
    rows = [("n", "ann", "a", 1.0, None), ("m", "ann", "a", 1.0, math.inf), ("m", "bob", "a", 1.0, -1.0)]
    assert check_lists(spark.createDataFrame(rows, LISTS), True, True, "F") == ["m", "n"]


def test_forms_of_ids_show_no_id(spark):
    ids = spark.createDataFrame([("user12",), ("ab7",), ("8-9",), ("17.0",), ("Ünal",)], "user_id string")
    assert common_forms(ids, "user_id") == "'a9' or '9-9'"


@pytest.mark.parametrize("named", [{"rank": "positon"}, {"score": "typo"}, {"model": "algo"}])
def test_a_column_asked_for_by_name_has_to_be_there(spark, named):
    frame = spark.createDataFrame([("ann", "a", 1, 0.5)], "user_id string, item_id string, rank int, score double")
    with pytest.raises(SchemaError, match=f"{next(iter(named.values()))}'.* missing"):
        given_lists(frame, GivenColumns(**named), "file", "F")
