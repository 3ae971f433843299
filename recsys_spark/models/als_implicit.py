"""Implicit ALS by the solvers of the package `implicit`: the objective of Spark MLlib in one machine's memory. Free of Spark.

Both engines lower, over the factors x of users and y of items (Hu, Koren, Volinsky 2008; the last term is scaled as in Zhou,
Wilkinson, Schreiber, Pan 2008),

    sum over all u, i of c(u, i) (p(u, i) - x_u y_i)^2  +  reg_param (sum of n_u |x_u|^2 + sum of n_i |y_i|^2)

with p = 1 and c = 1 + alpha * rating where there is a rating, p = 0 and c = 1 elsewhere, and n the number of ratings of the
user or item. A matrix for the package holds c itself, and its own `fit` knows one regularization for every row, which is not
scaled. Here the package solves the rows with regularization 0 and the last term comes in as data, as in any ridge regression:
sqrt(reg_param) times the unit vectors are `rank` further items that every user had n_u times and never liked, and as many
further users. That is the same objective, not an approximation of it (docs/adr/0015).
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from recsys_spark.config import AlsConfig
from recsys_spark.errors import ConfigError, TrainingError

ADVICE = "lower als.alpha, raise als.reg_param, or look for extreme weights in the interactions table"
_UNSOLVED = f"ALS met a matrix that it cannot solve; {ADVICE}"
_BYTES_PER_RATING = (
    64  # the columns that come from Spark and the matrix in both orientations, with what making them takes
)
_BYTES_PER_FACTOR = (
    28  # the factor, its copy on the way back to Spark, and one further rating with what making it takes
)


class Factors(NamedTuple):
    """The factors of one side."""

    idx: np.ndarray
    """Numbers of the users or items, ascending, shape (n,)."""
    vectors: np.ndarray
    """float32, shape (n, rank), in the order of idx."""


def needed_bytes(num_ratings: int, num_rows: int, rank: int) -> int:
    """Estimate the memory that `fit_implicit` takes; num_rows counts users and items together."""
    return num_ratings * _BYTES_PER_RATING + num_rows * rank * _BYTES_PER_FACTOR


def fit_implicit(
    users: np.ndarray, items: np.ndarray, ratings: np.ndarray, config: AlsConfig
) -> tuple[Factors, Factors]:
    """Factorise distinct pairs of users and items (numbers of any size); give the factors of users and of items.

    As Spark does, start from directions drawn at random for users and solve items, then users, max_iter times: each row
    exactly (Cholesky), or by cg_steps steps of conjugate gradients from its last value (Takács, Pilászy, Tikk 2011).
    Ratings of 0 are no ratings; a user or item without any gets no factor. The same pairs in any order and the same config
    give the same bits, whatever the number of threads. Raises ConfigError when `implicit` is not installed and
    TrainingError for a row that cannot be solved.
    """
    _require_package()
    rated = ratings > 0
    user_idx, rows = np.unique(users[rated], return_inverse=True)
    item_idx, columns = np.unique(items[rated], return_inverse=True)
    with np.errstate(over="ignore"):  # an infinite confidence is a row that cannot be solved
        confidence = (1 + config.alpha * ratings[rated].astype(np.float64)).astype(np.float32)
    matrix = sparse.csr_matrix((confidence, (rows, columns)), shape=(len(user_idx), len(item_idx)))
    by_user, by_item = _with_regularization(matrix, config.rank), _with_regularization(matrix.T.tocsr(), config.rank)
    user_vectors, item_vectors = (_blank(len(idx), config) for idx in (user_idx, item_idx))
    start = _blank(len(user_idx), config)
    start[: len(user_idx)] = _random_directions(len(user_idx), config)
    # the package runs one row per thread; with threads of its own BLAS would be slower, and sum in another order
    with threadpool_limits(1, user_api="blas"):
        for iteration in range(config.max_iter):
            _solve(by_item, item_vectors[: len(item_idx)], user_vectors if iteration else start, config)
            _solve(by_user, user_vectors[: len(user_idx)], item_vectors, config)
    return Factors(user_idx, user_vectors[: len(user_idx)]), Factors(item_idx, item_vectors[: len(item_idx)])


def _require_package() -> ModuleType:
    try:
        return import_module("implicit.cpu.als")
    except ImportError:
        raise ConfigError(
            "als.engine: implicit needs the package implicit, which is not installed; "
            "run `pip install recsys_spark[implicit]`, or set als.engine=spark"
        ) from None


def _solve(confidence: sparse.csr_matrix, rows: np.ndarray, fixed: np.ndarray, config: AlsConfig) -> None:
    """Write into `rows` what is best against the fixed rows of the other side."""
    model = _require_package().AlternatingLeastSquares(factors=config.rank, use_cg=config.cg_steps > 0)
    model.cg_steps = config.cg_steps
    try:
        model.solver(confidence, rows, fixed, 0.0, num_threads=config.num_threads)
    except ValueError as error:
        if "posv failed" not in str(error):
            raise
        raise TrainingError(_UNSOLVED) from error
    if not np.isfinite(rows).all():
        raise TrainingError(_UNSOLVED)


def _with_regularization(confidence: sparse.csr_matrix, rank: int) -> sparse.csr_matrix:
    """Append `rank` columns in which every row stands with minus its number of ratings: the package's sign for a dislike."""
    num_rows = confidence.shape[0]
    dislikes = np.repeat(-np.diff(confidence.indptr).astype(np.float32), rank)
    columns, offsets = np.tile(np.arange(rank, dtype=np.int32), num_rows), np.arange(num_rows + 1) * rank
    further = sparse.csr_matrix((dislikes, columns, offsets), shape=(num_rows, rank))
    return sparse.hstack([confidence, further], format="csr")


def _blank(num_rows: int, config: AlsConfig) -> np.ndarray:
    """Rows of zeros, and below them those that bring in the regularization."""
    further = np.sqrt(np.float32(config.reg_param)) * np.eye(config.rank, dtype=np.float32)
    return np.vstack([np.zeros((num_rows, config.rank), np.float32), further])


def _random_directions(num_rows: int, config: AlsConfig) -> np.ndarray:
    drawn = np.random.default_rng(config.seed).standard_normal((num_rows, config.rank), dtype=np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
