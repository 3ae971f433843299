"""Approximate top-K lists by an inverted file (faiss IVF-Flat), and how near they are to exact ones. Free of Spark.

Items are put into cells around the centroids of a spherical k-means; a search visits the cells whose centroids have the
highest dot products with the user's vector and compares all items in them exactly (Sivic and Zisserman, "Video Google",
ICCV 2003; Johnson, Douze and Jégou, "Billion-scale similarity search with GPUs", 2019). So listed scores are true dot products,
and the only error is an item that lies in a cell that was not visited.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.config_approximate import ApproximateConfig
from recsys_spark.errors import ConfigError
from recsys_spark.models.category_cap import CategoryCap, within_cap
from recsys_spark.models.selection import TopK, descending_key, empty_answer, keep_places
from recsys_spark.models.top_k import MAX_BLOCK_BYTES, Seen, rows_per_block, seen_block, top_k_dot_product

RECALL_K = 10
"""Recall is measured on the first places: those that people see."""
_MIN_CELL_ITEMS = 39  # below that faiss warns that centroids mean little
_TRAINED_ON = 64  # items per cell: more make the cells hardly better and the training slower
_ITERATIONS = 10
_CELLS_PER_PLACE = 12  # of four bytes: what is held for each fetched place of a block, with the copies of sorting


class IndexRecall(NamedTuple):
    """How near approximate lists are to exact ones."""

    recall: float
    """Mean share of the exact first RECALL_K items that are found; other items with the same scores count as found."""
    exact_share: float
    """Share of the users whose approximate list came out short, so that it was made exactly."""
    num_users: int
    """Users with at least one candidate: those averaged over."""


def build_index(item_vectors: NDArray[np.float32], excluded: NDArray[np.bool_], config: ApproximateConfig) -> Any:
    """Put all items but the excluded ones into cells; give the faiss index, whose ids are item positions.

    item_vectors is float32 (items, d). The same vectors and config give the same cells. Raises ConfigError when faiss is not
    installed and ValueError when every item is excluded.
    """
    faiss = _faiss()
    positions = np.flatnonzero(~excluded)
    num_items, dimensions = len(positions), item_vectors.shape[1]
    if not num_items:
        raise ValueError("expected at least one item that is not excluded, found none")
    wanted = config.cells if config.cells is not None else round(4 * num_items**0.5)
    num_cells = max(1, min(wanted, num_items // _MIN_CELL_ITEMS))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimensions), dimensions, num_cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.seed = _ITERATIONS, config.seed
    index.nprobe = config.probes
    rng = np.random.default_rng(config.seed)
    index.train(item_vectors[np.sort(rng.choice(positions, min(num_items, _TRAINED_ON * num_cells), replace=False))])
    index.add_with_ids(item_vectors[positions], positions)
    return index


def write_index(index: Any, path: Path) -> None:
    """Write an index as one file."""
    _faiss().write_index(index, str(path))


@lru_cache(maxsize=1)
def open_index(path: str) -> Any:
    """Give the index of a file, once per process. Its vectors stay in the file: all processes of a machine share the pages."""
    faiss = _faiss()
    return faiss.read_index(path, faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)


def top_k_approximate(
    index: Any,
    user_vectors: NDArray[np.float32],
    item_vectors: NDArray[np.float32],
    k: int,
    overfetch: float,
    seen: Seen | None = None,
    excluded: NDArray[np.bool_] | None = None,
    cap: CategoryCap | None = None,
    max_block_bytes: int = MAX_BLOCK_BYTES,
) -> tuple[TopK, NDArray[np.bool_]]:
    """Take about the k best items of every user; arguments and answer as in `top_k_dot_product`.

    The index is asked for overfetch * k items, what was seen is taken out and the cap applied. Rows that come out short are made
    by `top_k_dot_product`. Also gives the mask of those rows, shape (users,). Equal scores are ordered by position; which of
    the items that tie at the end of what was fetched are listed is not defined.
    """
    if not np.isfinite(user_vectors).all():
        raise ValueError("user_vectors must be finite, found NaN or infinity")
    num_users, num_items = len(user_vectors), len(item_vectors)
    fetched = min(int(np.ceil(overfetch * k)), index.ntotal)
    answer = empty_answer(num_users, k)
    step = rows_per_block(_CELLS_PER_PLACE * fetched, max_block_bytes)
    for start in range(0, num_users, step):
        rows = slice(start, min(start + step, num_users))
        found = _search(index, user_vectors[rows], fetched)
        block_seen = seen_block(seen, rows.start, rows.stop)
        if block_seen is not None:
            found.positions[_is_seen(found.positions, block_seen, num_items)] = -1
        kept = keep_places(found, found.positions >= 0 if cap is None else within_cap(found.positions, cap), k)
        answer.positions[rows], answer.scores[rows], answer.counts[rows] = kept
    is_short = answer.counts < k
    if is_short.any():
        short = np.flatnonzero(is_short)
        short_seen = None if seen is None else _seen_of(short, seen)
        exact = top_k_dot_product(user_vectors[short], item_vectors, k, short_seen, excluded, max_block_bytes, cap)
        answer.positions[short], answer.scores[short], answer.counts[short] = exact
    return answer, is_short


def measure_recall(approximate: TopK, is_exact: NDArray[np.bool_], exact: TopK) -> IndexRecall:
    """Compare the first RECALL_K places of approximate lists with those of exact lists of the same users.

    A listed item counts as found when its score reaches that of the last exact place, up to rounding (1e-5 of it): items
    that tie there are as good as each other.
    """
    has_any = exact.counts > 0
    num_exact = np.minimum(exact.counts[has_any], RECALL_K)
    if not len(num_exact):
        return IndexRecall(1.0, 0.0, 0)
    last = np.take_along_axis(exact.scores[has_any], num_exact[:, None] - 1, axis=1)
    is_found = approximate.scores[has_any, :RECALL_K] >= last - 1e-5 * np.abs(last)
    recall = np.minimum(is_found.sum(axis=1), num_exact) / num_exact
    return IndexRecall(float(recall.mean()), float(is_exact[has_any].mean()), len(num_exact))


def _seen_of(rows: NDArray[np.int64], seen: Seen) -> Seen:
    """The seen items of some of the rows."""
    indptr, indices = seen
    lengths = np.diff(indptr)[rows]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    places = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - np.asarray(indptr)[rows], lengths)
    return offsets, np.asarray(indices)[places]


def _search(index: Any, user_vectors: NDArray[np.float32], fetched: int) -> TopK:
    """Lists of the index in the order of the contract; the padding of faiss is -1 too, with the lowest float as its score."""
    scores, positions = index.search(np.ascontiguousarray(user_vectors), fetched)
    order = np.argsort(descending_key(scores) << np.uint64(32) | positions.astype(np.uint32), axis=1)
    scores, positions = np.take_along_axis(scores, order, axis=1), np.take_along_axis(positions, order, axis=1)
    return TopK(positions.astype(np.int32), scores, np.count_nonzero(positions >= 0, axis=1))


def _is_seen(positions: NDArray[np.int32], seen: Seen, num_items: int) -> NDArray[np.bool_]:
    """Mask of the places that hold an item which the row's user has seen."""
    indptr, indices = seen
    rows = np.arange(len(positions))
    own = np.repeat(rows, np.diff(indptr)) * num_items + indices
    places = rows[:, None] * num_items + positions
    return np.isin(places, own) & (positions >= 0)


def _faiss() -> Any:
    try:
        return import_module("faiss")
    except ImportError:
        raise ConfigError(
            "recommend.index: approximate needs the package faiss-cpu: install recsys_spark[ann] on the driver and on every worker, "
            "or set recommend.index to exact"
        ) from None
