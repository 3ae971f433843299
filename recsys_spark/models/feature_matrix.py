"""Ids and their features -> a sparse matrix with one row per user or item. Free of Spark."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse


class Side(NamedTuple):
    """The users, or the items, of a training run: warm ones are in the interactions, cold ones have features only."""

    rows: np.ndarray
    """The row of every interaction's user or item, shape (interactions,)."""
    ids: pa.Array
    """Warm ids in UTF-8 order, then cold ids in UTF-8 order."""
    num_warm: int
    """How many of the ids are warm."""
    features: sparse.csr_matrix
    """float32 of 0 and 1, shape (ids, features). Where own ids are features, they are the first num_warm columns."""

    def has_features(self) -> np.ndarray:
        """Say of every row whether it has a feature: without one there is nothing to make a vector of."""
        return np.diff(self.features.indptr) > 0


def build_side(interacting: pa.ChunkedArray, ids: pa.ChunkedArray, features: pa.ChunkedArray, own_ids: bool) -> Side:
    """Build the matrix of one side.

    interacting holds the id of every interaction; (ids, features) are distinct pairs, of warm and cold ids. own_ids makes
    every warm id one more feature, which it shares with nobody. Features that no warm id has are left out, and so are cold
    ids without any other one: nothing is learned about them. The order of the pairs makes no difference.
    """
    warm_ids = _distinct(interacting)
    is_warm = _positions(ids, warm_ids) >= 0
    learned = _distinct(features.filter(pa.array(is_warm)))
    columns = _positions(features, learned)
    cold_ids = _distinct(ids.filter(pa.array(~is_warm & (columns >= 0))))
    all_ids = pa.concat_arrays([warm_ids, cold_ids])
    num_own = len(warm_ids) if own_ids else 0
    own = np.arange(num_own)
    rows = np.concatenate([own, _positions(ids, all_ids)[columns >= 0]])
    columns = np.concatenate([own, num_own + columns[columns >= 0]])
    shape = (len(all_ids), num_own + len(learned))
    matrix = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)
    return Side(_positions(interacting, warm_ids), all_ids, len(warm_ids), matrix)


def _distinct(texts: pa.ChunkedArray) -> pa.Array:
    found = texts.unique()
    return found.take(pc.sort_indices(found))  # Arrow orders texts by their UTF-8 bytes


def _positions(texts: pa.ChunkedArray, among: pa.Array) -> np.ndarray:
    """Give the place of every text in `among`, -1 where it is not there."""
    found = pc.fill_null(pc.index_in(texts, value_set=among), -1)
    return np.asarray(found, dtype=np.int64)
