"""Item-item neighbours by shrunk cosine (Sarwar et al. 2001; shrinkage as in Bell and Koren 2007). Free of Spark."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from recsys_spark.models.top_k import top_k_of_scores


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
    common = (user_items[:, first:stop].T @ user_items).tocoo()
    pair_users = np.sqrt(users_per_item[first + common.row] * users_per_item[common.col])
    scores = np.full(common.shape, -np.inf, dtype=np.float32)  # no common user: no candidate
    scores[common.row, common.col] = common.data / (pair_users + shrink)
    scores[np.arange(stop - first), np.arange(first, stop)] = -np.inf
    nearest = top_k_of_scores(scores, num_neighbours)
    rows, ranks = np.nonzero(nearest.positions >= 0)
    return first + rows, nearest.positions[rows, ranks].astype(np.int64), nearest.scores[rows, ranks]
