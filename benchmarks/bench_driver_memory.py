"""What training on the driver takes beside what it is estimated to take before anything is collected.

EASE, ALS by `implicit` and feature_factors refuse, or ask for a higher limit, by an estimate of their memory (models/*.py). Here
each trains on drawn interactions in a process of its own; measured is what the process's peak grew by from before the
interactions were drawn. One iteration: memory does not depend on their number. Writes benchmarks/results/driver_memory.json.
Usage: .venv/bin/python benchmarks/bench_driver_memory.py [--models ease als feature_factors]
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from measure import hardware, versions
from scipy import sparse

from recsys_spark.config import AlsConfig
from recsys_spark.config_feature_factors import FeatureFactorsConfig
from recsys_spark.models import als_implicit, ease, feature_factors
from recsys_spark.models.feature_matrix import build_side

RESULTS = Path(__file__).parent / "results" / "driver_memory.json"
# interactions, users, items
SIZES = {
    "ease": [(2_000_000, 50_000, 5_000), (2_000_000, 50_000, 10_000), (2_000_000, 50_000, 20_000)],
    "als": [(2_000_000, 50_000, 10_000), (10_000_000, 200_000, 20_000)],
    "feature_factors": [(2_000_000, 50_000, 10_000), (10_000_000, 200_000, 20_000)],
}
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--one", nargs=4, metavar=("MODEL", "INTERACTIONS", "USERS", "ITEMS"), help="only this, here")
    options = parser.parse_args()
    if options.one:
        model, *sizes = options.one
        print(json.dumps(measure(model, *map(int, sizes))))
        return
    report = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    report |= {"hardware": hardware(), "versions": versions("numpy", "scipy", "implicit")}
    for model in options.models:
        report[model] = []
        for sizes in SIZES[model]:
            command = [sys.executable, __file__, "--one", model, *map(str, sizes)]
            found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            report[model].append(json.loads(found.stdout))
            print(model, report[model][-1], flush=True)
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(report, indent=1) + "\n")


def measure(model: str, num_interactions: int, num_users: int, num_items: int) -> dict[str, float]:
    run = {"ease": train_ease, "als": train_als, "feature_factors": train_feature_factors}[model]
    before = peak_bytes()
    users, items = draw_pairs(num_interactions, num_users, num_items)
    start = time.perf_counter()
    estimated = run(users, items, num_users, num_items)
    return {
        "interactions": len(users), "users": num_users, "items": num_items, "seconds": round(time.perf_counter() - start, 1),
        "estimated_gb": round(estimated / 1e9, 2), "measured_gb": round((peak_bytes() - before) / 1e9, 2),
    }  # fmt: skip


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def draw_pairs(num_interactions: int, num_users: int, num_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct pairs, items by a long tail; int32, as they come from Spark. A few less than asked for."""
    rng = np.random.default_rng(SEED)
    items = np.minimum(rng.pareto(1.0, num_interactions) * num_items / 100, num_items - 1).astype(np.int64)
    keys = np.unique(rng.integers(num_users, size=num_interactions) * num_items + items)
    users, items = np.divmod(keys, num_items)
    return users.astype(np.int32), items.astype(np.int32)


def train_ease(users: np.ndarray, items: np.ndarray, num_users: int, num_items: int) -> int:
    gram = np.zeros((num_items, num_items))
    ease.add_to_gram(gram, sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)), (num_users, num_items)))
    ease.item_weights(gram, 400.0)
    return ease.driver_bytes(num_items)


def train_als(users: np.ndarray, items: np.ndarray, num_users: int, num_items: int) -> int:
    config = AlsConfig(engine="implicit", rank=64, max_iter=1)
    als_implicit.fit_implicit(users, items, np.ones(len(users), np.float32), config)
    return als_implicit.needed_bytes(len(users), num_users + num_items, config.rank)


def train_feature_factors(users: np.ndarray, items: np.ndarray, num_users: int, num_items: int) -> int:
    config = FeatureFactorsConfig(epochs=1)
    nothing = pa.chunked_array([[]], pa.string())
    sides = [
        build_side(pa.chunked_array([pa.array(ids).cast(pa.string())]), nothing, nothing, True)
        for ids in (users, items)
    ]
    feature_factors.fit_feature_factors(*sides, np.ones(len(users), np.float32), config)
    return feature_factors.needed_bytes(len(users), num_users + num_items, config)


if __name__ == "__main__":
    main()
