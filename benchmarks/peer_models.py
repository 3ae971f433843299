"""One model of one library, in a process of its own: train, make lists of 10 unseen items for every user, write them.

bench_peers.py starts it, for RecTools and LensKit with the interpreter of their own environment, so it imports nothing but the
library that is asked for. Prints the seconds of training and of making lists as JSON.

Usage: python peer_models.py LIBRARY MODEL TRAIN.parquet LISTS.parquet SETTINGS_AS_JSON
train: user_id, item_id (text); lists: user_id, item_id, rank.
"""

import json
import sys
import time

import pandas as pd

K = 10


def main() -> None:
    library, model, train, lists, settings = sys.argv[1:]
    run = {
        "rectools": rectools, "lenskit": lenskit, "core": core, "core transposed": core, "spark": spark, "spark+implicit": spark,
    }[library]  # fmt: skip
    print(json.dumps(run(model, pd.read_parquet(train), lists, json.loads(settings))))


class Clock:
    """Seconds since the last look."""

    def __init__(self) -> None:
        self.last = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        seconds, self.last = now - self.last, now
        return round(seconds, 2)


def rectools(model: str, train: pd.DataFrame, lists: str, settings: dict) -> dict[str, float]:
    from implicit.als import AlternatingLeastSquares
    from implicit.nearest_neighbours import CosineRecommender
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import EASEModel, ImplicitALSWrapperModel, ImplicitItemKNNWrapperModel

    clock = Clock()
    rows = train.assign(weight=1.0, datetime=pd.Timestamp(0))
    dataset = Dataset.construct(rows.rename(columns={"user_id": Columns.User, "item_id": Columns.Item}))
    if model == "ease":
        recommender = EASEModel(regularization=settings["l2"])
    elif model == "neighbours":  # their K counts the item itself
        recommender = ImplicitItemKNNWrapperModel(CosineRecommender(K=settings["num_neighbours"] + 1))
    else:
        recommender = ImplicitALSWrapperModel(
            AlternatingLeastSquares(
                factors=settings["rank"], iterations=settings["iterations"], regularization=settings["regularization"],
                alpha=1 + settings["alpha"], random_state=settings["seed"],
            )
        )  # fmt: skip
    recommender.fit(dataset)
    fit = clock.lap()
    users = train["user_id"].unique()
    recommender.recommend(users, dataset, K, filter_viewed=True)[["user_id", "item_id", "rank"]].to_parquet(lists)
    return {"fit": fit, "recommend": clock.lap()}


def lenskit(model: str, train: pd.DataFrame, lists: str, settings: dict) -> dict[str, float]:
    from lenskit.als import ImplicitMFScorer
    from lenskit.batch import recommend
    from lenskit.data import from_interactions_df
    from lenskit.knn import EASEScorer, ItemKNNScorer
    from lenskit.pipeline import topn_pipeline
    from lenskit.training import TrainingOptions

    clock = Clock()
    dataset = from_interactions_df(train[["user_id", "item_id"]])
    if model == "ease":
        scorer = EASEScorer(regularization=settings["l2"])
    elif model == "neighbours":
        many = settings["num_neighbours"]
        scorer = ItemKNNScorer(feedback="implicit", save_nbrs=many, max_nbrs=len(dataset.items))
    else:
        scorer = ImplicitMFScorer(
            embedding_size=settings["rank"], epochs=settings["iterations"], regularization=settings["regularization"],
            weight=settings["alpha"],
        )  # fmt: skip
    pipeline = topn_pipeline(scorer, n=K)
    pipeline.train(dataset, TrainingOptions(rng=settings["seed"]))
    fit = clock.lap()
    found = recommend(pipeline, list(train["user_id"].unique()), K, n_jobs=2).to_df()
    found[["user_id", "item_id", "rank"]].to_parquet(lists)
    return {"fit": fit, "recommend": clock.lap()}


