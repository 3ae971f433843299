"""Training and lists of each model on the demo's purchases: seconds and peak memory of the whole process tree.

Writes its numbers under a label into benchmarks/results/models.json, so that two versions of the package can stand side by side.
Usage: .venv/bin/python benchmarks/bench_models.py [--sample 0.3] [--label after] [--models neighbours user_neighbours]
"""

import argparse
import json
import shutil
import tempfile
import time
from importlib import import_module
from pathlib import Path

from measure import PeakMemory, hardware, versions

from recsys_spark.config_file import conf_folder, load_config
from recsys_spark.data.split import count_events_per_day, split_dates
from recsys_spark.demo_data import write_demo_data
from recsys_spark.infra import tables
from recsys_spark.infra.session import build_session
from recsys_spark.log import configure_logging
from recsys_spark.pipelines.build_interactions import build_interactions
from recsys_spark.pipelines.ingest_events import ingest_events
from recsys_spark.pipelines.recommend import recommend
from recsys_spark.pipelines.train_popular import train_popular

RESULTS = Path(__file__).parent / "results" / "models.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sample", type=float, default=1.0)
    parser.add_argument("--label", default="after")
    parser.add_argument("--models", nargs="+", default=["neighbours", "user_neighbours"])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    configure_logging()
    root = Path(tempfile.mkdtemp(prefix="bench_models_"))
    try:
        write_demo_data(root / "raw", options.sample)
        paths = [f"data_root={root}", f"sources.events.path={root}/raw/events", "sources.items.path=null"]
        config = load_config(conf_folder() / "demo.yaml", [*paths, *options.set])
        spark = build_session(config)
        ingest_events(spark, config)
        events = tables.read_table(spark, config, "events", made_by="ingest_events")
        cutoff = split_dates(count_events_per_day(events), config.split).test_start
        build_interactions(spark, config, cutoff)
        train_popular(spark, config, cutoff)
        interactions = tables.read_cutoff(spark, config, cutoff)
        sizes = {name: interactions.select(f"{name}_id").distinct().count() for name in ("user", "item")}
        measured = {model: _measure(spark, config, model, cutoff) for model in options.models}
        _keep(options.label, {
            "hardware": hardware(), "versions": versions("pyspark", "numpy", "scipy"), "sample": options.sample,
            "interactions": interactions.count(), **{f"{name}s": size for name, size in sizes.items()},
            "settings": options.set, "models": measured,
        })  # fmt: skip
        spark.stop()
    finally:
        shutil.rmtree(root)


def _measure(spark, config, model, cutoff):  # type: ignore[no-untyped-def]
    """Each step twice in the warm session; the second counts. Memory is that of all Python processes and the JVM."""
    train = getattr(import_module(f"recsys_spark.pipelines.train_{model}"), f"train_{model}")
    only = config.model_copy(update={"recommend": config.recommend.model_copy(update={"models": (model,)})})
    with PeakMemory() as memory:
        seconds = {
            name: _second_run(step, spark, only, cutoff) for name, step in (("train", train), ("recommend", recommend))
        }
    return {"seconds": seconds, "peak_memory_gb": round(memory.peak / 1e9, 2)}


def _second_run(step, *arguments):  # type: ignore[no-untyped-def]
    step(*arguments)
    start = time.perf_counter()
    step(*arguments)
    return round(time.perf_counter() - start, 1)


def _keep(label: str, measured: dict[str, object]) -> None:
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results | {label: measured}, indent=1) + "\n")


if __name__ == "__main__":
    main()
