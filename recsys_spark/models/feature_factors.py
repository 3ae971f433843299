"""Factorisation of features: Kula, "Metadata Embeddings for User and Item Cold-start Recommendations", 2015. Free of Spark.

A user's vector q is the sum of the embeddings of the user's features, an item's vector p and bias b are the sums of those of
the item's features; an id may be a feature as well. The score of an item for a user is q p + b. A user's bias would add the
same to all scores of the user, so there is none.

Learned is the order of items, on batches of interactions of a user u with an item i. For every batch num_negatives items j are
drawn evenly from all that have interactions; for a user those count that the user did not have.

- warp (Weston, Bengio, Usunier 2011): the items are tried in a circle that starts somewhere else for every interaction; the
  first j with s_uj > s_ui - 1 costs log((items - 1) / tries) (1 + s_uj - s_ui), an estimate of how far down i stands. Without
  such a j nothing is paid.
- bpr (Rendle, Freudenthaler, Gantner, Schmidt-Thieme 2009): the mean over the j of -log sigmoid(s_ui - s_uj).

A cost counts as much as the interaction's weight, divided by the mean weight. To it is added regularization / 2 times the
squared length of the embeddings of u and i. Steps are Adagrad's (Duchi, Hazan, Singer 2011).

One draw serves a whole batch, so that all scores are one matrix product: hundreds of tries cost less than ten of one's own.
"""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import expit
from threadpoolctl import threadpool_limits

from recsys_spark.config_feature_factors import FeatureFactorsConfig
from recsys_spark.errors import TrainingError
from recsys_spark.models.feature_matrix import Side

_log = logging.getLogger(__name__)

_START_LENGTH = 0.1  # of an embedding, on average
_TINY = np.float32(1e-10)  # under the root of a sum of squares that is still 0
_BYTES_PER_PAIR = 200  # ids as texts, their positions, and the order of an epoch
_BYTES_PER_DRAW = 24  # of an interaction of a batch: its score, the place among the tries, the slope, masks
_BYTES_PER_NUMBER = 20  # an embedding with Adagrad's sum, the vector made of it, and its copy on the way back to Spark


class Embeddings(NamedTuple):
    """One row per feature, float32."""

    users: np.ndarray
    """Shape (user features, d)."""
    items: np.ndarray
    """Shape (item features, d + 1); the last column is the bias."""


class _Learned(NamedTuple):
    """The embeddings of one side and Adagrad's sum of their squared gradients, both changed in place."""

    features: sparse.csr_matrix
    values: np.ndarray
    squares: np.ndarray


class _Batch(NamedTuple):
    """Some interactions, and items drawn for all of them."""

    users: np.ndarray
    """Shape (batch,)."""
    items: np.ndarray
    """Shape (batch,)."""
    scale: np.ndarray
    """How much each interaction counts, shape (batch,), float32."""
    drawn: np.ndarray
    """Distinct items, shape (draws,)."""
    counts: np.ndarray
    """Which of the drawn items the user did not have, shape (batch, draws)."""
    first_try: np.ndarray
    """The place among the draws where each interaction begins to try, shape (batch,)."""


def needed_bytes(num_pairs: int, num_rows: int, config: FeatureFactorsConfig) -> int:
    """Estimate the memory that training takes; num_rows counts users and items, warm and cold, together."""
    step = config.batch_size * min(config.num_negatives, num_rows) * _BYTES_PER_DRAW
    return num_pairs * _BYTES_PER_PAIR + num_rows * (config.embedding_size + 1) * _BYTES_PER_NUMBER + step


def fit_feature_factors(users: Side, items: Side, weights: np.ndarray, config: FeatureFactorsConfig) -> Embeddings:
    """Learn the embeddings of all features from interactions with positive weights, shape (interactions,).

    Interactions are distinct pairs; those whose user or item has no feature are left out. The same interactions in any order
    and the same config give the same bits.
    Raises TrainingError when no interaction is left or a number is not finite.
    """
    usable = users.has_features()[users.rows] & items.has_features()[items.rows]
    if not usable.any():
        raise TrainingError(
            "feature_factors found no interaction whose user and item have a feature; expected at least one: switch "
            "feature_factors.user_ids and item_ids on, or name features that users and items have"
        )
    rng = np.random.default_rng(config.seed)
    of_users, of_items = _start(users, config.embedding_size, rng), _start(items, config.embedding_size + 1, rng)
    of_items.values[:, -1] = 0
    num_items = items.num_warm
    keys, in_order = np.unique(users.rows[usable] * num_items + items.rows[usable], return_index=True)
    user_rows, item_rows = np.divmod(keys, num_items)
    scale = weights[usable][in_order]
    scale = (scale / scale.mean()).astype(np.float32)
    had = sparse.csr_matrix((np.ones(len(keys), np.int8), (user_rows, item_rows)), shape=(users.num_warm, num_items))
    # sums of BLAS depend on its threads; what is multiplied here is small
    with threadpool_limits(1, user_api="blas"), np.errstate(over="ignore", invalid="ignore"):
        for epoch in range(config.epochs):
            order = rng.permutation(len(keys))
            for start in range(0, len(keys), config.batch_size):
                rows = order[start : start + config.batch_size]
                drawn = rng.permutation(num_items)[: config.num_negatives]
                counts, first_try = ~_is_among(had[user_rows[rows]], drawn), rng.integers(len(drawn), size=len(rows))
                batch = _Batch(user_rows[rows], item_rows[rows], scale[rows], drawn, counts, first_try)
                _descend(batch, of_users, of_items, config)
            _check_finite(of_users, of_items, epoch)
    return Embeddings(of_users.values, of_items.values)


