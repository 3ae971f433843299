"""Ingest killed at random moments and repeated, for many seeds: the same as tests/test_accidents.py does for a few.

Writes benchmarks/results/kill.json. Usage: .venv/bin/python benchmarks/bench_kill.py [--seeds 200] [--first-seed 0] [--jobs 1]
[--minutes 60]
Exits with 1 when any seed left part of a batch, lost a row or added one twice.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import accidents
from measure import hardware, versions

from recsys_spark.infra.session import build_session

RESULTS = Path(__file__).parent / "results" / "kill.json"
DAYS = 5  # killed one after the other into the same tables; then a new sequence begins in an empty folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=200, help="kills; rounded up to whole sequences of days")
    parser.add_argument("--first-seed", type=int, default=0, help="go on here; states of earlier seeds are kept")
    parser.add_argument("--jobs", type=int, default=1, help="sequences at once")
    parser.add_argument("--minutes", type=float, default=None, help="start no further sequence after this time")
    options = parser.parse_args()
    states = json.loads(RESULTS.read_text())["seeds"] if options.first_seed else {}
    folder = Path(tempfile.mkdtemp(prefix="bench_kill_"))
    start = time.perf_counter()
    try:
        spark = _session(folder)
        days = accidents.undisturbed(spark, folder, DAYS)
        alone = accidents.shop_config(folder / "raw", folder / "alone")
        cpu = accidents.undisturbed_cpu_seconds(alone, days[0].day, folder / "logs" / "alone.txt")

        def sequence(number: int) -> dict[str, str]:
            if options.minutes is not None and time.perf_counter() - start > options.minutes * 60:
                return {}
            return _sequence(spark, folder, days, number, cpu)

        with ThreadPoolExecutor(options.jobs) as pool:
            for found in pool.map(sequence, range(options.first_seed // DAYS, -(-options.seeds // DAYS))):
                states |= found
                _store(states, options.jobs, cpu)
        spark.stop()
    finally:
        shutil.rmtree(folder)
    sys.exit(any(state.startswith("failed") for state in states.values()))


def _store(states: dict[str, str], jobs: int, cpu: accidents.CpuSeconds) -> None:
    """Write what is known so far: hours of kills are not lost with the last of them."""
    report = {
        "hardware": hardware(),
        "versions": versions("pyspark", "delta-spark"),
        "jobs": jobs,
        "undisturbed_cpu_seconds": {name: round(value, 1) for name, value in asdict(cpu).items()},
        "kills": len(states),
        "states": dict(Counter(state.split(":")[0] for state in states.values())),
        "seeds": dict(sorted(states.items(), key=lambda entry: int(entry[0]))),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


def _sequence(
    spark: object, folder: Path, days: list[accidents.Day], number: int, cpu: accidents.CpuSeconds
) -> dict[str, str]:
    """Kill and repeat one day after the other; a failure ends the sequence, because the days after it build on it."""
    config = accidents.shop_config(folder / "raw", folder / f"killed-{number}")
    found: dict[str, str] = {}
    for place, day in enumerate(days):
        seed = number * DAYS + place
        try:
            state = accidents.kill_and_repeat(spark, config, day, seed, cpu, folder / "logs" / f"{seed}.txt")
        except Exception as error:  # any of them is a result: it is kept with its seed, and the exit code is 1
            traceback.print_exc()
            state = f"failed: {type(error).__name__}: {str(error)[:2000]}"
        found[str(seed)] = state
        sys.stderr.write(f"seed={seed} {state}\n")
        if state.startswith("failed"):
            break
    shutil.rmtree(config.data_root, ignore_errors=True)
    return found


def _session(folder: Path):
    conf = {
        "spark.ui.enabled": "false",
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.driver.memory": "2g",
        "spark.driver.extraJavaOptions": "-Duser.timezone=UTC -XX:+UseParallelGC",  # it lives for the whole run
    }
    spark = {"master": "local[2]", "shuffle_partitions": 1, "conf": conf}
    return build_session(accidents.make_config(folder, spark=spark))


if __name__ == "__main__":
    main()
