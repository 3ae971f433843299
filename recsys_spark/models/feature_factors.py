"""Factorisation of features: Kula, "Metadata Embeddings for User and Item Cold-start Recommendations", 2015. Free of Spark.

A user's vector q is the sum of the embeddings of the user's features, an item's vector p and bias b are the sums of those of
the item's features; an id may be a feature as well. The score of an item for a user is q p + b. A user's bias would add the
same to all scores of the user, so there is none.

Learned is the order of items: for every interaction of a user u with an item i, items j are drawn evenly from all that have
interactions, and those that the user had do not count.

- warp (Weston, Bengio, Usunier 2011): the first j with s_uj > s_ui - 1 costs log((items - 1) / tries) (1 + s_uj - s_ui), where
  tries numbers the draw: an estimate of how far down the item stands. Without such a j nothing is paid.
- bpr (Rendle, Freudenthaler, Gantner, Schmidt-Thieme 2009): each j costs -log sigmoid(s_ui - s_uj), divided by their number.

A cost counts as much as the interaction's weight, divided by the mean weight. To it is added regularization / 2 times the
squared length of the embeddings that take part. Steps are Adagrad's (Duchi, Hazan, Singer 2011), on batches of interactions.
"""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import expit

from recsys_spark.config_feature_factors import FeatureFactorsConfig
from recsys_spark.errors import TrainingError
from recsys_spark.models.feature_matrix import Side

_log = logging.getLogger(__name__)

_START_LENGTH = 0.1  # of an embedding, on average
_TINY = np.float32(1e-10)  # under the root of a sum of squares that is still 0
_BYTES_PER_PAIR = 200  # ids as texts, their positions, and the order of an epoch
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


class _Triples(NamedTuple):
    """Users who should find `better` above `worse`, and how fast the loss grows with the difference of the wrong order."""

    users: np.ndarray
    better: np.ndarray
    worse: np.ndarray
    slopes: np.ndarray


def needed_bytes(num_pairs: int, num_rows: int, config: FeatureFactorsConfig) -> int:
    """Estimate the memory that training takes; num_rows counts users and items, warm and cold, together."""
    return num_pairs * _BYTES_PER_PAIR + num_rows * (config.embedding_size + 1) * _BYTES_PER_NUMBER


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
    of_users = _start(users, config.embedding_size, rng)
    of_items = _start(items, config.embedding_size + 1, rng)
    of_items.values[:, -1] = 0
    num_items = of_items.features.shape[0]
    had, in_order = np.unique(users.rows[usable] * num_items + items.rows[usable], return_index=True)
    user_rows, item_rows = np.divmod(had, num_items)
    ordered_weights = weights[usable][in_order]
    scale = (ordered_weights / ordered_weights.mean()).astype(np.float32)
    for epoch in range(config.epochs):
        order = rng.permutation(len(user_rows))
        for start in range(0, len(order), config.batch_size):
            batch = order[start : start + config.batch_size]
            drawn = rng.integers(num_items, size=(len(batch), config.num_negatives))
            counts = ~_is_among(user_rows[batch, None] * num_items + drawn, had)
            with np.errstate(over="ignore", invalid="ignore"):  # found at the end of the epoch
                triples = _find_triples(
                    user_rows[batch], item_rows[batch], drawn, counts, scale[batch], of_users, of_items, config.loss
                )
                _descend(triples, of_users, of_items, config)
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


def _find_triples(
    users: np.ndarray,
    had: np.ndarray,
    drawn: np.ndarray,
    counts: np.ndarray,
    scale: np.ndarray,
    of_users: _Learned,
    of_items: _Learned,
    loss: str,
) -> _Triples:
    """Score what was drawn for each interaction of a batch, shape (batch, draws), and say what costs how much."""
    queries = user_vectors(of_users.features[users], of_users.values)
    items, place = np.unique(np.column_stack([had, drawn]), return_inverse=True)
    vectors = of_items.features[items] @ of_items.values
    scores = np.einsum("bd,bmd->bm", queries, vectors[place.reshape(len(users), -1)])
    above = scores[:, 1:] - scores[:, :1]
    if loss == "bpr":
        rows, columns = np.nonzero(counts)
        slopes = expit(above[rows, columns]) / counts.sum(axis=1)[rows]
    else:
        costs = counts & (above > -1)
        rows = np.flatnonzero(costs.any(axis=1))
        columns = costs[rows].argmax(axis=1)
        slopes = np.log(np.maximum(1, (of_items.features.shape[0] - 1) / (columns + 1)))
    return _Triples(users[rows], had[rows], drawn[rows, columns], (slopes * scale[rows]).astype(np.float32))


def _descend(triples: _Triples, of_users: _Learned, of_items: _Learned, config: FeatureFactorsConfig) -> None:
    """Make one step of Adagrad on all embeddings that take part in the triples."""
    users, user_place = np.unique(triples.users, return_inverse=True)
    items, item_place = np.unique(np.concatenate([triples.better, triples.worse]), return_inverse=True)
    queries = user_vectors(of_users.features[users], of_users.values)
    vectors = of_items.features[items] @ of_items.values
    # the derivative of the loss by each score, (items, users); a score is a dot product, so the rest are two products
    by_score = sparse.csr_matrix(
        (np.concatenate([-triples.slopes, triples.slopes]), (item_place, np.tile(user_place, 2))),
        shape=(len(items), len(users)),
    )
    _step(of_users, users, (by_score.T @ vectors)[:, :-1], np.bincount(user_place), config)
    _step(of_items, items, by_score @ queries, np.bincount(item_place), config)


def _step(
    learned: _Learned, rows: np.ndarray, gradient: np.ndarray, uses: np.ndarray, config: FeatureFactorsConfig
) -> None:
    """Move the embeddings of the rows' features: gradient is that of the rows' vectors, uses says how often each took part."""
    features = learned.features[rows]
    touched, columns = np.unique(features.indices, return_inverse=True)
    to_features = sparse.csr_matrix((features.data, columns, features.indptr), shape=(len(rows), len(touched))).T
    values = learned.values[touched]
    total = to_features @ gradient
    if config.regularization:
        total += (config.regularization * (to_features @ uses))[:, None].astype(np.float32) * values
    squares = learned.squares[touched] + total**2
    learned.squares[touched] = squares
    learned.values[touched] = values - np.float32(config.learning_rate) * total / np.sqrt(squares + _TINY)


def _is_among(keys: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    place = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    return np.asarray(ordered[place] == keys)


def _check_finite(of_users: _Learned, of_items: _Learned, epoch: int) -> None:
    if not (np.isfinite(of_users.values).all() and np.isfinite(of_items.values).all()):
        raise TrainingError(
            f"feature_factors has embeddings that are not finite after {epoch + 1} epochs; lower "
            "feature_factors.learning_rate, or look for extreme weights in the interactions table; the vectors of the run "
            "before are kept"
        )
    _log.debug("feature_factors epoch=%d", epoch + 1)
