"""The approximate index against the exact engine on 10^6 vectors of 384 numbers: recall, speed, build time, memory.

Vectors are drawn, all of length 1:

- clustered, like embeddings of texts: 2,000 topics of unequal size (the share of the r-th falls as r^-0.7) around centres drawn at
  random, a common direction that all share (the mean cosine of two vectors is about 0.15), and inside a topic 16 directions of its
  own kind (64 kinds) plus a little noise in all 384. A user is the mean of six items of two topics.
- hard: every number of items and users drawn on its own. All items are about as far from each other (cosine of a user's best is
  0.26), so no cell is better than another and nothing but looking at most of them finds the best.

Both engines run with one thread, as in a Spark worker, on the same users; k = 10, overfetch and cells as the config's defaults. Exact is
models/top_k.py. Every probes is one row; `floor` is the row that recommend.index: approximate would run with (the first that reaches
recall .95), or null: then the job stops and exact has to be used.

Writes benchmarks/results/ann.json; cases that are not run keep their figures.
Usage: .venv/bin/python benchmarks/bench_ann.py [--cases clustered hard] [--items 1000000] [--users 512] [--kinds ivf hnsw]
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np
from measure import hardware, versions
from threadpoolctl import threadpool_limits

from recsys_spark.config_approximate import ApproximateConfig
from recsys_spark.models.approximate import build_index, measure_recall, open_index, top_k_approximate, write_index
from recsys_spark.models.selection import TopK
from recsys_spark.models.top_k import top_k_dot_product

RESULTS = Path(__file__).parent / "results" / "ann.json"
DIMENSIONS, K, SEED = 384, 10, 1
TOPICS, KINDS, INNER = 2000, 64, 16
PROBES = (4, 8, 16, 32, 64, 128, 256)
HNSW_LINKS, HNSW_BUILD, HNSW_SEARCH = 32, 100, (16, 32, 64, 128, 256, 512)
FLOOR = ApproximateConfig().min_recall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", nargs="+", choices=("clustered", "hard"), default=("clustered", "hard"))
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=512)
    parser.add_argument("--kinds", nargs="+", choices=("ivf", "hnsw"), default=("ivf",))
    options = parser.parse_args()
    for case in options.cases:
        items, users = {"clustered": clustered, "hard": hard}[case](options.items, options.users)
        with threadpool_limits(1):
            seconds, exact = _timed(top_k_dot_product, users, items, K)
        measured = {
            "items": len(items), "users": len(users), "dimensions": DIMENSIONS, "k": K, "seed": SEED,
            "mean_cosine_of_items": round(float((items[:2000] @ items[-2000:].T).mean()), 3),
            "mean_cosine_of_places_1_and_10": [round(float(exact.scores[:, place].mean()), 3) for place in (0, 9)],
            "exact_ms_per_user": round(1000 * seconds / len(users), 3),
        }  # fmt: skip
        for kind in options.kinds:
            rows = {"ivf": ivf, "hnsw": hnsw}[kind](items, users, exact, seconds)
            measured[kind] = rows
            print(case, json.dumps(measured), flush=True)
            _store(f"{case}_{options.items}", measured)


def clustered(num_items: int, num_users: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(SEED)
    share = np.arange(1, TOPICS + 1) ** -0.7
    topics = rng.choice(TOPICS, num_items, p=share / share.sum())
    scale = DIMENSIONS**-0.5
    centres = rng.normal(0, scale, (TOPICS, DIMENSIONS)).astype(np.float32)
    common = rng.normal(0, scale / 2, DIMENSIONS).astype(np.float32)
    kinds = rng.normal(0, scale * INNER**-0.5, (KINDS, INNER, DIMENSIONS)).astype(np.float32)
    items = np.empty((num_items, DIMENSIONS), np.float32)
    for start in range(0, num_items, 50_000):
        topic = topics[start : start + 50_000]
        block = common + centres[topic] + rng.normal(0, 0.4 * scale, (len(topic), DIMENSIONS)).astype(np.float32)
        inner = rng.normal(0, 0.8, (len(topic), INNER)).astype(np.float32)
        for kind in range(KINDS):
            own = np.flatnonzero(topic % KINDS == kind)
            block[own] += inner[own] @ kinds[kind]
        items[start : start + 50_000] = _unit(block)
    by_topic = np.argsort(topics, kind="stable")
    first, size = np.searchsorted(topics[by_topic], np.arange(TOPICS)), np.bincount(topics, minlength=TOPICS)
    liked = topics[rng.integers(0, num_items, (num_users, 2))]  # topics as often as they have items
    places = first[liked][..., None] + rng.integers(0, 2**31, (num_users, 2, 3)) % size[liked][..., None]
    return items, _unit(items[by_topic[places]].mean(axis=(1, 2)))


def hard(num_items: int, num_users: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(SEED)
    items, users = (rng.standard_normal((n, DIMENSIONS), dtype=np.float32) for n in (num_items, num_users))
    return _unit(items), _unit(users)


def ivf(items: np.ndarray, users: np.ndarray, exact: TopK, exact_seconds: float) -> dict[str, object]:
    """The product's own index, written to a file and opened as a worker does."""
    config = ApproximateConfig()
    before = _peak_memory_gb()
    start = time.perf_counter()
    index = build_index(items, np.zeros(len(items), dtype=bool), config)
    built = time.perf_counter() - start
    peak = _peak_memory_gb()
    with tempfile.TemporaryDirectory(prefix="bench_ann_") as folder:
        path = Path(folder) / "index"
        write_index(index, path)
        size, cells = path.stat().st_size, index.nlist
        del index
        opened, rows = open_index(str(path)), []
        with threadpool_limits(1):
            for probes in PROBES:
                opened.nprobe = probes
                top_k_approximate(opened, users[:32], items, K, config.overfetch)  # the file's pages come into memory
                seconds, (lists, is_exact) = _timed(top_k_approximate, opened, users, items, K, config.overfetch)
                found = measure_recall(lists, is_exact, exact)
                rows.append(_row("probes", probes, found.recall, seconds, exact_seconds, len(users)))
    return {
        "cells": cells, "build_seconds": round(built, 1), "build_threads": faiss.omp_get_max_threads(), "file_gb": round(size / 1e9, 2),
        "peak_memory_gb_before_and_after_build": [before, peak], "searches": rows, "floor": _floor(rows),
    }  # fmt: skip


