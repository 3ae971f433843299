"""MovieLens, each user's last film ranked among all: EASE on 1M and implicit ALS on 100K against the published numbers.

Full ranking, films of the train part left out, films with fewer than 5 ratings left out on 1M (5 and more are what the
published figures keep). Of a user's equal timestamps the last in the file is held out; EASE runs with other orders of them, too,
because the published figures do not say theirs and it decides what is held out. Nothing is tuned here: every setting comes with
the published number. ALS draws the start of its factors, so it runs with three seeds.

Writes benchmarks/results/full_ranking.json; data sets that are not given keep their figures.
Usage: .venv/bin/python benchmarks/bench_full_ranking.py [--ml-1m FOLDER] [--ml-100k FOLDER] [--seeds 1 2 3]
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from measure import hardware, versions
from published import (
    TIE_ORDER,
    Split,
    als_scores,
    ease_scores,
    evaluate_full,
    leave_last_out,
    popularity_scores,
    read_ratings,
)

from recsys_spark.config import AlsConfig, Config
from recsys_spark.infra.session import build_session

RESULTS = Path(__file__).parent / "results" / "full_ranking.json"
EASE_L2 = 400
ALS = AlsConfig(rank=64, reg_param=0.1, alpha=1.0, weight_scale="one")
PUBLISHED = {
    "ml-1m": {"model": "ease", "hr": 0.1091, "ndcg": 0.0541},
    "ml-100k": {"model": "als", "hr": 0.1569, "ndcg": 0.0826},
}
MIN_ITEM_RATINGS = {"ml-1m": 5, "ml-100k": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ml-1m", type=Path)
    parser.add_argument("--ml-100k", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    folders = {"ml-1m": options.ml_1m, "ml-100k": options.ml_100k}
    if not any(folders.values()):
        parser.error("give --ml-1m or --ml-100k, the publisher's folder")
    report = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    report |= {
        "hardware": hardware(), "versions": versions("pyspark", "numpy", "scipy"), "tie_order": TIE_ORDER,
        "protocol": "each user's last film held out, full ranking, films of the train part left out: hr_at_10, ndcg_at_10",
        "tuned_on": "nothing: the published settings",
    }  # fmt: skip
    for name, folder in folders.items():
        if folder is not None:
            report[name] = measure(name, folder, options.seeds)
            print(name, json.dumps(report[name]), flush=True)
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(report, indent=1) + "\n")


def measure(name: str, folder: Path, seeds: list[int]) -> dict[str, object]:
    ratings = read_ratings(folder)
    split = leave_last_out(ratings, MIN_ITEM_RATINGS[name])
    published, others = PUBLISHED[name], {}
    if published["model"] == "ease":
        settings, runs = f"l2 = {EASE_L2}", [_ease_run(split)]
        orders = {
            "last in the file first": ratings.iloc[::-1],
            "by item id": ratings.sort_values("item_id", key=pd.to_numeric),
        }
        others = {order: _ease_run(leave_last_out(rows, MIN_ITEM_RATINGS[name])) for order, rows in orders.items()}
    else:
        settings, runs = f"models/als.py: {ALS.model_dump(exclude={'seed'})}", _als_runs(split, seeds)
    means = {metric: statistics.mean(run[metric] for run in runs) for metric in ("hr", "ndcg")}
    return {
        "users": len(split.user_ids), "items": len(split.item_ids), "train_rows": int(split.train.nnz),
        "min_item_ratings": MIN_ITEM_RATINGS[name], "model": published["model"], "settings": settings,
        "hr_at_10": round(means["hr"], 5), "ndcg_at_10": round(means["ndcg"], 5), "published": published,
        "distance": {metric: round(value - published[metric], 5) for metric, value in means.items()},
        "popularity": _run(lambda _: popularity_scores(split.train), split), "runs": runs,
        "other_orders_of_equal_timestamps": others,
    }  # fmt: skip


def _ease_run(split: Split) -> dict[str, float]:
    return _run(lambda _: ease_scores(split.train, EASE_L2), split)


def _als_runs(split: Split, seeds: list[int]) -> list[dict[str, float]]:
    root = Path(tempfile.mkdtemp(prefix="bench_full_ranking_"))
    settings = {"master": "local[*]", "shuffle_partitions": 4, "conf": {"spark.ui.enabled": "false"}}
    try:
        spark = build_session(Config.model_validate({"data_root": str(root), "spark": settings}))
        runs = [
            _run(lambda seed: als_scores(spark, split.train, ALS.model_copy(update={"seed": seed})), split, seed)
            for seed in seeds
        ]
        spark.stop()
    finally:
        shutil.rmtree(root)
    return runs


def _run(scores_of: Callable[[int], np.ndarray], split: Split, seed: int = 0) -> dict[str, float]:
    start = time.perf_counter()
    scores = scores_of(seed)
    seconds = time.perf_counter() - start
    return {"seed": seed, **evaluate_full(scores, split), "seconds": round(seconds, 1)}


if __name__ == "__main__":
    main()