def core(model: str, train: pd.DataFrame, lists: str, settings: dict) -> dict[str, float]:
    """Ours without Spark: the numeric functions that run in its workers."""
    import numpy as np
    from published import ease_weights, make_split
    from scipy import sparse

    from recsys_spark.models.neighbours import Pairs, Similarity, nearest_rows
    from recsys_spark.models.top_k import top_k_linear, top_k_sparse

    clock = Clock()
    split = make_split(train, train[:0])
    user_items, item_ids = split.train, np.array(split.item_ids, dtype=object)
    seen = (user_items.indptr, user_items.indices)
    if model == "ease":
        weights = ease_weights(user_items, settings["l2"])
        if settings.get("transposed"):
            weights = np.ascontiguousarray(weights.T)
        fit = clock.lap()
        top = top_k_linear(user_items, weights, K, seen)
    else:
        entries = user_items.tocoo()
        pairs = Pairs(entries.col, entries.row, entries.data)
        cosine = Similarity("cosine", settings["shrink"])
        found = nearest_rows(pairs, [pairs], settings["num_neighbours"], cosine, 256 * 2**20)
        shape = (len(item_ids),) * 2
        matrix = sparse.csr_matrix((found.similarities.astype(np.float64), (found.rows, found.neighbours)), shape=shape)
        fit = clock.lap()
        top = top_k_sparse(user_items.astype(np.float64), matrix, K, seen)
    rows, ranks = np.nonzero(top.positions >= 0)
    found = {"user_id": split.user_ids[rows], "item_id": item_ids[top.positions[rows, ranks]], "rank": ranks + 1}
    pd.DataFrame(found).to_parquet(lists)
    return {"fit": fit, "recommend": clock.lap()}


def spark(model: str, train: pd.DataFrame, lists: str, settings: dict) -> dict[str, float]:
    """Ours as the product runs it: the jobs' pipelines on Delta tables. The session's start is told apart."""
    import tempfile
    from datetime import date
    from pathlib import Path

    from published import write_events

    from recsys_spark.config import Config
    from recsys_spark.infra import tables
    from recsys_spark.infra.session import build_session
    from recsys_spark.pipelines.build_interactions import build_interactions
    from recsys_spark.pipelines.recommend import recommend
    from recsys_spark.pipelines.train_als import train_als
    from recsys_spark.pipelines.train_ease import train_ease
    from recsys_spark.pipelines.train_neighbours import train_neighbours
    from recsys_spark.pipelines.train_popular import train_popular

    clock, cutoff = Clock(), date(2024, 1, 2)
    with tempfile.TemporaryDirectory(prefix="bench_peers_") as root:
        config = Config.model_validate({
            "data_root": root, "recommend": {"k": K, "models": [model], "tasks": ["discovery"]}, "evaluation": {"k": [K]},
            "spark": {"master": "local[*]", "shuffle_partitions": 4, "conf": {"spark.ui.enabled": "false"}},
            **_sections(model, settings),
        })  # fmt: skip
        session = build_session(config)
        start = clock.lap()
        write_events(session, config, train, date(2024, 1, 1))
        write = clock.lap()
        build_interactions(session, config, cutoff)
        train_popular(session, config, cutoff)  # the fallback
        prepare = clock.lap()
        {"als": train_als, "ease": train_ease, "neighbours": train_neighbours}[model](session, config, cutoff)
        fit = clock.lap()
        recommend(session, config, cutoff)
        seconds = clock.lap()
        found = tables.read_table(session, config, "recommendations", made_by="recommend")
        found.select("user_id", "item_id", "rank").toPandas().to_parquet(Path(lists))
        session.stop()
    return {
        "fit": fit,
        "recommend": seconds,
        "start_spark": start,
        "write_events": write,
        "build_interactions": prepare,
    }


def _sections(model: str, settings: dict) -> dict[str, dict]:
    if model == "als":
        return {"als": {
            "rank": settings["rank"], "max_iter": settings["iterations"], "alpha": settings["alpha"], "weight_scale": "one",
            "reg_param": settings["regularization"], "seed": settings["seed"], "engine": settings["engine"],
        }}  # fmt: skip
    if model == "ease":
        return {"ease": {"regularization": settings["l2"], "weight_scale": "one"}}
    return {"neighbours": {"num_neighbours": settings["num_neighbours"], "shrink": settings["shrink"]}}


if __name__ == "__main__":
    main()
