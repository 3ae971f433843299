"""Speed of the metrics on one core, beside a straightforward pandas implementation and, where it is installed, ranx.

Writes benchmarks/results/metrics.json. Usage: .venv/bin/python benchmarks/bench_metrics.py [--users 1000000]

Lists of 20 items from a catalogue of 50,000, truths of 1 to 8 items; some list items are hits. "metrics" are the ten that
a user has without categories of a past: hr, recall, recall_min, precision, f1, ndcg, map, mrr, novelty and diversity, in
blocks of 10,000 users as Spark hands them to a worker. "block" is the whole of what a worker does with an Arrow batch of
strings: codes for ids, eleven metrics at k = 10 and 20, three slices, sums. The others compute hr, recall, precision, ndcg,
map and mrr only, on fewer users (pandas) or with as many threads as set (ranx: one); their numbers must agree with ours.
"significance" compares five models on one million users: grouped sums, 10,000 draws of each test.
"""

import argparse
import json
import os
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from measure import hardware, versions

from recsys_spark.evaluation import metrics
from recsys_spark.evaluation.blocks import block_sums
from recsys_spark.evaluation.significance import NUM_GROUPS, compare_models

RESULTS = Path(__file__).parent / "results" / "metrics.json"
K, CATALOGUE, NUM_CATEGORIES, BLOCK = 20, 50_000, 30, 10_000
COMPARED = ("hr", "recall", "precision", "ndcg", "map", "mrr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--users", type=int, default=1_000_000)
    num_users = parser.parse_args().users
    os.sched_setaffinity(0, {0})  # one core, whatever the libraries start
    rng = np.random.default_rng(0)
    lists, truth, truth_offsets = make_lists(rng, num_users)
    item_users, category = rng.integers(1, 1000, CATALOGUE), rng.integers(0, NUM_CATEGORIES, CATALOGUE)
    ours, seconds = best_of(3, lambda: our_metrics(lists, truth, truth_offsets, item_users, category))
    alternatives = {"pandas": time_pandas(lists, truth, truth_offsets, ours, min(num_users, 100_000))}
    if find_spec("ranx"):
        alternatives["ranx"] = time_ranx(lists, truth, truth_offsets, ours, min(num_users, 100_000))
    report = {
        "hardware": hardware(),
        "versions": versions("numpy", "pandas", "pyarrow", *(["ranx"] if find_spec("ranx") else [])),
        "cores_used": 1,
        "users": num_users,
        "k": K,
        "metrics": {"seconds": round(seconds, 2), "users_per_second": round(num_users / seconds)},
        "block": time_block(rng),
        "alternatives": {
            name: found | {"ours_times_faster": round(num_users / seconds / found["users_per_second"], 1)}
            for name, found in alternatives.items()
        },
        "significance": time_significance(rng, num_users),
    }
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


