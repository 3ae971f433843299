"""Implicit ALS in the words of its paper: the rows that are best against fixed factors of the other side, in float64.

For a row with ratings r (Hu, Koren, Volinsky 2008; the regularization scaled by the row's number n of ratings):

    (Y'Y + sum of alpha r y y' + reg_param n I) x = sum of (1 + alpha r) y
"""

from __future__ import annotations

import numpy as np

from recsys_spark.config import AlsConfig


def solve_rows(ratings: np.ndarray, fixed: np.ndarray, config: AlsConfig) -> np.ndarray:
    """ratings holds nan where there is none, shape (rows, columns); fixed has one row per column of it."""
    other = fixed.astype(np.float64)
    solved = []
    for row in ratings:
        rated = ~np.isnan(row)
        confidence = 1 + config.alpha * row[rated]
        left = other.T @ other + (other[rated].T * (confidence - 1)) @ other[rated]
        left += config.reg_param * rated.sum() * np.eye(config.rank)
        solved.append(np.linalg.solve(left, other[rated].T @ confidence))
    return np.array(solved)
