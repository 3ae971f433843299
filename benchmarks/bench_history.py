"""One day merged into 30 days of history and into 300: seconds, and files of the events table that were scanned.

The same day of events goes through the real ingest, into two tables that differ in their history only: some lines of each day
are broken, and the quarantine has as long a history as the events. Medians of several days, the two tables in turns in one warm
session. The files are what the scans' own metrics say ("number of files read"), summed over every query of the ingest.
Writes benchmarks/results/history.json. Usage: .venv/bin/python benchmarks/bench_history.py [--rows 4000] [--days 9]
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

from measure import hardware, versions
from pyspark.sql import functions as F

from recsys_spark.config import Config
from recsys_spark.infra import tables
from recsys_spark.infra.session import build_session
from recsys_spark.pipelines.ingest_events import ingest_events
from recsys_spark.schemas import EVENTS, QUARANTINE

RESULTS = Path(__file__).parent / "results" / "history.json"
HISTORIES = (30, 300)
FIRST_DAY = date(2024, 6, 1)
WARM_UP = 2
TABLES = ("events", "events_quarantine")
BROKEN_LINES = 8  # a day


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=4000, help="events a day")
    parser.add_argument("--days", type=int, default=9)
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="bench_history_"))
    try:
        configs = {days: make_config(root, days) for days in HISTORIES}
        spark = build_session(configs[HISTORIES[0]])
        for days, config in configs.items():
            write_history(spark, config, days, options.rows)
        seconds, scanned = ({days: [] for days in HISTORIES} for _ in range(2))
        for number in range(WARM_UP + options.days):
            day = FIRST_DAY + timedelta(days=number)
            write_day(root / "raw", day, options.rows)
            for days, config in configs.items():
                queries = num_queries(spark)
                start = time.perf_counter()
                counts = ingest_events(spark, config, day)
                took = time.perf_counter() - start
                assert counts["inserted"] == options.rows, counts
                if number >= WARM_UP:
                    seconds[days].append(took)
                    scanned[days].append(sum(files_scanned(spark, queries, config, name) for name in TABLES))
        medians = {days: statistics.median(found) for days, found in seconds.items()}
        report = {
            "hardware": hardware(), "versions": versions("pyspark", "delta-spark"), "rows_a_day": options.rows, "runs": options.days,
            "median_seconds": {str(days): round(value, 2) for days, value in medians.items()},
            "median_files_scanned": {str(days): statistics.median(found) for days, found in scanned.items()},
            "files_in_tables": {
                str(days): sum(num_files(spark, config, name) for name in TABLES) for days, config in configs.items()
            },
            "ratio": round(medians[HISTORIES[1]] / medians[HISTORIES[0]], 2),
        }  # fmt: skip
        print(json.dumps(report, indent=1))
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(report, indent=1) + "\n")
        spark.stop()
    finally:
        shutil.rmtree(root)


def make_config(root: Path, days: int) -> Config:
    columns = ("event_id", "user_id", "item_id", "event_type", "timestamp")
    source = {
        "name": "shop", "path": str(root / "raw"), "date_pattern": r"(\d{4}-\d{2}-\d{2})\.jsonl$",
        "columns": {name: name for name in columns},
    }  # fmt: skip
    spark = {"shuffle_partitions": 4, "conf": {"spark.databricks.delta.snapshotPartitions": "2"}}
    return Config.model_validate(
        {"data_root": str(root / f"history_{days}"), "sources": {"events": source}, "spark": spark}
    )


def write_history(spark, config: Config, days: int, rows: int) -> None:
    """Fill the table with one file a day, as daily ingests leave it."""
    tables.ensure_table(spark, config, "events")
    day = F.date_sub(F.lit(FIRST_DAY), (F.col("id") / rows).cast("int") + 1)
    events = spark.range(days * rows).select(
        F.concat(F.lit("h"), "id").alias("event_id"), F.concat(F.lit("u"), F.col("id") % 500).alias("user_id"),
        F.concat(F.lit("i"), F.col("id") % 300).alias("item_id"), F.lit("view").alias("event_type"),
        day.cast("timestamp").alias("timestamp"), F.lit(None).cast("string").alias("session_id"),
        F.lit(None).cast("string").alias("query"), F.lit(None).cast("double").alias("value"),
        F.create_map().cast("map<string,string>").alias("attributes"), day.alias("event_date"),
        F.lit("shop").alias("source"), F.lit("history").alias("ingest_run"),
    )  # fmt: skip
    _append(events.select(*EVENTS.fieldNames()).repartition("event_date"), config, "events")
    tables.ensure_table(spark, config, "events_quarantine")
    day = F.date_sub(F.lit(FIRST_DAY), (F.col("id") / BROKEN_LINES).cast("int") + 1)
    quarantine = spark.range(days * BROKEN_LINES).select(
        F.concat(day.cast("string"), F.lit(".jsonl")).alias("source_file"), F.md5(F.col("id").cast("string")).alias("line_hash"),
        F.lit(1).alias("occurrence"), F.lit("torn").cast("binary").alias("raw_line"), F.lit("malformed").alias("reason"),
        F.lit(None).cast("string").alias("detail"), F.lit("shop").alias("source"), F.lit("history").alias("ingest_run"),
        F.lit(None).cast("string").alias("header"), day.alias("delivery_date"),
    )  # fmt: skip
    # one file a day: as many tasks as days, each with the lines of one
    by_day = quarantine.select(*QUARANTINE.fieldNames()).repartitionByRange(days, "delivery_date")
    _append(by_day, config, "events_quarantine")


def _append(rows, config: Config, name: str) -> None:
    rows.write.format("delta").mode("append").save(tables.table_address(config, name).split("`")[1])


def num_queries(spark) -> int:
    """How many queries have run in this session's JVM so far, failed ones included."""
    return int(_query_store(spark).executionsCount())


def files_scanned(spark, since: int, config: Config, name: str) -> int:
    """The files that the scans of a table read, over all queries after the first `since`."""
    table = tables.table_address(config, name)
    spark._jsc.sc().listenerBus().waitUntilEmpty()
    store = _query_store(spark)
    queries = store.executionsList()
    total = 0
    for place in range(since, queries.size()):
        number = queries.apply(place).executionId()
        values, nodes = store.executionMetrics(number), store.planGraph(number).allNodes()
        for node in (nodes.apply(i) for i in range(nodes.size())):
            if not node.name().startswith("Scan") or table.split("`")[1] not in node.desc():
                continue
            metrics = node.metrics()
            for metric in (metrics.apply(i) for i in range(metrics.size())):
                if metric.name() == "number of files read" and values.contains(metric.accumulatorId()):
                    total += int(values.apply(metric.accumulatorId()).replace(",", ""))
    return total


def num_files(spark, config: Config, name: str) -> int:
    return int(spark.sql(f"DESCRIBE DETAIL {tables.table_address(config, name)}").head()["numFiles"])


def _query_store(spark):
    return spark._jsparkSession.sharedState().statusStore()


def write_day(folder: Path, day: date, rows: int) -> None:
    folder.mkdir(exist_ok=True)
    lines = (
        json.dumps(
            {
                "event_id": f"{day}-{i}",
                "user_id": f"u{i % 500}",
                "item_id": f"i{i % 300}",
                "event_type": "view",
                "timestamp": f"{day}T{i % 24:02d}:00:00",
            }
        )
        for i in range(rows)
    )
    broken = [f"torn {number} of {day}" for number in range(BROKEN_LINES)]
    (folder / f"{day}.jsonl").write_text("\n".join([*lines, *broken]) + "\n")


if __name__ == "__main__":
    main()
