"""Long random histories of ingest against its plain model (tests/ingest_machine.py), each with a seed of its own.

Writes benchmarks/results/state_machine.json after every history. A failure prints its steps and does not stop the others; it comes
again with --examples 1 and its seed. Usage: .venv/bin/python benchmarks/bench_state_machine.py [--examples 100] [--steps 20] [--seed 1]
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from importlib.metadata import version
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import ingest_machine  # noqa: E402 - it lies with the tests
from factories import make_config  # noqa: E402

from recsys_spark.infra.session import build_session  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "state_machine.json"
CONF = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.adaptive.enabled": "false",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.driver.memory": "2g",
    "spark.driver.extraJavaOptions": "-Duser.timezone=UTC",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="of the first example; the others count up from it")
    asked = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bench_state_machine_") as folder:
        root = Path(folder)
        conf = CONF | {"spark.sql.warehouse.dir": str(root / "warehouse"), "spark.local.dir": str(root / "local")}
        spark = build_session(make_config(root, spark={"master": "local[2]", "shuffle_partitions": 2, "conf": conf}))
        try:
            failures: list[dict[str, object]] = []
            for number, seed in enumerate(range(asked.seed, asked.seed + asked.examples), start=1):
                failures += _run_one(spark, root, seed, asked.steps)
                report = _report(asked, number, failures, time.perf_counter() - start)
                RESULTS.parent.mkdir(exist_ok=True)
                RESULTS.write_text(json.dumps(report, indent=1) + "\n")
        finally:
            spark.stop()
    if failures:
        raise SystemExit(f"{len(failures)} of {asked.examples} histories differ from the model; see {RESULTS}")


def _run_one(spark: object, root: Path, seed: int, steps: int) -> list[dict[str, object]]:
    start, failures = time.perf_counter(), []
    try:
        ingest_machine.run_machine(spark, root, seed, steps)
    except Exception as error:  # the next history may still tell something
        traceback.print_exc()
        failures = [{"seed": seed, "error": type(error).__name__, "text": str(error)[:2000]}]
    rules = sum(ingest_machine.RULES.values())
    print(f"seed={seed} seconds={time.perf_counter() - start:.1f} rules={rules} failures={len(failures)}", flush=True)
    return failures


def _report(
    asked: argparse.Namespace, num_run: int, failures: list[dict[str, object]], seconds: float
) -> dict[str, object]:
    rules = ingest_machine.RULES
    return {
        "hardware": {"cores": os.cpu_count(), "memory_gb": round(psutil.virtual_memory().total / 2**30, 1)},
        "versions": {name: version(name) for name in ("pyspark", "delta-spark", "hypothesis")}
        | {"python": platform.python_version()},
        "examples": num_run,
        "steps": asked.steps,
        "first_seed": asked.seed,
        "seconds": round(seconds),
        "rules": dict(sorted(rules.items())),
        "seconds_per_rule": {name: round(ingest_machine.SECONDS[name] / rules[name], 1) for name in sorted(rules)},
        "lines": dict(sorted(ingest_machine.OUTCOMES.items())),
        "failures": failures,
    }


if __name__ == "__main__":
    main()
