"""Ragged lists as two arrays, like the rows of a CSR matrix: the items of row u are ``items[offsets[u]:offsets[u + 1]]``.

Offsets have one entry more than there are rows. Items are int64 codes of any size.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]

_MAX_KEY = 2**62


def checked_ragged(items: ArrayLike, offsets: ArrayLike, name: str) -> tuple[Ints, Ints]:
    """Give both as int64, or raise ValueError where they are no integers or the offsets do not fit the items."""
    items, offsets = np.asarray(items), np.asarray(offsets)
    for part in (items, offsets):
        if part.ndim != 1 or (part.size and part.dtype.kind not in "iu"):
            raise ValueError(f"expected {name} items and offsets as 1-d integers, found {part.dtype} {part.shape}")
    items, offsets = items.astype(np.int64, copy=False), offsets.astype(np.int64, copy=False)
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(items) or (np.diff(offsets) < 0).any():
        raise ValueError(f"expected {name} offsets that rise from 0 to the number of items, {len(items)}")
    return items, offsets


def rows_of(offsets: Ints) -> Ints:
    """Give the row number of every item."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def ranks_of(offsets: Ints, rows: Ints) -> Ints:
    """Give the place of every item within its row, from 0."""
    return np.arange(len(rows)) - offsets[rows]


def take_rows(items: NDArray[Any], offsets: Ints, rows: Ints) -> tuple[NDArray[Any], Ints]:
    """Give some of the rows, in their order, as items and offsets of their own; the items may be of any type."""
    lengths = np.diff(offsets)[rows]
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return items[np.repeat(offsets[rows] - bounds[:-1], lengths) + np.arange(bounds[-1])], bounds


def top_k_part(rows: Ints, offsets: Ints, k: int) -> tuple[NDArray[np.bool_], Ints]:
    """Give the mask of the items within the top k, and the lengths of the lists after the cut."""
    if k < 1:
        raise ValueError(f"expected k >= 1, found {k}")
    return ranks_of(offsets, rows) < k, np.minimum(k, np.diff(offsets))


def compact(some: Ints, others: Ints, limit: int) -> tuple[Ints, Ints, int]:
    """Give both as codes from 0 and their number num_codes, so small that num_codes * limit fits int64.

    The codes are shifted, or numbered anew where that is not enough.
    """
    both = [items for items in (some, others) if len(items)]
    low = min((int(items.min()) for items in both), default=0)
    num_codes = max((int(items.max()) for items in both), default=0) - low + 1
    if num_codes * limit < _MAX_KEY:
        return some - low, others - low, num_codes
    distinct, codes = np.unique(np.concatenate([some, others]), return_inverse=True)
    return codes[: len(some)], codes[len(some) :], len(distinct)


def sort_keys(keys: Ints) -> Ints:
    """Sort keys that rise from row to row. On such an order merging takes a quarter of the time of numpy's default sort."""
    return np.sort(keys, kind="stable")


def count_keys(keys: Ints) -> tuple[Ints, Ints]:
    """Give the distinct keys in rising order and how often each comes."""
    keys = sort_keys(keys)
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))[: len(keys)]
    return keys[starts], np.diff(starts, append=len(keys))


def check_no_duplicates(keys: Ints, num_codes: int, name: str) -> Ints:
    """Give keys (row * num_codes + code) sorted, or raise ValueError where one comes twice."""
    keys = sort_keys(keys)
    again = keys[1:][keys[1:] == keys[:-1]]
    if len(again):
        raise ValueError(f"{len(again)} duplicate items in a {name}, the first in row {again[0] // num_codes}")
    return keys
