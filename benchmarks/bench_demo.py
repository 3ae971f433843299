"""The demo from raw logs to report, twice: seconds per step, peak memory of the whole process tree, and the metrics.

Writes benchmarks/results/demo.json. Usage: .venv/bin/python benchmarks/bench_demo.py [--sample 0.1]
Limits that the demo promises on two cores after set-up: 360 seconds and 8 GB.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

from measure import PeakMemory, hardware, versions

from recsys_spark.config_file import conf_folder, load_config
from recsys_spark.demo_data import write_demo_data
from recsys_spark.evaluation.run_results import RunResults
from recsys_spark.infra.session import build_session
from recsys_spark.log import configure_logging
from recsys_spark.main_job import run_main_job

RESULTS = Path(__file__).parent / "results" / "demo.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sample", type=float, default=1.0)
    sample = parser.parse_args().sample
    configure_logging()
    root = Path(tempfile.mkdtemp(prefix="bench_demo_"))
    try:
        with PeakMemory() as memory:
            start = time.perf_counter()
            write_demo_data(root / "raw", sample)
            written = time.perf_counter() - start
            paths = [
                f"data_root={root}",
                f"sources.events.path={root}/raw/events",
                f"sources.items.path={root}/raw/items",
            ]
            config = load_config(conf_folder() / "demo.yaml", paths)
            spark = build_session(config)
            session = time.perf_counter() - start - written
            first = run_main_job(spark, config)
            total = time.perf_counter() - start
            second = run_main_job(spark, config)
            spark.stop()
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(_report(sample, first, second, written, session, total, memory), indent=1) + "\n")
    finally:
        shutil.rmtree(root)


def _report(
    sample: float,
    first: RunResults,
    second: RunResults,
    written: float,
    session: float,
    total: float,
    memory: PeakMemory,
) -> dict[str, object]:
    rows = first.metrics_pdf.query("slice == 'all' and metric == 'ndcg' and k == 10")
    ndcg = {f"{row['task']}.{row['model']}": row for row in rows.to_dict("records")}
    return {
        "hardware": hardware(),
        "versions": versions("pyspark", "delta-spark", "mlflow", "numpy"),
        "sample": sample,
        "seconds_total_first_run": round(total, 1),
        "seconds": {"write_logs": round(written, 1), "start_spark": round(session, 1)}
        | {step: round(value, 1) for step, value in first.timings.items()},
        "seconds_second_run": {step: round(value, 1) for step, value in second.timings.items()},
        "peak_memory_gb": round(memory.peak / 1e9, 2),
        "ingest_first_run": first.conservation["events"],
        "ingest_second_run": second.conservation["events"],
        "ndcg_at_10": {
            name: {
                "value": row["value"],
                "ci": [row["ci_low"], row["ci_high"]],
                "users": row["num_users"],
                "x_popular": row["value"] / ndcg[f"{row['task']}.popular"]["value"],
            }
            for name, row in ndcg.items()
        },
    }


if __name__ == "__main__":
    main()
