"""Splits, protocols and reference models of the benchmarks that meet published numbers.

Columns of every matrix are items in the order of their ids as UTF-8 bytes, so that the engine's rule for ties (by column)
is the rule for ties of the evaluation (by item id).
"""

from datetime import date
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from scipy import sparse

from recsys_spark.config import AlsConfig, Config
from recsys_spark.evaluation.metrics import rank_by_score, ranking_metrics
from recsys_spark.infra import tables
from recsys_spark.models.als import fit_als
from recsys_spark.models.ease import add_to_gram, item_weights
from recsys_spark.models.top_k import top_k_of_scores
from recsys_spark.schemas import EVENTS

K = 10
TIE_ORDER = "score descending, then item id as UTF-8 bytes ascending"


class Split(NamedTuple):
    """One held-out item per user."""

    train: sparse.csr_matrix  # (users, items), 1 where the user had the item
    test: np.ndarray  # (users,), the column of the held-out item; -1 for users without one
    user_ids: np.ndarray
    item_ids: list[str]


def read_ratings(folder: Path) -> pd.DataFrame:
    """user_id, item_id, timestamp of MovieLens 1M (ratings.dat) or 100K (u.data), in the order of the file."""
    names = ["user_id", "item_id", "rating", "timestamp"]
    path = next(path for path in (folder / "ratings.dat", folder / "u.data") if path.exists())
    ratings = pd.read_csv(StringIO(path.read_text().replace("::", "\t")), sep="\t", names=names)
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
    return Split(matrix, held_out, users.to_numpy(), list(items))


def read_ncf(folder: Path) -> tuple[Split, list[np.ndarray]]:
    """The NCF split of MovieLens 1M and the candidates of each user: a set, the held-out item and up to 99 negatives.

    Items get MovieLens's own ids back (item_id_map.csv), by which ties are ordered.
    """
    film_of = pd.read_csv(folder / "item_id_map.csv", dtype=str).set_index("ncf_item_id")["movie_id"].to_dict()
    names = ["user_id", "item_id", "rating", "timestamp"]
    train, test = (
        pd.read_csv(folder / f"ml-1m.{part}.rating", sep="\t", names=names, dtype=str).assign(
            item_id=lambda rows: rows["item_id"].map(film_of)
        )
        for part in ("train", "test")
    )
    split = make_split(train, test)
    column = {number: split.item_ids.index(film) for number, film in film_of.items()}
    negatives = {}
    for line in (folder / "ml-1m.test.negative").read_text().splitlines():
        key, *items = line.split("\t")
        negatives[key.strip("()").split(",")[0]] = [column[item_id] for item_id in items]
    return split, [
        np.unique([held_out, *negatives[user]]) for user, held_out in zip(split.user_ids, split.test, strict=True)
    ]


def evaluate_full(scores: np.ndarray, split: Split) -> dict[str, float]:
    """HR and NDCG at 10 over the whole catalogue, items of the train part masked. Overwrites scores (users, items)."""
    top = top_k_of_scores(scores.astype(np.float32, copy=False), K, (split.train.indptr, split.train.indices))
    rows, places = np.nonzero(top.positions >= 0)
    offsets = np.concatenate([[0], np.cumsum(top.counts)])
    return _means(top.positions[rows, places].astype(np.int64), offsets, split)


def evaluate_lists(lists: pd.DataFrame, split: Split) -> dict[str, float]:
    """HR and NDCG at 10 of lists from elsewhere: user_id, item_id, rank. A film that the user had is an error."""
    rows = pd.Index(split.user_ids).get_indexer(lists["user_id"])
    columns = pd.Index(split.item_ids).get_indexer(lists["item_id"])
    order = np.lexsort((lists["rank"], rows))
    rows, columns = rows[order], columns[order]
    assert (rows >= 0).all()
    assert (columns >= 0).all()
    assert not np.asarray(split.train[rows, columns]).any()
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(split.user_ids)))])
    return _means(columns, offsets, split)


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


def ease_weights(train: sparse.csr_matrix, l2: float) -> np.ndarray:
    """EASE by the package's own models/ease.py."""
    gram = np.zeros((train.shape[1],) * 2)
    add_to_gram(gram, train)
    return item_weights(gram, l2)


