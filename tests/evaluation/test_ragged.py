import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_spark.evaluation import ragged


@given(st.lists(st.integers(-5, 5), max_size=30))
def test_count_keys_equals_numpys_unique(keys):
    expected = np.unique(np.array(keys, dtype=np.int64), return_counts=True)
    for found, wanted in zip(ragged.count_keys(np.array(keys, dtype=np.int64)), expected, strict=True):
        assert found.tolist() == wanted.tolist()


def test_compact_keeps_equal_codes_equal_and_makes_keys_fit():
    some, others = np.array([-(2**63), 7]), np.array([2**63 - 1, 7])
    codes, other_codes, num_codes = ragged.compact(some, others, limit=1000)
    assert (codes.tolist(), other_codes.tolist(), num_codes) == ([0, 1], [2, 1], 3)
    assert ragged.compact(np.array([10**9]), np.array([10**9 + 5]), limit=1000)[2] == 6


def test_first_duplicate_is_named_by_its_row():
    with pytest.raises(ValueError, match="2 duplicate items in a basket, the first in row 1"):
        ragged.check_no_duplicates(np.array([12, 3, 27, 12, 27]), 10, "basket")
