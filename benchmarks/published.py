"""Splits, protocols and reference models of the benchmarks that meet published numbers.

Columns of every matrix are items in the order of their ids as UTF-8 bytes, so that the engine's rule for ties (by column)
is the rule for ties of the evaluation (by item id).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from recsys_spark.evaluation.metrics import rank_by_score, ranking_metrics
from recsys_spark.models.top_k import top_k_of_scores

K = 10
TIE_ORDER = "score descending, then item id as UTF-8 bytes ascending"


class Split(NamedTuple):
    """One held-out item per user."""

    train: sparse.csr_matrix  # (users, items), 1 where the user had the item
    test: np.ndarray  # (users,), the column of the held-out item; -1 for users without one
    item_ids: list[str]


def read_ratings(folder: Path) -> pd.DataFrame:
    """user_id, item_id, timestamp of MovieLens 1M (ratings.dat) or 100K (u.data), in the order of the file."""
    names = ["user_id", "item_id", "rating", "timestamp"]
    if (folder / "ratings.dat").exists():
        ratings = pd.read_csv(folder / "ratings.dat", sep="::", engine="python", names=names)
    else:
        ratings = pd.read_csv(folder / "u.data", sep="\t", names=names)
    return ratings.astype({"user_id": str, "item_id": str})


def leave_last_out(ratings: pd.DataFrame, min_item_ratings: int = 1) -> Split:
    """Hold out each user's last rating of the items with enough ratings; of equal timestamps the last in the file is last."""
    per_item = ratings["item_id"].map(ratings["item_id"].value_counts())
    kept = ratings[per_item >= min_item_ratings].sort_values("timestamp", kind="stable")
    is_last = ~kept.duplicated("user_id", keep="last")
    return make_split(kept[~is_last], kept[is_last])


def make_split(train: pd.DataFrame, test: pd.DataFrame) -> Split:
    """Number the users and items of frames with user_id and item_id; the catalogue is every item of either."""
    users = pd.Index(sorted({*train["user_id"], *test["user_id"]}, key=str.encode))
    items = pd.Index(sorted({*train["item_id"], *test["item_id"]}, key=str.encode))
    rows, columns = users.get_indexer(train["user_id"]), items.get_indexer(train["item_id"])
    matrix = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(users), len(items)))
    held_out = np.full(len(users), -1)
    held_out[users.get_indexer(test["user_id"])] = items.get_indexer(test["item_id"])
    return Split(matrix, held_out, list(items))


def read_ncf(folder: Path) -> tuple[Split, list[np.ndarray]]:
    """The NCF split of MovieLens 1M and the candidates of each user: a set, the held-out item and up to 99 negatives."""
    names = ["user_id", "item_id", "rating", "timestamp"]
    train, test = (
        pd.read_csv(folder / f"ml-1m.{part}.rating", sep="\t", names=names).astype({"user_id": str, "item_id": str})
        for part in ("train", "test")
    )
    split = make_split(train, test)
    column = {item_id: place for place, item_id in enumerate(split.item_ids)}
    users = sorted(set(train["user_id"]), key=str.encode)
    negatives = {}
    for line in (folder / "ml-1m.test.negative").read_text().splitlines():
        key, *items = line.split("\t")
        negatives[key.strip("()").split(",")[0]] = [column[item_id] for item_id in items]
    return split, [np.unique([held_out, *negatives[user]]) for user, held_out in zip(users, split.test, strict=True)]


def evaluate_full(scores: np.ndarray, split: Split) -> dict[str, float]:
    """HR and NDCG at 10 over the whole catalogue, items of the train part masked. Overwrites scores (users, items)."""
    top = top_k_of_scores(scores.astype(np.float32, copy=False), K, (split.train.indptr, split.train.indices))
    rows, places = np.nonzero(top.positions >= 0)
    offsets = np.concatenate([[0], np.cumsum(top.counts)])
    return _means(top.positions[rows, places].astype(np.int64), offsets, split)


def evaluate_candidates(scores: np.ndarray, split: Split, candidates: list[np.ndarray]) -> dict[str, float]:
    """HR and NDCG at 10 among each user's candidates."""
    lists = []
    for row, columns in zip(scores, candidates, strict=True):
        order = rank_by_score(row[columns], [split.item_ids[column] for column in columns])
        lists.append(columns[order[:K]])
    return _means(np.concatenate(lists), np.concatenate([[0], np.cumsum([len(part) for part in lists])]), split)


def _means(items: np.ndarray, offsets: np.ndarray, split: Split) -> dict[str, float]:
    assert (split.test >= 0).all()
    values = ranking_metrics(items, offsets, split.test, np.arange(len(split.test) + 1), K)
    return {"hr": round(float(values["hr"].mean()), 6), "ndcg": round(float(values["ndcg"].mean()), 6)}


def popularity_scores(train: sparse.csr_matrix) -> np.ndarray:
    """Number of users per item, the same row for everybody."""
    counts = np.asarray(train.sum(axis=0)).astype(np.float32)
    return np.repeat(counts, train.shape[0], axis=0)


def ease_scores(train: sparse.csr_matrix, l2: float) -> np.ndarray:
    """EASE (Steck, WWW 2019): B = I - P / diag(P) with P = (X'X + l2 I)^-1, a zero diagonal, and scores X B."""
    gram = (train.T @ train).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += l2
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return np.asarray(train @ weights.astype(np.float32))
