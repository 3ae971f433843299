"""EASE: H. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019. Free of Spark.

A score is a linear function of what the user had: score(u, j) = sum over i of x_ui B_ij, with B_jj = 0, so that no item speaks
for itself. B minimises |X - XB|² + regularization |B|² and has a closed form: with P = (X'X + regularization I)^-1,

    B_ij = -P_ij / P_jj for i != j.

Weights may be negative: an item that the user had can speak against another one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import lapack

from recsys_spark.errors import TrainingError

_STRIP_BYTES = 64 * 2**20
_LARGEST_FACTOR = 16_384
"""OpenBLAS with several threads ends the process (SIGSEGV) in dpotrf of matrices of more than 2 GiB; seen with 0.3.30."""


def driver_bytes(num_items: int) -> int:
    """Memory of the solution: one matrix of float64, in which every step works, and half of one beside it where it is halved."""
    return (8 if num_items <= _LARGEST_FACTOR else 12) * num_items**2


def worker_bytes(num_items: int) -> int:
    """Memory of the weights, which every worker needs to make lists: one matrix of float32."""
    return 4 * num_items**2


def add_to_gram(gram: NDArray[np.float64], user_items: sparse.csr_matrix) -> None:
    """Add X'X of some users to gram, in place. user_items has shape (users, items), gram (items, items)."""
    item_users = user_items.astype(np.float64).T.tocsr()
    by_user = item_users.T.tocsr()
    for strip in _strips(len(gram)):
        gram[strip] += (item_users[strip] @ by_user).toarray()


def item_weights(gram: NDArray[np.float64], regularization: float) -> NDArray[np.float32]:
    """Solve for B, float32 of shape (items, items): row i holds what item i adds to the score of every item.

    gram is X'X of all users, C-ordered; its memory is used up: what is returned lies in it. Raises TrainingError when the
    matrix cannot be inverted, which takes weights that are not finite or far apart.
    """
    gram.reshape(-1)[:: len(gram) + 1] += regularization
    _invert(gram)
    return _divided_in_place(gram, -gram.diagonal())


def _invert(matrix: NDArray[np.float64]) -> None:
    """Replace a symmetric positive definite matrix by its inverse; a large one in halves, by its Schur complement."""
    num_rows, half = len(matrix), len(matrix) // 2
    if num_rows <= _LARGEST_FACTOR:
        _invert_at_once(matrix)
        return
    first, across, second = matrix[:half, :half], matrix[:half, half:], matrix[half:, half:]
    _invert(first)
    reach = first @ across
    for strip in _strips(num_rows - half):
        second[strip] -= across[:, strip].T @ reach
    _invert(second)
    for strip in _strips(half):
        across[strip] = -(reach[strip] @ second)
        first[strip] -= across[strip] @ reach.T
    matrix[half:, :half] = across.T


def _invert_at_once(matrix: NDArray[np.float64]) -> None:
    # LAPACK's order is Fortran's: its lower triangle is the upper one here
    factor, failed = lapack.dpotrf(matrix.T, lower=1, clean=0, overwrite_a=1)
    inverse, failed = (factor, failed) if failed else lapack.dpotri(factor, lower=1, overwrite_c=1)
    diagonal = inverse.diagonal()
    if failed or not ((diagonal > 0) & np.isfinite(diagonal)).all():
        raise TrainingError(
            f"EASE met a matrix that it cannot invert (LAPACK: {failed}); raise ease.regularization, choose another "
            "ease.weight_scale, or look for extreme weights in the interactions table"
        )
    upper = inverse.T  # the memory of matrix where that lies in one piece, else of a copy
    for strip in _strips(len(matrix)):
        matrix[strip, strip.start :] = upper[strip, strip.start :]
        matrix[strip, : strip.start] = upper[: strip.start, strip].T
        square = matrix[strip, strip]
        square[:] = np.triu(square) + np.triu(square, 1).T


def _divided_in_place(matrix: NDArray[np.float64], divisors: NDArray[np.float64]) -> NDArray[np.float32]:
    """Divide the columns, set the diagonal to 0 and write the float32 results into the first half of the same memory.

    A row's results end before the rows that have not been read begin.
    """
    num_items = len(matrix)
    divided = matrix.reshape(-1).view(np.float32)[: num_items**2].reshape(num_items, num_items)
    for strip in _strips(num_items):
        divided[strip] = matrix[strip] / divisors
    np.fill_diagonal(divided, 0)
    return divided


def _strips(num_items: int) -> Iterator[slice]:
    step = max(1, _STRIP_BYTES // (8 * num_items))
    for start in range(0, num_items, step):
        yield slice(start, min(start + step, num_items))
