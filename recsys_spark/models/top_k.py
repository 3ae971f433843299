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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys_spark.models.category_cap import NO_CATEGORY, CategoryCap, checked_cap, within_cap

Seen = tuple[NDArray[Any], NDArray[Any]]

MAX_BLOCK_BYTES = 256 * 2**20
# The cut works on so many scores at a time (1 MiB of float32), because it reads them several times: they stay in cache.
_SCORES_PER_STRIP = 2**18
_LOWEST_SCORE = np.finfo(np.float32).min
_PADDING_KEY = np.iinfo(np.uint64).max
# With a cap lists are made from the best 2k, then 8k, ... candidates of categories that are not full yet.
_FIRST_WIDTH, _WIDTH_GROWTH = 2, 4


class TopK(NamedTuple):
    """The k best candidates of every row, best first."""

    positions: NDArray[np.int32]
    """Item positions, shape (users, k), padded with -1."""
    scores: NDArray[np.float32]
    """Their scores, shape (users, k), padded with -inf (not NaN, so that a row stays sorted and comparable)."""
    counts: NDArray[np.int64]
    """Number of items really there, shape (users,), at most k."""


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
    answer = empty_answer(num_users, k)
    strip = max(1, _SCORES_PER_STRIP // max(1, num_items))
    for start in range(0, num_users if num_items else 0, strip):
        rows = slice(start, start + strip)
        if cap is None:
            _fill(answer, rows, scores[rows], k)
        else:
            _fill_capped(answer, np.arange(num_users)[rows], scores[rows], k, cap)
    return answer


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
        user_rows: CSR matrix or array, shape (users, items): weights of each user's interactions.
        item_item: CSR matrix or array, shape (items, items): row = the item interacted with, column = the item scored.
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
    num_users, num_items = user_rows.shape
    if item_item.shape != (num_items, num_items):
        raise ValueError(f"expected item_item of shape {(num_items, num_items)}, found {item_item.shape}")
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


def empty_answer(num_users: int, k: int) -> TopK:
    """Give the answer of users who get nothing."""
    return TopK(
        positions=np.full((num_users, k), -1, dtype=np.int32),
        scores=np.full((num_users, k), -np.inf, dtype=np.float32),
        counts=np.zeros(num_users, dtype=np.int64),
    )


def keep_places(found: TopK, keep: NDArray[np.bool_], k: int) -> TopK:
    """Cut lists down to the first k of the places to keep, shape (users, width), and move these to the left."""
    keep = keep & (np.cumsum(keep, axis=1) <= k)
    answer = empty_answer(len(keep), k)
    answer.counts[:] = np.count_nonzero(keep, axis=1)
    filled = np.arange(k) < answer.counts[:, None]
    answer.positions[filled], answer.scores[filled] = found.positions[keep], found.scores[keep]
    return answer


def _fill_capped(answer: TopK, rows: NDArray[np.int64], scores: NDArray[np.float32], k: int, cap: CategoryCap) -> None:
    """Write the top k under a cap into the given rows of the answer; those that come out short are tried with more items.

    What a longer list adds comes after what was walked before, so k items that remain are final. Overwrites scores.
    """
    num_items = scores.shape[1]
    width = _FIRST_WIDTH * k
    while len(rows):
        width = min(width, num_items)
        found = empty_answer(len(rows), width)
        _fill(found, slice(None), scores, width)
        kept = keep_places(found, within_cap(found.positions, cap), k)
        answer.positions[rows], answer.scores[rows], answer.counts[rows] = kept
        is_open = (kept.counts < k) & (found.counts == width) & (width < num_items)
        rows, scores, width = rows[is_open], scores[is_open], width * _WIDTH_GROWTH
        _mask_full(scores, kept.positions[is_open], cap)


def _mask_full(scores: NDArray[np.float32], listed: NDArray[np.int32], cap: CategoryCap) -> None:
    """Mask the items of categories that a list has filled, but for those in the list: they would be skipped anyway."""
    users, places = np.nonzero(listed >= 0)
    items = listed[users, places]
    num_codes = int(cap.categories.max(initial=0)) + 2  # the last one stands for no category, which is never full
    taken = np.bincount(users * num_codes + cap.categories[items] % num_codes, minlength=len(listed) * num_codes)
    is_full = taken.reshape(-1, num_codes) >= cap.limit
    is_full[:, NO_CATEGORY] = False
    own_scores = scores[users, items]
    scores[is_full[:, cap.categories]] = -np.inf
    scores[users, items] = own_scores


def _fill(answer: TopK, rows: slice, scores: NDArray[np.float32], k: int) -> None:
    """Write the top k of a strip of rows into the given rows of the answer."""
    num_items = scores.shape[1]
    width = min(k, num_items)
    keep = _kept(scores, k)
    counts = np.count_nonzero(keep, axis=1)
    filled = np.arange(width) < counts[:, None]
    flat = np.flatnonzero(keep)
    keys = np.full(filled.shape, _PADDING_KEY, dtype=np.uint64)
    keys[filled] = descending_key(scores.ravel()[flat]) << np.uint64(32) | (flat % num_items).astype(np.uint64)
    keys.sort(axis=1)
    # The padding key sorts last and its low half reads as -1, so positions need no further padding; scores do.
    positions = (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.int32)
    answer.positions[rows, :width] = positions
    answer.scores[rows, :width] = np.where(filled, np.take_along_axis(scores, positions, axis=1), np.float32(-np.inf))
    answer.counts[rows] = counts


def _kept(scores: NDArray[np.float32], k: int) -> NDArray[np.bool_]:
    """Mask of the at most k best candidates of each row, ties at the cut going to the lowest positions."""
    num_items = scores.shape[1]
    if k >= num_items:
        return scores >= _LOWEST_SCORE
    # From the negated side: numpy's selection is ten times slower where most cells are -inf and k counts from the other end.
    threshold = -np.partition(-scores, k - 1, axis=1)[:, k - 1, None]
    # Rows with fewer than k candidates have threshold -inf; the lowest finite float keeps the masked cells out.
    threshold = np.maximum(threshold, _LOWEST_SCORE)
    keep = scores >= threshold
    crossing = np.flatnonzero(np.count_nonzero(keep, axis=1) > k)
    if len(crossing):
        above = scores[crossing] > threshold[crossing]
        tied = keep[crossing] & ~above
        room = k - np.count_nonzero(above, axis=1)
        # Ties in row order, then by position: the last one with room is at the row's start plus the room.
        num_tied = np.count_nonzero(tied, axis=1)
        last = np.flatnonzero(tied)[np.cumsum(num_tied) - num_tied + room - 1] % num_items
        keep[crossing] = above | (tied & (np.arange(num_items, dtype=np.int32) <= last.astype(np.int32)[:, None]))
    return keep


def descending_key(scores: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Map float32 to integers that ascend where scores descend, so that (score, position) sorts as one number.

    IEEE 754 floats of one sign order like their bits: negative ones have the sign bit set and go last, by growing
    magnitude; the others are reversed within the lower half.
    """
    # Adding +0.0 turns -0.0 into 0.0.
    bits = (scores + np.float32(0)).view(np.uint32)
    return np.where(bits >> np.uint32(31), bits, np.uint32(0x7FFFFFFF) - bits).astype(np.uint64)
