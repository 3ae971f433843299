"""Training of feature_factors on MovieLens 1M with genres of films and age, sex and occupation of users as features.

Seconds of the whole pipeline train_feature_factors (reading and writing tables included), peak memory of the process tree and
ndcg beside popularity and ALS on the validation part of the global time split, for each loss.
Writes benchmarks/results/feature_factors.json. Usage: .venv/bin/python benchmarks/bench_feature_factors.py --data FOLDER
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

from measure import PeakMemory, hardware, versions

from recsys_spark.config import Config
from recsys_spark.config_file import conf_folder, load_config
from recsys_spark.data.split import count_events_per_day, split_dates
from recsys_spark.infra import tables
from recsys_spark.infra.session import build_session
from recsys_spark.pipelines.build_interactions import build_interactions
from recsys_spark.pipelines.evaluate import evaluate
from recsys_spark.pipelines.ingest_events import ingest_events
from recsys_spark.pipelines.ingest_items import ingest_items
from recsys_spark.pipelines.recommend import recommend
from recsys_spark.pipelines.train_als import train_als
from recsys_spark.pipelines.train_feature_factors import train_feature_factors
from recsys_spark.pipelines.train_popular import train_popular

RESULTS = Path(__file__).parent / "results" / "feature_factors.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, type=Path, help="folder of ratings.dat, movies.dat, users.dat")
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="bench_features_"))
    try:
        write_ratings(options.data, root / "ratings.dat")
        config = configured(options.data, root, options.epochs)
        spark = build_session(config)
        ingest_items(spark, config)
        ingest_events(spark, config)
        events = tables.read_table(spark, config, "events", made_by="ingest_events")
        cutoff = split_dates(count_events_per_day(events), config.split).validation_start
        for step in (build_interactions, train_popular, train_als):
            step(spark, config, cutoff)
        runs = {}
        for loss in ("warp", "bpr"):
            own = config.model_copy(
                update={"feature_factors": config.feature_factors.model_copy(update={"loss": loss})}
            )
            with PeakMemory() as memory:
                start = time.perf_counter()
                sizes = train_feature_factors(spark, own, cutoff)
                seconds = time.perf_counter() - start
            recommend(spark, own, cutoff)
            runs[loss] = {
                "train_seconds": round(seconds, 1), "peak_memory_gb": round(memory.peak / 1e9, 2), "sizes": sizes,
                "ndcg_at_10": {name: round(value, 4) for name, value in evaluate(spark, own, cutoff).items()},
            }  # fmt: skip
        result = {
            "hardware": hardware(), "versions": versions("pyspark", "numpy", "scipy"), "cutoff": str(cutoff),
            "interactions": tables.read_cutoff(spark, config, cutoff).count(),
            "feature_factors": config.feature_factors.model_dump(mode="json"), "runs": runs,
        }  # fmt: skip
        spark.stop()
        print(json.dumps(result, indent=1))
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    finally:
        shutil.rmtree(root)


def write_ratings(folder: Path, target: Path) -> None:
    """The publisher's ratings with the user's sex, age and occupation behind each, as a log of a site with profiles has them."""
    users = dict(line.split("::", 1) for line in (folder / "users.dat").read_text(encoding="latin-1").splitlines())
    with target.open("w", encoding="utf-8") as file:
        for line in (folder / "ratings.dat").read_text(encoding="latin-1").splitlines():
            file.write(f"{line}::{users[line.split('::', 1)[0]]}\n")


def configured(folder: Path, root: Path, epochs: int) -> Config:
    own = {
        "data_root": root, "sources.events.path": root / "ratings.dat", "sources.items.path": folder.absolute() / "movies.dat",
        "sources.events.header": ["user", "movie", "rating", "at", "sex", "age", "occupation", "zip"],
        "feature_factors.item_features": ["category"], "feature_factors.user_features": ["sex", "age", "occupation"],
        "feature_factors.epochs": epochs, "recommend.models": ["popular", "als", "feature_factors"],
        "recommend.fallback": "popular",
    }  # fmt: skip
    return load_config(
        conf_folder() / "ml-1m.yaml", [f"{key}={json.dumps(value, default=str)}" for key, value in own.items()]
    )


if __name__ == "__main__":
    main()
