"""The top-K engine: against Spark's own on MovieLens 1M, against plain numpy inside a worker, and at 10^5 x 10^5.

- ml1m: lists of 100 unseen films for all users from the factors of one ALS model (rank 64), until the Parquet files are
  written. `ALSModel.recommendForAllUsers` knows no seen items: it is asked for 100 + the longest history, so that the answer is
  exact after an anti-join. Both in one warm session, in turns; medians. The lists are compared by the contract.
- worker: the numeric core against matmul, mask, argpartition and sort written down plainly, one thread, same matrices.
- capped: the core again, with at most so many films of one (first) genre per list.
- scale: 10^5 users x 10^5 items with random factors and 50 seen items each, through Spark, and the peak memory of all processes.

Writes benchmarks/results/top_k.json; parts that are not run keep their figures.
Usage: .venv/bin/python benchmarks/bench_top_k.py --data FOLDER_OF_ML_1M [--parts ml1m worker capped scale] [--runs 5]
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
import pyarrow as pa
from measure import PeakMemory, hardware, versions
from published import read_ratings
from pyspark.ml.recommendation import ALS, ALSModel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import Window as W
from pyspark.sql import functions as F
from threadpoolctl import threadpool_limits

from recsys_spark.config import Config
from recsys_spark.infra.session import build_session
from recsys_spark.models import recommend as engine
from recsys_spark.models.category_cap import CategoryCap
from recsys_spark.models.top_k import MAX_BLOCK_BYTES, top_k_dot_product

RESULTS = Path(__file__).parent / "results" / "top_k.json"
K, RANK, ITERATIONS, SEED = 100, 64, 5, 42
TOLERANCE = 1e-5
PARTS = ("ml1m", "worker", "capped", "scale")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the publisher's folder of MovieLens 1M")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="bench_top_k_"))
    try:
        spark = build_session(
            Config.model_validate({
                "data_root": str(root), "spark": {"master": "local[*]", "shuffle_partitions": 8, "conf": {"spark.ui.enabled": "false"}},
            })
        )  # fmt: skip
        for part in options.parts:
            measured = {
                "ml1m": lambda: against_spark(spark, root, options.data, options.runs),
                "worker": lambda: against_numpy(options.data, options.runs),
                "capped": lambda: with_caps(options.data, options.runs),
                "scale": lambda: at_scale(spark, root),
            }[part]()
            print(part, json.dumps(measured), flush=True)
            _store(part, measured)
        spark.stop()
    finally:
        shutil.rmtree(root)


def against_spark(spark: SparkSession, root: Path, data: Path, runs: int) -> dict[str, object]:
    ratings = read_ratings(data).astype({"user_id": int, "item_id": int})[["user_id", "item_id"]]
    rated = spark.createDataFrame(ratings.assign(weight=1.0)).repartition(4, "user_id").persist()
    als = ALS(
        rank=RANK, maxIter=ITERATIONS, regParam=0.1, alpha=3.0, seed=SEED, implicitPrefs=True, numUserBlocks=4,
        numItemBlocks=4, userCol="user_id", itemCol="item_id", ratingCol="weight",
    )  # fmt: skip
    model = als.fit(rated)
    users, items = model.userFactors.persist(), model.itemFactors.persist()
    longest = int(ratings["user_id"].value_counts().max())
    seen = rated.select("user_id", "item_id")
    engines = {
        "ours": lambda: _write(ours(spark, users, items, seen), root / "ours"),
        "spark": lambda: _write(sparks_own(model, seen, K + longest), root / "spark"),
    }
    facts = {"users": users.count(), "items": items.count(), "longest_history": longest}
    for run in engines.values():  # warm up
        run()
    seconds = _medians(engines, runs)
    differences = compare(spark.read.parquet(str(root / "ours")), spark.read.parquet(str(root / "spark")))
    return {
        **facts, "k": K, "rank": RANK, "runs": runs, "seconds": seconds, "times_faster": round(seconds["spark"] / seconds["ours"], 1),
        "lists": differences, "als": f"{ITERATIONS} iterations, reg 0.1, alpha 3, seed {SEED}",
    }  # fmt: skip


def ours(spark: SparkSession, users: DataFrame, items: DataFrame, seen: DataFrame) -> DataFrame:
    """What pipelines/recommend.py does: everything from the stored factors on."""
    item_vectors = items.select(F.col("id").cast("string").alias("item_id"), F.col("features").alias("vector"))
    ids = sorted(item_vectors.select("item_id").toArrow()["item_id"].to_pylist(), key=str.encode)
    positions = engine.catalogue_positions(spark, ids)
    had = seen.select("user_id", F.col("item_id").cast("string")).join(positions, on="item_id", how="inner")
    seen_positions = had.groupBy("user_id").agg(F.array_sort(F.collect_set("position")).alias("seen"))
    vectors = users.select(F.col("id").alias("user_id"), F.col("features").alias("vector"))
    with_seen = vectors.join(seen_positions, on="user_id", how="left").withColumn(
        "user_id", F.col("user_id").cast("string")
    )
    matrix = spark.sparkContext.broadcast(engine.collect_item_matrix(item_vectors, ids))
    return engine.recommend_by_vectors(with_seen, matrix, K, MAX_BLOCK_BYTES)


def sparks_own(model: ALSModel, seen: DataFrame, fetched: int) -> DataFrame:
    """recommendForAllUsers, over-fetched, without what was seen, cut to K."""
    fetched_lists = model.recommendForAllUsers(fetched)
    rows = fetched_lists.select("user_id", F.posexplode("recommendations").alias("place", "entry"))
    rows = rows.select("user_id", "place", "entry.item_id", F.col("entry.rating").alias("score"))
    unseen = rows.join(seen, on=["user_id", "item_id"], how="left_anti")
    ranked = unseen.withColumn("rank", F.row_number().over(W.partitionBy("user_id").orderBy("place")))
    return ranked.where(F.col("rank") <= K).select("user_id", "item_id", "score", "rank")


def compare(left: DataFrame, right: DataFrame) -> dict[str, object]:
    """Equal: the same items, but for items whose scores differ from the last one of the other list by less than 1e-5."""
    ours_pdf, other_pdf = (
        frame.select(F.col("user_id").cast("int"), F.col("item_id").cast("int"), "score").toPandas()
        for frame in (left, right)
    )
    both = ours_pdf.merge(other_pdf, on=["user_id", "item_id"], how="outer", suffixes=("", "_other"))
    cut = pd.concat([pdf.groupby("user_id")["score"].min() for pdf in (ours_pdf, other_pdf)], axis=1).max(axis=1)
    alone = both[both["score"].isna() | both["score_other"].isna()]
    scores = alone["score"].fillna(alone["score_other"])
    unexplained = int(((scores - alone["user_id"].map(cut)).abs() > TOLERANCE).sum())
    worst = float((both["score"] - both["score_other"]).abs().max())
    assert unexplained == 0, f"{unexplained} items differ"
    assert worst < TOLERANCE, worst
    assert len(ours_pdf) == len(other_pdf)
    return {"rows": len(ours_pdf), "items_in_one_only": len(alone), "largest_score_difference": worst}


def against_numpy(data: Path, runs: int) -> dict[str, object]:
    users, items, seen, _ = _core_inputs(data)
    with threadpool_limits(1):
        engines = {
            "ours": lambda: top_k_dot_product(users, items, K, seen),
            "numpy": lambda: plain_top_k(users, items, K, seen),
        }
        answer, (positions, scores) = (run() for run in engines.values())
        assert np.abs(answer.scores - scores).max() < TOLERANCE
        seconds = _medians(engines, runs)
    return {
        "users": len(users), "items": len(items), "k": K, "rank": RANK, "threads": 1, "runs": runs, "seconds": seconds,
        "ratio": round(seconds["ours"] / seconds["numpy"], 2), "same_places": float((answer.positions == positions).mean()),
    }  # fmt: skip


def plain_top_k(
    users: np.ndarray, items: np.ndarray, k: int, seen: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    scores = users @ items.T
    scores[np.repeat(np.arange(len(users)), np.diff(seen[0])), seen[1]] = -np.inf
    top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    found = np.take_along_axis(scores, top, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    return np.take_along_axis(top, order, axis=1), np.take_along_axis(found, order, axis=1)


def with_caps(data: Path, runs: int) -> dict[str, object]:
    users, items, seen, genres = _core_inputs(data)
    with threadpool_limits(1):
        engines: dict[str, Callable[[], object]] = {"no cap": lambda: top_k_dot_product(users, items, K, seen)}
        for limit in (5, 10, 20):
            cap = CategoryCap(genres, limit)
            engines[f"at most {limit}"] = lambda cap=cap: top_k_dot_product(users, items, K, seen, cap=cap)
        seconds = _medians(engines, runs)
    return {"genres": int(genres.max()) + 1, "k": K, "threads": 1, "runs": runs, "seconds": seconds}


def _core_inputs(data: Path) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Random factors of the size of ML-1M, the real seen items, and each film's first genre."""
    ratings = read_ratings(data)
    films = pd.read_csv(
        data / "movies.dat",
        sep="::",
        engine="python",
        names=["item_id", "title", "genres"],
        encoding="latin-1",
        dtype=str,
    ).set_index("item_id")
    item_ids = pd.Index(sorted(ratings["item_id"].unique(), key=str.encode))
    user_codes = pd.factorize(ratings["user_id"])[0]
    order = np.argsort(user_codes, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(user_codes))])
    rng = np.random.default_rng(SEED)
    users, items = (rng.normal(size=(n, RANK)).astype(np.float32) for n in (len(indptr) - 1, len(item_ids)))
    genres = pd.factorize(films["genres"].str.split("|").str[0].reindex(item_ids))[0].astype(np.int32)
    return users, items, (indptr, item_ids.get_indexer(ratings["item_id"])[order]), genres


