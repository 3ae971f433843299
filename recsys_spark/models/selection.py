"""The cut of the top-K engine: the k best cells of each row of a score matrix. Numpy only, see top_k.py for the contract."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.models.category_cap import NO_CATEGORY, CategoryCap, within_cap

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


def select_best(scores: NDArray[np.float32], k: int, cap: CategoryCap | None = None) -> TopK:
    """Take the k best cells of every row, shape (users, items): -inf is none, ties go by column. Overwrites scores."""
    num_users, num_items = scores.shape
    answer = empty_answer(num_users, k)
    strip = max(1, _SCORES_PER_STRIP // max(1, num_items))
    for start in range(0, num_users if num_items else 0, strip):
        rows = slice(start, start + strip)
        if cap is None:
            _fill(answer, rows, scores[rows], k)
        else:
            _fill_capped(answer, np.arange(num_users)[rows], scores[rows], k, cap)
    return answer


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
