"""Item-item neighbours by shrunk cosine (Sarwar et al. 2001; shrinkage as in Bell and Koren 2007). Free of Spark."""

from __future__ import annotations

import numpy as np
from scipy import sparse


def similar_items(
    user_items: sparse.csr_matrix, first: int, stop: int, num_neighbours: int, shrink: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give the nearest neighbours of items first to stop as (item, neighbour, similarity), positions and float32.

    user_items (users, items) holds 1 where a user had an item. similarity(i, j) = common / (sqrt(n_i n_j) + shrink), with
    n the number of an item's users and common that of both. An item is no neighbour of itself; pairs without a common user
    are none; equal similarities go by position. Rows come by item, nearest first.
    """
    if not 0 <= first <= stop <= user_items.shape[1]:
        raise ValueError(f"items {first} to {stop} are not within the {user_items.shape[1]} items")
    users_per_item = np.asarray(user_items.sum(axis=0)).ravel()
    common = (user_items[:, first:stop].T @ user_items).tocsr()
    common.sort_indices()  # so that a stable sort leaves equal similarities in the order of their positions
    items = np.repeat(np.arange(first, stop), np.diff(common.indptr))
    neighbours = common.indices.astype(np.int64)
    similarity = common.data / (np.sqrt(users_per_item[items] * users_per_item[neighbours]) + shrink)
    is_other = items != neighbours
    items, neighbours, similarity = items[is_other], neighbours[is_other], similarity[is_other].astype(np.float32)
    nearest_first = np.lexsort((neighbours, -similarity, items))
    items, neighbours, similarity = items[nearest_first], neighbours[nearest_first], similarity[nearest_first]
    starts = np.searchsorted(items, np.arange(first, stop))
    rank = np.arange(len(items)) - starts[items - first]
    kept = rank < num_neighbours
    return items[kept], neighbours[kept], similarity[kept]


def items_per_block(num_items: int, max_bytes: int = 256 * 2**20) -> int:
    """Give how many items' rows of the (items, items) product fit into max_bytes if every pair had a common user."""
    return max(1, max_bytes // (16 * max(1, num_items)))
