"""The two engines of ALS on one data set: seconds of training, ndcg, and how far their lists agree.

Two seeds of one engine are the yardstick: the engines minimise the same function, so that their lists should differ no more
than those of two seeds. Validation part of the global time split, task discovery, config of conf/NAME.yaml otherwise.
Writes benchmarks/results/als_engines.json. Usage: .venv/bin/python benchmarks/bench_als_engines.py --data ml-100k=FOLDER
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

from measure import hardware, versions

from recsys_spark.config import Config
from recsys_spark.config_file import conf_folder, load_config
from recsys_spark.data.split import count_events_per_day, split_dates
from recsys_spark.infra import tables
from recsys_spark.infra.session import build_session
from recsys_spark.pipelines.build_interactions import build_interactions
from recsys_spark.pipelines.evaluate import evaluate
from recsys_spark.pipelines.ingest_events import ingest_events
from recsys_spark.pipelines.recommend import recommend
from recsys_spark.pipelines.train_als import train_als
from recsys_spark.pipelines.train_popular import train_popular

RESULTS = Path(__file__).parent / "results" / "als_engines.json"
RUNS = {
    "spark": {},
    "spark, another seed": {"seed": 1},
    "implicit, exact": {"engine": "implicit", "cg_steps": 0},
    "implicit, exact, another seed": {"engine": "implicit", "cg_steps": 0, "seed": 1},
    "implicit, 3 steps": {"engine": "implicit", "cg_steps": 3},
    "implicit, 1 step": {"engine": "implicit", "cg_steps": 1},
}
K = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, metavar="NAME=FOLDER", help="MovieLens in the publisher's layout")
    name, _, folder = parser.parse_args().data.partition("=")
    root = Path(tempfile.mkdtemp(prefix="bench_als_"))
    try:
        config = configured(name, Path(folder), root)
        spark = build_session(config)
        ingest_events(spark, config)
        events = tables.read_table(spark, config, "events", made_by="ingest_events")
        cutoff = split_dates(count_events_per_day(events), config.split).validation_start
        for step in (build_interactions, train_popular):
            step(spark, config, cutoff)
        train_als(spark, config, cutoff)  # the first run of a session is slower
        lists, report = {}, {}
        for run, settings in RUNS.items():
            own = config.model_copy(update={"als": config.als.model_copy(update=settings)})
            start = time.perf_counter()
            train_als(spark, own, cutoff)
            seconds = time.perf_counter() - start
            recommend(spark, own, cutoff)
            ndcg = evaluate(spark, own, cutoff)["discovery.als"]
            lists[run] = listed(spark, own)
            report[run] = {"train_seconds": round(seconds, 2), f"ndcg_at_{K}": round(ndcg, 4)}
        spark.stop()
        for run, of_run in lists.items():
            report[run][f"overlap_at_{K}_with"] = {
                other: round(overlap(of_run, found), 3) for other, found in lists.items() if other != run
            }
        result = {
            "hardware": hardware(), "versions": versions("pyspark", "implicit", "numpy"), "data": name,
            "cutoff": str(cutoff), "als": config.als.model_dump(mode="json"), "runs": report,
        }  # fmt: skip
        print(json.dumps(result, indent=1))
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    finally:
        shutil.rmtree(root)


def configured(name: str, folder: Path, root: Path) -> Config:
    published = load_config(conf_folder() / f"{name}.yaml")
    file = folder / Path(str(published.sources.events.path)).name
    own = [f"data_root={root}", f"sources.events.path={json.dumps(str(file.absolute()))}", "sources.items.path="]
    return load_config(
        conf_folder() / f"{name}.yaml", [*own, "recommend.models=[popular,als]", "recommend.fallback=popular"]
    )


def listed(spark, config: Config) -> dict[str, set[str]]:
    """The top K of every user whom ALS knows."""
    rows = tables.read_table(spark, config, "recommendations", made_by="recommend").toPandas()
    own = rows[(rows["model"] == "als") & ~rows["is_fallback"] & (rows["rank"] <= K)]
    return own.groupby("user_id")["item_id"].agg(set).to_dict()


def overlap(left: dict[str, set[str]], right: dict[str, set[str]]) -> float:
    """Mean over users of the share of K that both lists have."""
    return sum(len(items & right[user_id]) / K for user_id, items in left.items()) / len(left)


if __name__ == "__main__":
    main()