def make_lists(rng: np.random.Generator, num_users: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lists (users, 20) without repeats in a list, and ragged truths; item j of both comes from the j-th part of the catalogue."""
    width = CATALOGUE // K
    lists = np.arange(K) * width + rng.integers(0, width, (num_users, K))
    lists = np.take_along_axis(lists, rng.permuted(np.tile(np.arange(K), (num_users, 1)), axis=1), axis=1)
    lengths = rng.integers(1, 9, num_users)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rows = np.repeat(np.arange(num_users), lengths)
    places = np.arange(len(rows)) - offsets[rows]
    is_hit = rng.random(len(rows)) < 0.3
    return lists, np.where(is_hit, lists[rows, places], CATALOGUE + places), offsets


def best_of(times, run):
    """The result and the seconds of the fastest of several runs."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
    return result, min(seconds)


def our_metrics(lists, truth, truth_offsets, item_users, category):
    parts = []
    for start in range(0, len(lists), BLOCK):
        end = min(len(lists), start + BLOCK)
        items, offsets = lists[start:end].ravel(), np.arange(end - start + 1) * K
        own = truth[truth_offsets[start] : truth_offsets[end]]
        values = metrics.ranking_metrics(items, offsets, own, truth_offsets[start : end + 1] - truth_offsets[start], K)
        values["novelty"] = metrics.novelty_per_list(items, offsets, item_users, 1000, K)
        values["diversity"] = metrics.intra_list_diversity(category[items], offsets, K)
        parts.append(values)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def time_pandas(lists, truth, truth_offsets, ours, num_users):
    """One join of two long tables and aggregates by user, as most people write it first."""
    listed = pd.DataFrame({
        "user": np.repeat(np.arange(num_users), K), "item": lists[:num_users].ravel(), "rank": np.tile(np.arange(1, K + 1), num_users),
    })  # fmt: skip
    lengths = np.diff(truth_offsets[: num_users + 1])
    wanted = pd.DataFrame({"user": np.repeat(np.arange(num_users), lengths), "item": truth[: truth_offsets[num_users]]})

    def run():
        sizes = wanted.groupby("user").size()
        hits = listed.merge(wanted, on=["user", "item"]).sort_values(["user", "rank"])
        hits["gain"] = 1 / np.log2(hits["rank"] + 1)
        hits["precision"] = (hits.groupby("user").cumcount() + 1) / hits["rank"]
        by_user = hits.groupby("user").agg(
            hits=("item", "size"), gain=("gain", "sum"), precision=("precision", "sum"), first=("rank", "min")
        )
        by_user = by_user.reindex(sizes.index, fill_value=0)
        reachable = sizes.clip(upper=K)
        ideal = np.cumsum(1 / np.log2(np.arange(2, K + 2)))[reachable - 1]
        return {
            "hr": (by_user["hits"] > 0).mean(), "recall": (by_user["hits"] / sizes).mean(), "precision": by_user["hits"].mean() / K,
            "ndcg": (by_user["gain"] / ideal).mean(), "map": (by_user["precision"] / reachable).mean(),
            "mrr": (1 / by_user["first"].where(by_user["hits"] > 0)).fillna(0).mean(),
        }  # fmt: skip

    found, seconds = best_of(3, run)
    check_equal(found, ours, num_users)
    return {"users": num_users, "users_per_second": round(num_users / seconds)}


def time_ranx(lists, truth, truth_offsets, ours, num_users):
    """Building ranx's tables from dictionaries is not counted, nor is compiling."""
    from ranx import Qrels, Run, evaluate

    users = [str(user) for user in range(num_users)]
    qrels = Qrels({
        user: dict.fromkeys(map(str, truth[truth_offsets[row] : truth_offsets[row + 1]]), 1) for row, user in enumerate(users)
    })  # fmt: skip
    run = Run({user: {str(item): K - rank for rank, item in enumerate(lists[row])} for row, user in enumerate(users)})
    names = {"hit_rate": "hr", "recall": "recall", "precision": "precision", "ndcg": "ndcg", "mrr": "mrr"}
    found, seconds = best_of(3, lambda: evaluate(qrels, run, [f"{name}@{K}" for name in names]))
    check_equal({ours: found[f"{theirs}@{K}"] for theirs, ours in names.items()}, ours, num_users)
    return {"users": num_users, "users_per_second": round(num_users / seconds), "metrics": list(names)}


def check_equal(found, ours, num_users):
    for name, value in found.items():
        assert np.isclose(value, ours[name][:num_users].mean(), atol=1e-9), (name, value, ours[name][:num_users].mean())


def time_block(rng):
    """One Arrow batch as Spark makes it."""
    lists, truth, truth_offsets = make_lists(rng, BLOCK)

    def column(lengths, values):
        return pa.ListArray.from_arrays(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), pa.array(values))

    twenty, categories = np.full(BLOCK, K), rng.integers(1, 20, BLOCK)
    batch = pa.RecordBatch.from_pydict({
        "task": pa.array(["next"] * BLOCK), "model": pa.array(rng.choice(["als", "popular"], BLOCK)),
        "user_id": pa.array([f"user{row}" for row in range(BLOCK)]),
        "slices": column(np.full(BLOCK, 3), ["all", "warm_users", "heavy_users"] * BLOCK),
        "truth": column(np.diff(truth_offsets), truth.astype(str)), "items": column(twenty, lists.ravel().astype(str)),
        "item_users": column(twenty, rng.integers(0, 900, BLOCK * K)),
        "category": column(twenty, rng.integers(0, NUM_CATEGORIES, BLOCK * K).astype(str)),
        "past_categories": column(categories, np.concatenate([np.arange(n) for n in categories]).astype(str)),
        "past_counts": column(categories, rng.integers(1, 9, categories.sum())),
        "user_group": pa.array(rng.integers(0, NUM_GROUPS, BLOCK)),
    })  # fmt: skip
    _, seconds = best_of(5, lambda: block_sums(batch, (10, 20), 1000))
    return {"users": BLOCK, "users_per_second": round(BLOCK / seconds)}


def time_significance(rng, num_users):
    values = rng.choice([0, 0, 0, 0.39, 0.63, 1], size=(num_users, 5))
    groups = rng.integers(0, NUM_GROUPS, num_users)

    def run():
        totals = np.stack([np.bincount(groups, weights=column, minlength=NUM_GROUPS) for column in values.T], axis=1)
        sizes = np.bincount(groups, minlength=NUM_GROUPS)
        there = sizes > 0
        return compare_models(totals[there], sizes[there], list("abcde"), num_resamples=10_000)

    _, seconds = best_of(1, run)
    return {"users": num_users, "models": 5, "pairs": 10, "draws": 10_000, "seconds": round(seconds, 2)}


if __name__ == "__main__":
    main()
