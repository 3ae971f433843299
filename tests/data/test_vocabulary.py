"""Raw ids <-> dense numbers: only ever appended to, without gaps, whatever the order of the ids."""

from __future__ import annotations

import random

from recsys_spark.data.vocabulary import number_new_ids
from recsys_spark.schemas import USER_INDEX


def index_of(spark, numbers):
    return spark.createDataFrame(sorted(numbers.items()), USER_INDEX)


def new_numbers(spark, numbers, ids, num_partitions=2):
    """Give the ids that `numbers` (id -> idx) lacks with their new numbers."""
    frame = spark.createDataFrame([(name,) for name in ids], "user_id string").repartition(num_partitions)
    rows = number_new_ids(index_of(spark, numbers), frame, "user_id", "user_idx").collect()
    assert len({row.user_id for row in rows}) == len(rows)
    return {row.user_id: row.user_idx for row in rows}


def test_an_index_only_grows_and_has_no_gaps(spark):
    chosen = random.Random(7)
    numbers: dict[str, int] = {}
    for _ in range(5):
        ids = [f"u{chosen.randrange(300)}" for _ in range(chosen.randrange(150))] + [None, "用户🙂", ""]
        added = new_numbers(spark, numbers, ids, num_partitions=chosen.randrange(1, 5))
        assert set(added) == {name for name in ids if name is not None} - set(numbers)
        numbers |= added
        assert sorted(numbers.values()) == list(range(len(numbers)))


def test_numbers_depend_on_the_set_of_ids_only(spark):
    ids = [f"u{number}" for number in range(200)]
    first = new_numbers(spark, {"u7": 0}, ids, num_partitions=1)
    again = new_numbers(spark, {"u7": 0}, ids[::-1] * 2, num_partitions=7)
    assert first == again


def test_known_ids_and_no_ids_add_nothing(spark):
    assert new_numbers(spark, {"u1": 0, "u2": 1}, ["u2", "u1", None]) == {}
    assert new_numbers(spark, {"u1": 0}, []) == {}


def test_numbering_goes_on_behind_the_largest_number(spark):
    assert new_numbers(spark, {"u1": 41}, ["u2"]) == {"u2": 42}
