"""The whole line, from raw logs to metrics, on 1, 3 and 10 times the demo's data: seconds per step and peak memory.

Every copy of the year has households and baskets of its own, on the same days: events, users and interactions grow. The catalogue
does not (interactions.min_item_events grows along), so that popularity's metrics are the same at every scale, which shows that the
same work was done. With --products every copy has products of its own, too, and the catalogue grows along. Each scale runs in a
process of its own. Writes benchmarks/results/growth.json (with --products growth_products.json; other scales of an earlier run stay)
and draws docs/scaling.svg from the first.

Usage: .venv/bin/python benchmarks/bench_growth.py [--scales 1 3 10] [--sample 1.0] [--products] [--draw]
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from measure import PeakMemory, hardware, versions

from recsys_spark.config import Config
from recsys_spark.config_file import conf_folder, load_config
from recsys_spark.demo_data import write_demo_data
from recsys_spark.infra import table_files, tables
from recsys_spark.infra.session import build_session
from recsys_spark.main_job import run_main_job

RESULTS = Path(__file__).parent / "results"
PLOT = Path(__file__).parents[1] / "docs" / "scaling.svg"
TABLES = (
    "events",
    "interactions",
    "user_index",
    "item_index",
    "user_vectors",
    "item_vectors",
    "item_neighbours",
    "recommendations",
)
# beyond the ids of the data, so that copies never meet
HOUSEHOLDS_APART, PRODUCTS_APART = 10**6, 10**9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scales", type=int, nargs="+", default=[1, 3, 10])
    parser.add_argument("--sample", type=float, default=1.0, help="share of the demo's households in every copy")
    parser.add_argument("--products", action="store_true", help="every copy has products of its own")
    parser.add_argument("--draw", action="store_true", help="only draw the plot from the results that are there")
    parser.add_argument("--one", metavar="FOLDER", help="run the line once in this process and print the figures")
    parser.add_argument("--min-item-events", type=int, default=5)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_line(Path(options.one), options.min_item_events)))
        return
    path = RESULTS / ("growth_products.json" if options.products else "growth.json")
    if not options.draw:
        measure_scales(path, options)
    if not options.products and options.sample == 1:
        draw(json.loads(path.read_text()), PLOT)


def measure_scales(path: Path, options: argparse.Namespace) -> None:
    facts = {
        "hardware": hardware(),
        "versions": versions("pyspark", "delta-spark", "mlflow", "numpy"),
        "sample": options.sample,
    }
    before = json.loads(path.read_text()) if path.exists() else {}
    same = all(before.get(name) == value for name, value in facts.items())
    report = {**facts, "scales": before["scales"] if same else {}}
    root = Path(tempfile.mkdtemp(prefix="bench_growth_"))
    try:
        write_demo_data(root / "once", options.sample)
        for scale in options.scales:
            folder = root / str(scale)
            write_copies(root / "once", folder / "raw", scale, options.products)
            min_item_events = 5 if options.products else 5 * scale  # 5: conf/demo.yaml
            command = [sys.executable, __file__, "--one", str(folder), "--min-item-events", str(min_item_events)]
            found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            report["scales"][str(scale)] = json.loads(found.stdout.strip().splitlines()[-1])
            print(scale, report["scales"][str(scale)], flush=True)
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(report, indent=1) + "\n")
            shutil.rmtree(folder)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def write_copies(once: Path, target: Path, copies: int, own_products: bool) -> None:
    """Write each day's lines so many times into one file, the copies with ids of their own."""
    for feed in ("events", "items"):
        (target / feed).mkdir(parents=True)
        for source in sorted((once / feed).iterdir()):
            text = source.read_text(encoding="utf-8")
            with (target / feed / source.name).open("w", encoding="utf-8") as file:
                for copy in range(copies if feed == "events" or own_products else 1):
                    file.write(renamed(text, copy, own_products))


def renamed(lines: str, copy: int, own_products: bool) -> str:
    """Give the lines with household and basket numbers of their own, and with product numbers where asked."""
    if copy == 0:
        return lines
    lines = re.sub(r'("household":)(\d+)', lambda found: f"{found[1]}{int(found[2]) + copy * HOUSEHOLDS_APART}", lines)
    lines = re.sub(r'("basket":")', rf"\g<1>{copy}-", lines)
    if own_products:
        lines = re.sub(
            r'("product":"?)(\d+)', lambda found: f"{found[1]}{int(found[2]) + copy * PRODUCTS_APART}", lines
        )
    return lines


def run_line(folder: Path, min_item_events: int) -> dict[str, object]:
    paths = [f"data_root={folder}/root", *[f"sources.{feed}.path={folder}/raw/{feed}" for feed in ("events", "items")]]
    config = load_config(
        conf_folder() / "demo.yaml",
        [*paths, "evaluation.example_user=", f"interactions.min_item_events={min_item_events}"],
    )
    with PeakMemory() as memory:
        start = time.perf_counter()
        spark = build_session(config)
        results = run_main_job(spark, config)
        total = time.perf_counter() - start
        rows = {name: _count(spark, config, name) for name in TABLES}
        size = {name: table_files.table_facts(spark, config, name).size_bytes for name in TABLES}
    spark.stop()
    measured = results.metrics_pdf.query("slice == 'all' and metric == 'ndcg' and k == 10").to_dict("records")
    return {
        "rows": rows,
        "table_mb": {name: round(found / 1e6, 2) for name, found in size.items()},
        "seconds": {step: round(value, 1) for step, value in results.timings.items()},
        "seconds_total": round(total, 1),
        "peak_memory_gb": round(memory.peak / 1e9, 2),
        "ndcg_at_10": {f"{row['task']}.{row['model']}": round(row["value"], 4) for row in measured},
    }


def _count(spark, config: Config, name: str) -> int:
    return tables.read_table(spark, config, name, made_by="main_job").count()


def draw(report: dict, path: Path) -> None:
    """Seconds of every step over the events, both logarithmic; the dashed line is exactly proportional to the first total."""
    scales = sorted(report["scales"], key=int)
    found = [report["scales"][scale] for scale in scales]
    events = [entry["rows"]["events"] / 1e6 for entry in found]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "growth", "font.size": 9}):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.plot(events, [entry["seconds_total"] for entry in found], "o-", color="black", linewidth=2, label="all")
        steps = sorted(found[-1]["seconds"], key=lambda step: -found[-1]["seconds"][step])
        for step in steps:
            axes.plot(events, [entry["seconds"][step] for entry in found], "o-", linewidth=1, markersize=3, label=step)
        proportional = [found[0]["seconds_total"] * one / events[0] for one in events]
        axes.plot(events, proportional, "--", color="grey", linewidth=1, label="proportional")
        axes.set(xscale="log", yscale="log", xlabel="million events", ylabel="seconds")
        axes.set_xticks(events, [f"{one:.1f}\n({scale}x)" for one, scale in zip(events, scales, strict=True)])
        axes.minorticks_off()
        figure.legend(loc="outside right upper", frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