def ease_scores(train: sparse.csr_matrix, l2: float) -> np.ndarray:
    """Scores of all users and items."""
    return np.asarray(train @ ease_weights(train, l2))


class FactorSettings(NamedTuple):
    """Weighted ALS: minimise sum over observed of (1 - x y)^2 + unobserved_weight * sum over all of (x y)^2
    + regularization * sum over rows of (n + unobserved_weight * N) |x|^2, n the row's interactions, N the other side's size."""

    rank: int
    regularization: float
    unobserved_weight: float
    epochs: int


def ials_scores(train: sparse.csr_matrix, settings: FactorSettings, seed: int) -> np.ndarray:
    """iALS as in Rendle et al., "Revisiting the Performance of iALS on Item Recommendation Benchmarks" (RecSys 2022), nu = 1.

    Solved by the package `implicit`, whose system is (G + sum (c - 1) y y' + reg I) x = sum c y with G = sum over all y y'. With
    c = 1 + 1 / unobserved_weight and reg = regularization (n / unobserved_weight + N) that is theirs, but for a factor of
    1 + unobserved_weight in x, taken out after each step. The package has one reg for all rows, so rows go in groups of equal n.
    """
    rng = np.random.default_rng(seed)
    items = rng.normal(0, 0.1 / np.sqrt(settings.rank), (train.shape[1], settings.rank)).astype(np.float32)
    user_rows, item_rows = train.tocsr(), train.T.tocsr()
    for _ in range(settings.epochs):
        users = _solve(user_rows, items, settings)
        items = _solve(item_rows, users, settings)
    return users @ items.T


def _solve(rows: sparse.csr_matrix, fixed: np.ndarray, settings: FactorSettings) -> np.ndarray:
    from implicit.cpu.als import AlternatingLeastSquares

    solver = AlternatingLeastSquares(factors=settings.rank)
    solver.item_factors = fixed
    weight = settings.unobserved_weight
    counts = np.diff(rows.indptr)
    solved = np.zeros((rows.shape[0], settings.rank), np.float32)
    for count in np.unique(counts[counts > 0]):
        group = np.flatnonzero(counts == count)
        solver.regularization = settings.regularization * (count / weight + rows.shape[1])
        confidence = rows[group]
        confidence.data = np.full_like(confidence.data, 1 + 1 / weight)
        solved[group] = solver.recalculate_user(group, confidence) / (1 + weight)
    return solved


def als_scores(spark: SparkSession, train: sparse.csr_matrix, config: AlsConfig) -> np.ndarray:
    """Spark's implicit ALS by the package's own models/als.py; rows without a factor score 0."""
    pairs = train.tocoo()
    table = pa.table(
        {"user_idx": pairs.row.astype(np.int32), "item_idx": pairs.col.astype(np.int32), "weight": pairs.data}
    )
    factors = []
    for frame, name, size in zip(
        fit_als(spark.createDataFrame(table), config), ("user_idx", "item_idx"), train.shape, strict=True
    ):
        found = frame.toArrow()
        rows = np.zeros((size, config.rank), np.float32)
        rows[found[name].to_numpy()] = np.stack(found["vector"].to_numpy())
        factors.append(rows)
    return factors[0] @ factors[1].T


def write_events(spark: SparkSession, config: Config, train: pd.DataFrame, day: date) -> None:
    """Fill the events table with one event of the day for each pair of user_id and item_id."""
    pairs = spark.createDataFrame(train[["user_id", "item_id"]])
    fixed = {
        "event_id": F.concat_ws("-", "user_id", "item_id"), "event_type": F.lit("rating"), "timestamp": F.lit(day).cast("timestamp"),
        "attributes": F.create_map().cast("map<string,string>"), "event_date": F.lit(day), "source": F.lit("benchmark"),
        "ingest_run": F.lit("benchmark"),
    }  # fmt: skip
    empty = {name: F.lit(None) for name in EVENTS.fieldNames() if name not in {*fixed, "user_id", "item_id"}}
    tables.replace_partition(spark, config, "events", pairs.withColumns(fixed | empty), {"source": "benchmark"})
