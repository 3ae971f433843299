"""What every recommender must satisfy, as functions over its rows of the recommendations table. A new model passes them all.

lists_pdf holds the rows of one model and task as pandas; `had` says what each user had before the cutoff.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
import pandas as pd

from recsys_spark.schemas import RECOMMENDATIONS

TOLERANCE = 1e-5
"""Scores that differ by less are equal: two engines may order them either way."""


def check_schema(recommendations: Any) -> None:
    """Columns, types and order are the contract's, and nothing is null."""
    assert [(f.name, f.dataType) for f in recommendations.schema] == [(f.name, f.dataType) for f in RECOMMENDATIONS]
    assert not recommendations.toPandas().isna().any().any()


def check_at_most_k(lists_pdf: pd.DataFrame, k: int) -> None:
    assert lists_pdf.groupby("user_id").size().max() <= k


def check_ranks(lists_pdf: pd.DataFrame) -> None:
    """Ranks are 1, 2, ... by falling score; equal scores go by item_id as UTF-8."""
    for user_id, rows in lists_pdf.sort_values("rank").groupby("user_id"):
        assert rows["rank"].tolist() == list(range(1, len(rows) + 1)), user_id
        keys = [(-score, item.encode()) for score, item in zip(rows["score"], rows["item_id"], strict=True)]
        assert keys == sorted(keys), user_id


def check_scores_are_finite(lists_pdf: pd.DataFrame) -> None:
    assert lists_pdf["score"].dtype == np.float32
    assert np.isfinite(lists_pdf["score"]).all()


def check_no_item_twice(lists_pdf: pd.DataFrame) -> None:
    assert not lists_pdf.duplicated(["user_id", "item_id"]).any()


def check_only_catalogue(lists_pdf: pd.DataFrame, catalogue: Collection[str]) -> None:
    assert set(lists_pdf["item_id"]) <= set(catalogue)


def check_nothing_seen(lists_pdf: pd.DataFrame, had: Callable[[str], set[str]]) -> None:
    shown_again = {user: had(user) & set(rows["item_id"]) for user, rows in lists_pdf.groupby("user_id")}
    assert {user: items for user, items in shown_again.items() if items} == {}


def check_fallback(lists_pdf: pd.DataFrame, fallback_pdf: pd.DataFrame, unknown: Collection[str]) -> None:
    """Users that the model cannot know get the fallback's own list, marked; nobody else's list is marked."""
    assert set(lists_pdf[lists_pdf["is_fallback"]]["user_id"]) == set(unknown)
    marked, own = (as_lists(pdf[pdf["user_id"].isin(unknown)]) for pdf in (lists_pdf, fallback_pdf))
    assert marked == own


def check_same_lists(left_pdf: pd.DataFrame, right_pdf: pd.DataFrame, tolerance: float = 0.0) -> None:
    """Same items in the same order with the same scores; with a tolerance items of nearly equal score may swap."""
    left, right = as_lists(left_pdf), as_lists(right_pdf)
    assert left.keys() == right.keys()
    for user_id in left:
        if not tolerance:
            assert left[user_id] == right[user_id], user_id
            continue
        scores, other_scores = ([score for _, score in lists[user_id]] for lists in (left, right))
        np.testing.assert_allclose(scores, other_scores, rtol=0, atol=tolerance, err_msg=user_id)
        swapped = [pair for pair, other in zip(left[user_id], right[user_id], strict=True) if pair[0] != other[0]]
        others = dict(right[user_id])
        for item_id, score in swapped:  # an item that left the list has the score of its end
            assert abs(others.get(item_id, scores[-1]) - score) <= tolerance, (user_id, item_id)


def check_beats(
    lists_pdf: pd.DataFrame, baseline_pdf: pd.DataFrame, truth: dict[str, set[str]], at_least: float, k: int
) -> None:
    """Mean recall at k is at_least that high, and above the baseline's."""
    recall, baseline = mean_recall(lists_pdf, truth, k), mean_recall(baseline_pdf, truth, k)
    assert recall >= at_least
    assert recall > baseline


def mean_recall(lists_pdf: pd.DataFrame, truth: dict[str, set[str]], k: int) -> float:
    top = lists_pdf[lists_pdf["rank"] <= k].groupby("user_id")["item_id"].agg(set)
    return float(np.mean([len(items & top.get(user_id, set())) / len(items) for user_id, items in truth.items()]))


def as_lists(lists_pdf: pd.DataFrame) -> dict[str, list[tuple[str, float]]]:
    """User to (item, score) pairs in the order of rank."""
    ordered = lists_pdf.sort_values("rank")
    return {
        str(user_id): list(zip(rows["item_id"], rows["score"], strict=True))
        for user_id, rows in ordered.groupby("user_id")
    }


def top_k_by_sorting(
    scores: dict[str, float], hidden: Iterable[str], k: int, only_positive: bool = False
) -> list[tuple[str, float]]:
    """The slow and obvious top k of one user: sort by (-score, UTF-8 of the id) and cut."""
    hidden = set(hidden)
    kept = [(item, score) for item, score in scores.items() if item not in hidden and (score > 0 or not only_positive)]
    return sorted(kept, key=lambda pair: (-pair[1], pair[0].encode()))[:k]
