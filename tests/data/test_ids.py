"""Ids in one spelling."""

from __future__ import annotations

import pandas as pd
import pytest

from recsys_spark.data.ids import clean_ids
from recsys_spark.data.normal_form import in_normal_form

BUILT_IN, COMBINED = "caf\u00e9", "cafe\u0301"


def spellings(spark, texts, trim=False, unicode_form=None):
    frame = spark.createDataFrame([(number, text) for number, text in enumerate(texts)], "number int, user_id string")
    return [row.user_id for row in clean_ids(frame, ["user_id"], trim, unicode_form).orderBy("number").collect()]


def test_switched_off_the_frame_is_given_back(spark):
    frame = spark.createDataFrame([(" a ",)], "user_id string")
    assert clean_ids(frame, ["user_id"], trim=False, unicode_form=None) is frame


def test_white_space_of_every_kind_goes_at_both_ends_only(spark):
    texts = [" a b ", "\ta\r\n", "\u00a0\u3000a\u2003", "\ufeffa\u200b", "a\u00a0b", "\u3000 \t", "", None, "a"]
    assert spellings(spark, texts, trim=True) == ["a b", "a", "a", "a", "a\u00a0b", None, None, None, "a"]


@pytest.mark.parametrize(
    ("form", "expected"),
    [("NFC", [BUILT_IN, BUILT_IN, "\uff11", " a ", "", None]), ("NFKC", [BUILT_IN, BUILT_IN, "1", " a ", "", None])],
)
def test_two_ways_to_write_an_id_become_one(spark, form, expected):
    assert spellings(spark, [BUILT_IN, COMBINED, "\uff11", " a ", "", None], unicode_form=form) == expected


def test_blanks_that_the_normal_form_makes_are_trimmed(spark):
    # NFKC makes a plain blank of the ideographic one between the letters; those at the ends go
    assert spellings(spark, ["\u3000\uff11\u3000a\u00a0", "\u3000", "ok"], trim=True, unicode_form="NFKC") == [
        "1 a",
        None,
        "ok",
    ]


def test_a_column_that_is_not_there_is_named(spark):
    with pytest.raises(ValueError, match=r"clean_ids expects columns of the frame, found \['item_id'\]"):
        clean_ids(
            spark.createDataFrame([("a",)], "user_id string"), ["user_id", "item_id"], trim=True, unicode_form=None
        )


def test_the_workers_part_keeps_null_and_the_index():
    texts = pd.Series([COMBINED, None, "a"], index=[5, 6, 7])
    assert in_normal_form(texts, "NFC").to_dict() == {5: BUILT_IN, 6: None, 7: "a"}
    assert in_normal_form(pd.Series([None, None], dtype=object), "NFC").tolist() == [None, None]
