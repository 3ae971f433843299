"""The nearest rows of a sparse matrix, one block of rows against all others, so that no place holds all of it. Free of Spark.

Item neighbours compare items by their users, user neighbours users by their items. With x and y two rows, n their number of
columns, and everything that is not stored 0:

- cosine: x·y / (|x| |y| + shrink)  (Sarwar et al. 2001; for values of 1 the users in common / (sqrt(n_i n_j) + shrink))
- pearson: (x·y - n x̄ ȳ) / (sqrt((|x|² - n x̄²) (|y|² - n ȳ²)) + shrink), where the means x̄, ȳ run over all n columns: the
  correlation of the two rows in whole (Pearson 1895; for values of 1 the phi coefficient)

shrink makes pairs count less that few columns speak for (Bell and Koren 2007). Only positive similarities are kept. Sums are
made in float64 and the ratio in float32, so that the size of the blocks changes no bit while the values are whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys_spark.models.top_k import top_k_of_scores

BYTES_PER_PAIR = 128
"""What a worker needs at most for an entry of its own block and one of the block beside it, with the copies on the way."""
BYTES_PER_PLACE = 40
"""What a worker holds for each of the num_neighbours places of a row of its own block, with the answer made of them."""
_BYTES_PER_CELL = 48
_ROUNDING = 1e-9  # of a sum: what is left of it after the means were taken off, and is less, counts as 0


class Pairs(NamedTuple):
    """Entries of a sparse matrix: values (positive) at distinct places, in any order. Arrays of one length."""

    rows: NDArray[Any]
    columns: NDArray[Any]
    values: NDArray[Any]


class Neighbours(NamedTuple):
    """Similar rows: by row ascending, nearest first, equal similarities by neighbour ascending. Arrays of one length."""

    rows: NDArray[np.int32]
    neighbours: NDArray[np.int32]
    similarities: NDArray[np.float32]


@dataclass(frozen=True)
class Similarity:
    """How two rows are compared: see the module."""

    kind: Literal["cosine", "pearson"]
    shrink: float
    num_columns: int = 0
    """Columns of the whole matrix, over which pearson takes its means; cosine does not need them."""


class _Block(NamedTuple):
    rows: NDArray[np.int32]  # (rows,), distinct and ascending
    squares: NDArray[np.float32]  # (rows,), squared norms as the similarity takes them; 0: has none
    sums: NDArray[Any]  # (rows,), float64
    matrix: sparse.csr_matrix  # (rows, columns of the own block)


def nearest_rows(
    own: Pairs, blocks: Iterable[Pairs], num_neighbours: int, similarity: Similarity, max_bytes: int
) -> Neighbours:
    """Give the nearest rows of every row of a block, among the rows of all blocks. A row is no neighbour of itself.

    A block holds all entries of its rows; blocks (the own one again among them) come by ascending rows and are looked at one
    after the other. The arrays of a comparison stay under max_bytes; the entries of two blocks, and BYTES_PER_PLACE for each row of
    the own one and neighbour, come on top of that. Raises ValueError when blocks are out of order.
    """
    columns = np.unique(own.columns)
    mine = _as_block(own, columns, similarity)
    shape = (len(mine.rows), num_neighbours)
    best = np.full(shape, -1, np.int32), np.full(shape, -np.inf, np.float32)
    highest = -1
    for pairs in blocks:
        other = _as_block(pairs, columns, similarity)
        if other.rows[0] <= highest:
            raise ValueError(f"blocks must come by ascending rows: found row {other.rows[0]} after row {highest}")
        highest = int(other.rows[-1])
        _take_nearer(mine, other, best, similarity, max(1, max_bytes // _BYTES_PER_CELL))
    positions, scores = best
    rows, ranks = np.nonzero(positions >= 0)
    return Neighbours(mine.rows[rows], positions[rows, ranks], scores[rows, ranks])


def _as_block(pairs: Pairs, columns: NDArray[Any], similarity: Similarity) -> _Block:
    """Give a block whose matrix has only the columns that the own block knows; others are common to no pair."""
    rows, row = np.unique(pairs.rows, return_inverse=True)
    values = pairs.values.astype(np.float64)
    sums, squares = np.bincount(row, values), np.bincount(row, values**2)
    if similarity.kind == "pearson":
        variance = squares - sums**2 / similarity.num_columns
        squares = np.where(variance > _ROUNDING * squares, variance, 0.0)
    column = np.searchsorted(columns, pairs.columns)
    is_known = columns.take(column, mode="clip") == pairs.columns
    entries = (values[is_known], (row[is_known], column[is_known]))
    matrix = sparse.csr_matrix(entries, shape=(len(rows), len(columns)))
    return _Block(rows.astype(np.int32), squares.astype(np.float32), sums, matrix)


def _take_nearer(
    mine: _Block, other: _Block, best: tuple[NDArray[Any], NDArray[Any]], similarity: Similarity, max_cells: int
) -> None:
    """Compare all rows of two blocks and put those that are nearer than the best so far into best (positions, scores)."""
    by_column = other.matrix.T.tocsr()  # (columns, rows of the other block)
    num_shared = np.diff(by_column.indptr)[mine.matrix.indices]
    most = np.minimum(np.add.reduceat(num_shared, mine.matrix.indptr[:-1]), len(other.rows))
    num_cells = most + best[0].shape[1]  # a row's products, and its best so far beside them
    # rows of one strip have about equally many cells then
    order = np.argsort(-most, kind="stable")[: np.count_nonzero(most)]
    start = 0
    while start < len(order):
        strip = order[start : start + max(1, max_cells // int(num_cells[order[start]]))]
        start += len(strip)
        _merge_strip(mine, other, mine.matrix[strip] @ by_column, strip, best, similarity)


def _merge_strip(
    mine: _Block,
    other: _Block,
    products: sparse.csr_matrix,
    strip: NDArray[Any],
    best: tuple[NDArray[Any], NDArray[Any]],
    similarity: Similarity,
) -> None:
    positions, scores = best[0][strip], best[1][strip]
    row = np.repeat(np.arange(len(strip)), np.diff(products.indptr))
    found = _similarities(mine, other, strip[row], products, similarity)
    # an equal one stands behind those of the blocks before, whose rows are lower
    is_nearer = (found > np.maximum(scores[:, -1], 0)[row]) & (mine.rows[strip][row] != other.rows[products.indices])
    counts = np.bincount(row[is_nearer], minlength=len(strip))
    indptr = np.concatenate([[0], np.cumsum(counts)])
    nearer = sparse.csr_matrix((found[is_nearer], products.indices[is_nearer], indptr), shape=products.shape)
    nearer.sort_indices()
    k, width = scores.shape[1], int(counts.max())
    cells = np.full((len(strip), k + width), -np.inf, np.float32)  # the best so far, then the nearer ones by position
    cells[:, :k] = scores
    slot = np.arange(len(nearer.indices)) - np.repeat(indptr[:-1], counts)
    cells[np.repeat(np.arange(len(strip)), counts), k + slot] = nearer.data
    top = top_k_of_scores(cells, k)
    is_new = top.positions >= k
    place = np.where(is_new, indptr[:-1, None] + top.positions - k, 0)
    taken = np.append(other.rows[nearer.indices], -1)[place]  # never empty
    kept = np.take_along_axis(positions, np.clip(top.positions, 0, k - 1), axis=1)
    best[0][strip] = np.where(is_new, taken, np.where(top.positions >= 0, kept, -1))
    best[1][strip] = top.scores


def _similarities(
    mine: _Block, other: _Block, row: NDArray[Any], products: sparse.csr_matrix, similarity: Similarity
) -> NDArray[np.float32]:
    common = products.data
    if similarity.kind == "pearson":
        covariance = common - mine.sums[row] * other.sums[products.indices] / similarity.num_columns
        common = np.where(covariance > _ROUNDING * common, covariance, 0.0)
    norms = np.sqrt(mine.squares[row] * other.squares[products.indices]) + np.float32(similarity.shrink)
    found = np.zeros(len(common), np.float32)
    return np.divide(common.astype(np.float32), norms, out=found, where=norms > 0)
