"""Ingest of the demo's logs against plain Spark on the same files: seconds, memory, at 1, 3 and 20 times the data.

The alternative is what one would write by hand: read the JSON lines with a schema, make the same id, drop duplicates on it and
append to a Delta table partitioned by day. It checks nothing, keeps nothing that is broken and can not be repeated. Each run
starts its own process, ours and the other one in turns; the medians are compared. Every further copy of the year has its own
basket ids, a year later. Writes benchmarks/results/ingest.json; scales that are not run keep their figures.

Usage: .venv/bin/python benchmarks/bench_ingest.py [--scales 1 3 20] [--runs 3]
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from measure import PeakMemory, hardware, versions
from pyspark.sql import functions as F

from recsys_spark.config_file import conf_folder, load_config
from recsys_spark.demo_data import write_demo_data
from recsys_spark.infra.session import build_session
from recsys_spark.pipelines.ingest_events import ingest_events

RESULTS = Path(__file__).parent / "results" / "ingest.json"
FIELDS = "household string, product string, basket string, action string, at string, paid string, quantity string, store string"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scales", type=int, nargs="+", default=[1, 3, 20])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--one", choices=("ours", "plain"), help="run once in this process, on --raw, and print the figures"
    )
    parser.add_argument("--raw")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_once(options.one, Path(options.raw))))
        return
    before = json.loads(RESULTS.read_text())["scales"] if RESULTS.exists() else {}
    report = {"hardware": hardware(), "versions": versions("pyspark", "delta-spark"), "scales": before}
    root = Path(tempfile.mkdtemp(prefix="bench_ingest_"))
    try:
        for scale in options.scales:
            raw = write_copies(root, scale)
            runs = {"ours": [], "plain": []}
            for _ in range(options.runs if scale < 20 else 1):
                for which in runs:
                    runs[which].append(_in_own_process(which, raw))
                    print(scale, which, runs[which][-1], flush=True)
            report["scales"][str(scale)] = _summary(runs)
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(report, indent=1) + "\n")
            shutil.rmtree(raw)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def write_copies(root: Path, copies: int) -> Path:
    """The year of purchases, each further copy one year later and with basket ids of its own."""
    once, raw = root / "once", root / f"raw_{copies}"
    if not once.exists():
        write_demo_data(once, 1.0)
    raw.mkdir()
    for copy in range(copies):
        for day in sorted((once / "events").iterdir()):
            with (raw / _later(day.name, copy)).open("a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(_later(day.read_text(encoding="utf-8", errors="surrogateescape"), copy))
    return raw


def _later(text: str, years: int) -> str:
    """Move the times in log lines, or the date in a file's name, and give every basket a name of its own."""
    text = re.sub(r'(^|"at":\s*")(\d{4})(?=-\d\d-\d\d)', lambda found: f"{found[1]}{int(found[2]) + years}", text)
    return re.sub(r'("basket":\s*")', rf"\g<1>{years:02d}", text)


def run_once(which: str, raw: Path) -> dict[str, float]:
    root = Path(tempfile.mkdtemp(prefix="bench_ingest_run_"))
    try:
        config = load_config(conf_folder() / "demo.yaml", [f"data_root={root}", f"sources.events.path={raw}"])
        start = time.perf_counter()
        spark = build_session(config)
        started = time.perf_counter() - start
        with PeakMemory() as memory:
            start = time.perf_counter()
            rows = ingest_events(spark, config)["inserted"] if which == "ours" else plain(spark, raw, root / "plain")
            seconds = time.perf_counter() - start
        jvm = _jvm_of(spark)
        cpu = sum(jvm.cpu_times()[:2])
        spark.stop()
        return {
            "seconds": seconds,
            "start_spark": started,
            "cpu_seconds": cpu,
            "peak_memory_gb": memory.peak / 2**30,
            "rows": rows,
        }
    finally:
        shutil.rmtree(root, ignore_errors=True)


def plain(spark, raw: Path, target: Path) -> int:
    """What one would write by hand."""
    lines = spark.read.schema(FIELDS).json(str(raw))
    events = lines.select(
        F.sha2(F.concat_ws("|", "basket", "product"), 256).alias("event_id"), F.col("household").alias("user_id"),
        F.col("product").alias("item_id"), F.col("action").alias("event_type"), F.col("at").try_cast("timestamp").alias("timestamp"),
        F.col("basket").alias("session_id"), F.col("paid").try_cast("double").alias("value"), "quantity", "store",
    )  # fmt: skip
    good = events.where("user_id is not null and timestamp is not null and try_cast(quantity as double) > 0")
    dated = good.withColumn("event_date", F.to_date("timestamp")).dropDuplicates(["event_id"])
    dated.write.format("delta").partitionBy("event_date").mode("append").save(str(target))
    return spark.read.format("delta").load(str(target)).count()


def _jvm_of(spark) -> psutil.Process:
    return psutil.Process(int(spark._jvm.java.lang.ProcessHandle.current().pid()))


def _in_own_process(which: str, raw: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", which, "--raw", str(raw)]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ)  # errors are shown
    return json.loads(found.stdout.strip().splitlines()[-1])


def _summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, object]:
    medians = {
        which: {name: round(statistics.median(run[name] for run in found), 2) for name in found[0]}
        for which, found in runs.items()
    }
    return {
        "runs": len(runs["ours"]),
        **medians,
        "ratio": round(medians["ours"]["seconds"] / medians["plain"]["seconds"], 2),
    }


if __name__ == "__main__":
    main()
