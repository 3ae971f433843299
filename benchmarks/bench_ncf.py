"""The NCF split of MovieLens 1M: popularity, EASE, Spark's ALS and iALS against the published numbers.

Protocol of He et al., "Neural Collaborative Filtering" (WWW 2017): each user's last film is ranked among itself and 99 fixed
negatives; named hr_at_10_s99 and ndcg_at_10_s99, because it cannot be compared with a full ranking. In the authors' file 156
of the 597,960 negatives are the held-out film itself: candidates are sets, so such a user has 98 negatives. Nothing is tuned
here: every setting comes with the published number. The start of the factors is drawn, so models with factors run with three
seeds.

Writes benchmarks/results/ncf.json; models that are not run keep their figures.
Usage: .venv/bin/python benchmarks/bench_ncf.py --data FOLDER_OF_NCF_ML_1M [--models popular ease als ials] [--seeds 1 2 3]
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import hardware, versions
from published import (
    TIE_ORDER,
    FactorSettings,
    Split,
    als_scores,
    ease_scores,
    evaluate_candidates,
    ials_scores,
    popularity_scores,
    read_ncf,
)

from recsys_spark.config import AlsConfig, Config
from recsys_spark.infra.session import build_session

RESULTS = Path(__file__).parent / "results" / "ncf.json"
ALS = AlsConfig(rank=64, reg_param=0.1, alpha=3.0, max_iter=12, weight_scale="one")
IALS = FactorSettings(rank=192, regularization=0.007, unobserved_weight=0.3, epochs=12)
EASE_L2 = 1320
PUBLISHED = {
    "popular": {"hr": 0.4533, "ndcg": 0.2542, "within": 0.00005},
    "ease": {"hr": 0.7192, "ndcg": 0.4494, "within": 0.00005},
    "als": {"hr": 0.7194, "ndcg": 0.4463, "within": 0.003},
    "ials": {"hr": 0.7313, "ndcg": 0.4531, "within": 0.003},
}
SETTINGS = {
    "popular": "users per film in the train part",
    "ease": f"l2 = {EASE_L2}",
    "als": f"Spark MLlib through models/als.py: {ALS.model_dump(exclude={'seed'})}",
    "ials": f"solver of the package implicit, frequency-scaled regularization (nu = 1): {IALS._asdict()}",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", nargs="+", choices=PUBLISHED, default=list(PUBLISHED))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    split, candidates = read_ncf(options.data)
    report = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    report |= {
        "hardware": hardware(), "versions": versions("pyspark", "implicit", "numpy", "scipy"),
        "protocol": "leave-one-out, 99 fixed negatives: hr_at_10_s99, ndcg_at_10_s99", "tie_order": TIE_ORDER,
        "tuned_on": "nothing: the published settings",
        "users": len(split.test), "items": len(split.item_ids), "train_rows": int(split.train.nnz),
        "negatives_that_are_the_test_item": sum(100 - len(columns) for columns in candidates),
    }  # fmt: skip
    for model in options.models:
        runs = [_run(model, split, candidates, seed) for seed in _seeds_of(model, options.seeds)]
        report[model] = _summary(model, runs)
        print(model, json.dumps(report[model]), flush=True)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(report, indent=1) + "\n")


def _seeds_of(model: str, seeds: list[int]) -> list[int]:
    return seeds if model in ("als", "ials") else seeds[:1]


def _run(model: str, split: Split, candidates: list[np.ndarray], seed: int) -> dict[str, float]:
    start = time.perf_counter()
    scores = {
        "popular": lambda: popularity_scores(split.train),
        "ease": lambda: ease_scores(split.train, EASE_L2),
        "als": lambda: _sparks_als(split, seed),
        "ials": lambda: ials_scores(split.train, IALS, seed),
    }[model]()
    seconds = time.perf_counter() - start
    return {"seed": seed, **evaluate_candidates(scores, split, candidates), "seconds": round(seconds, 1)}


def _sparks_als(split: Split, seed: int) -> np.ndarray:
    root = Path(tempfile.mkdtemp(prefix="bench_ncf_"))
    settings = {"master": "local[*]", "shuffle_partitions": 4, "conf": {"spark.ui.enabled": "false"}}
    try:
        spark = build_session(Config.model_validate({"data_root": str(root), "spark": settings}))
        return als_scores(spark, split.train, ALS.model_copy(update={"seed": seed}))
    finally:
        shutil.rmtree(root)


def _summary(model: str, runs: list[dict[str, float]]) -> dict[str, object]:
    means = {metric: statistics.mean(run[metric] for run in runs) for metric in ("hr", "ndcg")}
    published = PUBLISHED[model]
    distance = {metric: round(value - published[metric], 5) for metric, value in means.items()}
    # better than published by more than the margin is as wrong as worse: then the protocol is another one
    met = all(abs(round(value, 4) - published[metric]) <= published["within"] for metric, value in means.items())
    return {
        "settings": SETTINGS[model],
        "hr_at_10_s99": round(means["hr"], 5),
        "ndcg_at_10_s99": round(means["ndcg"], 5),
        "published": published,
        "distance": distance,
        "met": met,
        "runs": runs,
    }


if __name__ == "__main__":
    main()