def user_vectors(features: sparse.csr_matrix, embeddings: np.ndarray) -> np.ndarray:
    """Give (users, d + 1): the sum of a user's embeddings, and 1 for the item's bias."""
    vectors = features @ embeddings
    return np.concatenate([vectors, np.ones((len(vectors), 1), np.float32)], axis=1)


def item_vectors(features: sparse.csr_matrix, embeddings: np.ndarray) -> np.ndarray:
    """Give (items, d + 1): the sum of an item's embeddings, and of their biases. Its dot product with a user's is the score."""
    return features @ embeddings


def _start(side: Side, width: int, rng: np.random.Generator) -> _Learned:
    features = side.features[: side.num_warm]
    values = rng.standard_normal((features.shape[1], width), dtype=np.float32)
    values *= np.float32(_START_LENGTH / math.sqrt(width))
    return _Learned(features, values, np.zeros_like(values))


def _descend(batch: _Batch, of_users: _Learned, of_items: _Learned, config: FeatureFactorsConfig) -> None:
    """Make one step on all embeddings that take part in the batch."""
    user_features, item_features = of_users.features[batch.users], of_items.features[batch.items]
    drawn_features = of_items.features[batch.drawn]
    queries = user_vectors(user_features, of_users.values)
    items, drawn = (item_vectors(features, of_items.values) for features in (item_features, drawn_features))
    above = queries @ drawn.T - np.einsum("bd,bd->b", queries, items)[:, None]
    if config.loss == "warp":
        slopes = warp_slopes(above, batch.counts, batch.first_try, of_items.features.shape[0])
    else:
        slopes = bpr_slopes(above, batch.counts)
    slopes *= batch.scale[:, None]
    # a score is a dot product, so the derivatives by the vectors are products with those by the scores
    total = slopes.sum(axis=1, keepdims=True)
    for_queries = (slopes @ drawn - total * items)[:, :-1]
    for_items = np.concatenate([-total * queries, slopes.T @ queries])
    _step(of_users, user_features, for_queries, np.ones(len(queries), np.float32), config)
    in_loss = np.concatenate([np.ones(len(items), np.float32), np.zeros(len(drawn), np.float32)])
    _step(of_items, sparse.vstack([item_features, drawn_features], format="csr"), for_items, in_loss, config)


def warp_slopes(above: np.ndarray, counts: np.ndarray, first_try: np.ndarray, num_items: int) -> np.ndarray:
    """Give the derivative of warp by `above`, s_uj - s_ui of shape (batch, draws): log((items - 1) / tries) at one j or none."""
    num_drawn = above.shape[1]
    tries = (np.arange(num_drawn, dtype=np.int32) - first_try[:, None].astype(np.int32)) % num_drawn
    tries[~(counts & (above > -1))] = num_drawn
    rows, columns = np.arange(len(above)), tries.argmin(axis=1)
    least = tries[rows, columns]
    slopes = np.zeros_like(above)
    slopes[rows, columns] = np.where(least < num_drawn, np.log(np.maximum(1, (num_items - 1) / (least + 1))), 0)
    return slopes


def bpr_slopes(above: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Give the derivative of bpr by `above`, s_uj - s_ui of shape (batch, draws): sigmoid(above) over the number that counts."""
    return np.where(counts, expit(above), 0) / np.maximum(1, counts.sum(axis=1, keepdims=True)).astype(above.dtype)


def _step(
    learned: _Learned,
    features: sparse.csr_matrix,
    gradient: np.ndarray,
    in_loss: np.ndarray,
    config: FeatureFactorsConfig,
) -> None:
    """Move embeddings by the gradient of the sums that features, (rows, features), makes of them.

    in_loss says how often the embeddings of a row are in the loss by their squared length.
    """
    touched, columns = np.unique(features.indices, return_inverse=True)
    to_features = sparse.csr_matrix(
        (features.data, columns, features.indptr), shape=(features.shape[0], len(touched))
    ).T
    values = learned.values[touched]
    total = to_features @ gradient
    if config.regularization:
        total += (np.float32(config.regularization) * (to_features @ in_loss))[:, None] * values
    squares = learned.squares[touched] + total**2
    learned.squares[touched] = squares
    learned.values[touched] = values - np.float32(config.learning_rate) * total / np.sqrt(squares + _TINY)


def _is_among(had: sparse.csr_matrix, drawn: np.ndarray) -> np.ndarray:
    """Say which of the drawn items each row of had holds, shape (rows, draws)."""
    place = np.full(had.shape[1], -1)
    place[drawn] = np.arange(len(drawn))
    rows, columns = np.repeat(np.arange(had.shape[0]), np.diff(had.indptr)), place[had.indices]
    found = np.zeros((had.shape[0], len(drawn)), bool)
    found[rows[columns >= 0], columns[columns >= 0]] = True
    return found


def _check_finite(of_users: _Learned, of_items: _Learned, epoch: int) -> None:
    if not (np.isfinite(of_users.values).all() and np.isfinite(of_items.values).all()):
        raise TrainingError(
            f"feature_factors has embeddings that are not finite after {epoch + 1} epochs; lower "
            "feature_factors.learning_rate, or look for extreme weights in the interactions table; the vectors of the run "
            "before are kept"
        )
    _log.debug("feature_factors epoch=%d", epoch + 1)
