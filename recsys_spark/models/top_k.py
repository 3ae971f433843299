"""The numeric core of the one top-K engine: numpy only, it runs inside a Spark worker or a service.

Contract shared by every function here:

- Item positions are columns, in ascending UTF-8 order of item_id (the caller sorts them). Equal scores are ordered by
  position ascending, exactly, also where the list is cut. -0.0 equals 0.0.
- ``seen`` is ``(indptr, indices)`` as in a CSR matrix: the seen items of row u are
  ``indices[indptr[u]:indptr[u + 1]]``, in any order, repeats allowed. ``excluded`` is a mask over items, true where
  nobody may get the item. Both are masked before the cut, so a row is short only when fewer than k candidates are left.
- A score of -inf means "not a candidate". NaN and +inf are errors (ValueError).
- ``cap`` limits the items of one category per list: the list is what greedy selection from the best candidate down gives
  when items of a full category are skipped. Other candidates move up, so it too shortens no list needlessly.
- The answer is a `TopK` whose rows are padded on the right: position -1 and score -inf.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys_spark.models.category_cap import CategoryCap, checked_cap
from recsys_spark.models.selection import TopK, empty_answer, select_best

Seen = tuple[NDArray[Any], NDArray[Any]]

MAX_BLOCK_BYTES = 256 * 2**20


def rows_per_block(num_items: int, max_bytes: int = MAX_BLOCK_BYTES) -> int:
    """Number of rows of float32 scores over all items that fit into max_bytes, at least 1."""
    if num_items < 0 or max_bytes < 1:
        raise ValueError(f"expected num_items >= 0 and max_bytes >= 1, found {num_items} and {max_bytes}")
    return max(1, max_bytes // (4 * max(1, num_items)))


def top_k_of_scores(
    scores: NDArray[np.float32],
    k: int,
    seen: Seen | None = None,
    excluded: NDArray[np.bool_] | None = None,
    cap: CategoryCap | None = None,
) -> TopK:
    """Take the k best candidates of every row of a score matrix.

    Overwrites ``scores`` (masked cells become -inf) instead of copying it: pass a copy to keep them. Beside the scores
    it needs the answer and a few MiB. Rows that tie at the cut are repaired by counting, not by sorting.

    Args:
        scores: float32, shape (users, items); -inf where the model has no opinion.
        k: list length, at least 1; may be larger than the number of items.
        seen: see the module's contract.
        excluded: see the module's contract.
        cap: see the module's contract.

    Raises:
        ValueError: k < 1, wrong shapes or types, NaN or +inf anywhere (also in masked cells).
    """
    _check_k(k)
    if scores.ndim != 2 or scores.dtype != np.float32:
        raise ValueError(f"expected float32 scores of shape (users, items), found {scores.dtype} {scores.shape}")
    num_users, num_items = scores.shape
    seen, excluded = _checked_masks(seen, excluded, num_users, num_items)
    cap = checked_cap(cap, num_items)
    _check_scores(scores)
    _mask(scores, seen, excluded)
    return select_best(scores, k, cap)


def top_k_dot_product(
    user_vectors: NDArray[np.float32],
    item_vectors: NDArray[np.float32],
    k: int,
    seen: Seen | None = None,
    excluded: NDArray[np.bool_] | None = None,
    max_block_bytes: int = MAX_BLOCK_BYTES,
    cap: CategoryCap | None = None,
) -> TopK:
    """Take the k best items of every user, where a score is the dot product of the two vectors.

    Goes in blocks of rows whose scores stay under max_block_bytes. The block size does not change the answer, except
    that BLAS may sum the products of another block shape in another order: scores can differ in the last bits of
    float32, and items whose scores differ by no more than that can swap. For the same reason two items with the same
    vector are not sure to get the same bits. Where all sums are exact (small integers), so is everything else.

    Args:
        user_vectors: float32, shape (users, d), finite.
        item_vectors: float32, shape (items, d), finite.
        k: list length, at least 1.
        seen: see the module's contract.
        excluded: see the module's contract.
        max_block_bytes: limit on the score block.
        cap: see the module's contract.

    Raises:
        ValueError: k < 1, wrong shapes or types, vectors or scores that are not finite.
    """
    for name, vectors in (("user_vectors", user_vectors), ("item_vectors", item_vectors)):
        if vectors.ndim != 2 or vectors.dtype != np.float32:
            raise ValueError(f"expected float32 {name} of shape (n, d), found {vectors.dtype} {vectors.shape}")
        if not np.isfinite(vectors).all():
            raise ValueError(f"{name} must be finite, found NaN or infinity")
    if user_vectors.shape[1] != item_vectors.shape[1]:
        raise ValueError(f"expected vectors of one size, found {user_vectors.shape[1]} and {item_vectors.shape[1]}")
    num_users, num_items = len(user_vectors), len(item_vectors)
    rows = min(rows_per_block(num_items, max_block_bytes), max(1, num_users))
    buffer = np.empty((rows, num_items), dtype=np.float32)

    def score_block(start: int, stop: int) -> NDArray[np.float32]:
        block = np.matmul(user_vectors[start:stop], item_vectors.T, out=buffer[: stop - start])
        # Finite vectors overflow float32 to -inf too, which would silently mean "not a candidate".
        if block.size and block.min() == -np.inf:
            raise ValueError("a dot product overflows float32: scale the vectors down")
        return block

    return _top_k_in_blocks(score_block, num_users, num_items, rows, k, seen, excluded, cap)


def top_k_sparse(
    user_rows: sparse.csr_matrix,
    item_item: sparse.csr_matrix,
    k: int,
    seen: Seen | None = None,
    excluded: NDArray[np.bool_] | None = None,
    max_block_bytes: int = MAX_BLOCK_BYTES,
    cap: CategoryCap | None = None,
) -> TopK:
    """Take the k best items of every user for a neighbour model: scores = user_rows @ item_item.

    Only items with positive evidence (score > 0) are candidates: an item that no neighbour speaks for is left out, and
    so is one whose evidence sums to 0 or below. So rows may be short, and a user without interactions gets none. Sums
    are made row by row in the order in which user_rows stores its items: block size never changes a bit of the answer.

    Args:
        user_rows: CSR matrix or array, shape (users, n): weights of each user's interactions.
        item_item: CSR matrix or array, shape (n, items): row = what user_rows weighs, column = the item scored. Rows are
            items as a rule; for neighbours of users they are users.
        k: list length, at least 1.
        seen: see the module's contract.
        excluded: see the module's contract.
        max_block_bytes: limit on the score block and the sparse product it comes from, together.
        cap: see the module's contract.

    Raises:
        ValueError: k < 1, not CSR, shapes that do not fit, NaN or +inf among the scores.
    """
    for name, matrix in (("user_rows", user_rows), ("item_item", item_item)):
        if not sparse.issparse(matrix) or matrix.format != "csr":
            raise ValueError(f"expected a CSR matrix as {name}, found {type(matrix).__name__}")
    num_users, num_items = user_rows.shape[0], item_item.shape[1]
    if item_item.shape[0] != user_rows.shape[1]:
        raise ValueError(f"expected item_item with {user_rows.shape[1]} rows, found {item_item.shape[0]}")
    # A cell costs 4 bytes in the dense block and, at worst, 8 + 4 + 4 in the product: value, float32 value, column.
    rows = min(rows_per_block(5 * num_items, max_block_bytes), max(1, num_users))
    buffer = np.empty((rows, num_items), dtype=np.float32)

    def score_block(start: int, stop: int) -> NDArray[np.float32]:
        product = (user_rows[start:stop] @ item_item).astype(np.float32, copy=False)
        block: NDArray[np.float32] = product.toarray(out=buffer[: stop - start])
        # NaN fails the comparison and stays, for top_k_of_scores to refuse.
        np.copyto(block, np.float32(-np.inf), where=block <= 0)
        return block

    return _top_k_in_blocks(score_block, num_users, num_items, rows, k, seen, excluded, cap)


def top_k_linear(
    user_rows: sparse.csr_matrix,
    item_weights: NDArray[np.float32],
    k: int,
    seen: Seen | None = None,
    excluded: NDArray[np.bool_] | None = None,
    max_block_bytes: int = MAX_BLOCK_BYTES,
    cap: CategoryCap | None = None,
) -> TopK:
    """Take the k best items of every user for a linear model of all pairs of items: scores = user_rows @ item_weights.

    Weights of both signs count, and every item is a candidate. Only a user whose scores are all 0, for whom nothing speaks
    for or against anything, gets none. Sums are made row by row: block size never changes a bit of the answer.

    Args:
        user_rows: float32 CSR matrix, shape (users, items): weights of each user's interactions.
        item_weights: float32, shape (items, items): row = the item interacted with, column = the item scored.
        k: list length, at least 1.
        seen: see the module's contract.
        excluded: see the module's contract.
        max_block_bytes: limit on the score block.
        cap: see the module's contract.

    Raises:
        ValueError: k < 1, wrong shapes or types, NaN or +inf among the scores.
    """
    num_users, num_items = user_rows.shape
    if item_weights.shape != (num_items, num_items) or {item_weights.dtype, user_rows.dtype} != {np.dtype(np.float32)}:
        raise ValueError(
            f"expected float32 user_rows and item_weights of shape {(num_items, num_items)}, found {user_rows.dtype} and "
            f"{item_weights.dtype} {item_weights.shape}"
        )
    rows = min(rows_per_block(num_items, max_block_bytes), max(1, num_users))

    def score_block(start: int, stop: int) -> NDArray[np.float32]:
        block: NDArray[np.float32] = user_rows[start:stop] @ item_weights
        block[~block.any(axis=1)] = -np.inf
        return block

    return _top_k_in_blocks(score_block, num_users, num_items, rows, k, seen, excluded, cap)


def _top_k_in_blocks(
    score_block: Callable[[int, int], NDArray[np.float32]],
    num_users: int,
    num_items: int,
    rows: int,
    k: int,
    seen: Seen | None,
    excluded: NDArray[np.bool_] | None,
    cap: CategoryCap | None,
) -> TopK:
    """Run top_k_of_scores over score_block(start, stop) and join the answers."""
    _check_k(k)
    seen, excluded = _checked_masks(seen, excluded, num_users, num_items)
    cap = checked_cap(cap, num_items)
    answer = empty_answer(num_users, k)
    for start in range(0, num_users, rows):
        stop = min(start + rows, num_users)
        block_answer = top_k_of_scores(score_block(start, stop), k, seen_block(seen, start, stop), excluded, cap)
        answer.positions[start:stop] = block_answer.positions
        answer.scores[start:stop] = block_answer.scores
        answer.counts[start:stop] = block_answer.counts
    return answer


def seen_block(seen: Seen | None, start: int, stop: int) -> Seen | None:
    """Give the seen items of the rows from start to before stop."""
    if seen is None:
        return None
    indptr, indices = seen
    return indptr[start : stop + 1] - indptr[start], indices[indptr[start] : indptr[stop]]


def _check_k(k: int) -> None:
    if k < 1:
        raise ValueError(f"expected k >= 1, found {k}")


def _check_scores(scores: NDArray[np.float32]) -> None:
    """Refuse NaN and +inf; both show in the maximum, so one pass is enough."""
    highest = scores.max() if scores.size else np.float32(0)
    if np.isnan(highest):
        raise ValueError(f"scores must not be NaN: found {np.count_nonzero(np.isnan(scores))}")
    if highest == np.inf:
        raise ValueError(f"scores must be below +inf: found {np.count_nonzero(np.isposinf(scores))} that are not")


def _checked_masks(
    seen: Seen | None, excluded: NDArray[np.bool_] | None, num_users: int, num_items: int
) -> tuple[Seen | None, NDArray[np.bool_] | None]:
    """Give both masks as arrays, or raise ValueError where they do not fit the scores."""
    if excluded is not None:
        excluded = np.asarray(excluded)
        if excluded.shape != (num_items,) or excluded.dtype != np.bool_:
            raise ValueError(f"expected a bool mask of {num_items} items, found {excluded.dtype} {excluded.shape}")
    if seen is None:
        return None, excluded
    indptr, indices = (np.asarray(part) for part in seen)
    if indptr.shape != (num_users + 1,) or indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr) < 0).any():
        raise ValueError(f"expected seen as (indptr, indices) of {num_users} rows, as in a CSR matrix")
    # numpy would read a negative index as one from the end and mask an innocent item.
    if len(indices) and (indices.min() < 0 or indices.max() >= num_items):
        raise ValueError(f"expected seen positions in [0, {num_items}), found {indices.min()} to {indices.max()}")
    return (indptr, indices), excluded


def _mask(scores: NDArray[np.float32], seen: Seen | None, excluded: NDArray[np.bool_] | None) -> None:
    if excluded is not None:
        scores[:, excluded] = -np.inf
    if seen is not None and len(seen[1]):
        indptr, indices = seen
        scores[np.repeat(np.arange(len(scores)), np.diff(indptr)), indices] = -np.inf