def at_scale(spark: SparkSession, root: Path, size: int = 100_000, num_seen: int = 50) -> dict[str, object]:
    rng = np.random.default_rng(SEED)
    item_ids = sorted((f"i{number}" for number in range(size)), key=str.encode)
    vectors = rng.normal(size=(2, size, RANK)).astype(np.float32)
    seen = rng.integers(0, size, (size, num_seen)).astype(np.int32)
    table = pa.table({
        "user_id": [f"u{number}" for number in range(size)],
        "vector": pa.FixedSizeListArray.from_arrays(vectors[0].ravel(), RANK).cast(pa.list_(pa.float32())),
        "seen": pa.FixedSizeListArray.from_arrays(seen.ravel(), num_seen).cast(pa.list_(pa.int32())),
    })  # fmt: skip
    spark.createDataFrame(table).repartition(16).write.parquet(str(root / "users"))
    matrix = engine.ItemMatrix(item_ids, vectors[1], np.zeros(size, dtype=bool))
    with PeakMemory() as memory:
        start = time.perf_counter()
        items = spark.sparkContext.broadcast(matrix)
        users = spark.read.parquet(str(root / "users"))
        _write(engine.recommend_by_vectors(users, items, K, MAX_BLOCK_BYTES), root / "scale")
        seconds = time.perf_counter() - start
    rows = spark.read.parquet(str(root / "scale")).count()
    assert rows == size * K, rows
    return {
        "users": size, "items": size, "k": K, "rank": RANK, "seen_per_user": num_seen, "max_block_bytes": MAX_BLOCK_BYTES,
        "seconds": round(seconds, 1), "rows": rows, "users_per_second": round(size / seconds),
        "peak_memory_gb": round(memory.peak / 1e9, 2),
    }  # fmt: skip


def _write(lists: DataFrame, folder: Path) -> None:
    lists.write.mode("overwrite").parquet(str(folder))


def _medians(engines: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(runs):
        for name, run in engines.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: round(statistics.median(found), 3) for name, found in seconds.items()}


def _store(part: str, measured: dict[str, object]) -> None:
    report = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    about = {
        "hardware": hardware(),
        "versions": versions("pyspark", "numpy", "scipy"),
    }  # parts may be of several machines
    RESULTS.parent.mkdir(exist_ok=True)
    found = {**report, "tie_order": "score, then item id", part: {**about, **measured}}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