def hnsw(items: np.ndarray, users: np.ndarray, exact: TopK, exact_seconds: float) -> dict[str, object]:
    """The alternative (graph of near items), to be compared with; the product has none."""
    before = _peak_memory_gb()
    index = faiss.IndexHNSWFlat(DIMENSIONS, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = HNSW_BUILD
    built, _ = _timed(index.add, items)
    rows = []
    with threadpool_limits(1):
        for width in HNSW_SEARCH:
            index.hnsw.efSearch = width
            index.search(users[:32], K)
            seconds, (scores, positions) = _timed(index.search, users, K)
            lists = TopK(positions.astype(np.int32), scores, np.full(len(users), K))
            found = measure_recall(lists, np.zeros(len(users), dtype=bool), exact)
            rows.append(_row("ef_search", width, found.recall, seconds, exact_seconds, len(users)))
    return {
        "links": HNSW_LINKS, "ef_construction": HNSW_BUILD, "build_seconds": round(built, 1), "searches": rows,
        "peak_memory_gb_before_and_after_build": [before, _peak_memory_gb()], "floor": _floor(rows),
    }  # fmt: skip


def _row(
    knob: str, value: int, recall: float, seconds: float, exact_seconds: float, num_users: int
) -> dict[str, float]:
    return {
        knob: value,
        "recall_at_10": round(recall, 4),
        "ms_per_user": round(1000 * seconds / num_users, 3),
        "times_faster_than_exact": round(exact_seconds / seconds, 1),
    }


def _floor(rows: list[dict[str, float]]) -> dict[str, float] | None:
    return next((row for row in rows if row["recall_at_10"] >= FLOOR), None)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _timed(run, *arguments):
    start = time.perf_counter()
    found = run(*arguments)
    return time.perf_counter() - start, found


def _peak_memory_gb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)


def _store(name: str, measured: dict[str, object]) -> None:
    report = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    about = {"hardware": hardware(), "versions": versions("faiss-cpu", "numpy")}  # cases may be of several machines
    RESULTS.parent.mkdir(exist_ok=True)
    found = {"floor": FLOOR, "threads_of_searches": 1, name: {**report.get(name, {}), **about, **measured}}
    RESULTS.write_text(json.dumps({**report, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
