"""Batches hold every text once, stay under the limit, and pad little."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_spark.models.token_batches import token_batches


def batches(lengths, max_tokens):
    return [batch.tolist() for batch in token_batches(np.array(lengths, np.int64), max_tokens)]


def test_the_longest_come_first_and_equal_lengths_stay_in_order():
    assert batches([3, 5, 3, 5], 10) == [[1, 3], [0, 2]]


def test_a_batch_ends_before_padding_is_more_than_a_twentieth():
    assert batches([40, 39, 30, 30], 640) == [[0, 1], [2, 3]]


def test_a_batch_that_would_leave_a_device_idle_takes_padding():
    assert batches([40, 20, 10], 64_000) == [[0, 1, 2]]


def test_a_text_above_the_limit_is_a_batch_of_its_own():
    assert batches([12, 2, 2], 4) == [[0], [1, 2]]


def test_no_texts_give_no_batches():
    assert batches([], 4) == []


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 200))
def test_every_text_is_in_one_batch_and_padding_never_passes_the_limit(lengths, max_tokens):
    found = batches(lengths, max_tokens)
    assert sorted(place for batch in found for place in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= max_tokens


@pytest.mark.parametrize(("lengths", "max_tokens"), [([0], 4), ([1], 0)])
def test_lengths_and_limits_below_one_are_errors(lengths, max_tokens):
    with pytest.raises(ValueError, match="at least 1"):
        batches(lengths, max_tokens)
