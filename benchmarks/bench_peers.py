"""The same models of RecTools and LensKit on MovieLens 1M, leave-last-out: quality, seconds and memory as ratios to ours.

Every run is a process of its own (peer_models.py): read the train part, train, make lists of 10 unseen films for all users,
write them. All lists are measured here by one set of metrics. Ours comes twice where both exist: `core` is the numeric code
that runs in our workers, called without Spark; `spark` is the product's pipelines on Delta tables in one machine's session,
the start of which is told apart. Seconds are those of training and of making lists, without imports; memory is the peak of
the whole process tree. The machine's cores are for all to use as they do by default.

- ease: one matrix, l2 = 400. Nothing is drawn, so all must agree. RecTools does not: it multiplies a user's films by the
  transposed weights, which `core transposed` shows.
- neighbours: cosine without shrinkage, the nearest 100 of each film, scores summed over the user's films.
- als: rank 64, 12 iterations, weight 1 + 3 of what was seen. Regularization means different things: MLlib scales it by a row's
  ratings, the others do not, so each library's own is chosen on validation data (each user's last but one film, trained
  without the last two) from a grid, with another seed than those reported.

Writes benchmarks/results/peers.json; models that are not run keep their figures. The peers live in an environment of their own:
  uv venv FOLDER && uv pip install --python FOLDER/bin/python rectools==0.19.0 lenskit==2025.8.1
Usage: .venv/bin/python benchmarks/bench_peers.py --data FOLDER_OF_ML_1M --peers FOLDER/bin/python [--models ease neighbours als] [--runs 3]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from measure import PeakMemory, hardware, versions
from published import TIE_ORDER, Split, evaluate_lists, leave_last_out, make_split, read_ratings

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "peers.json"
LIBRARIES = {
    "ease": ("core", "spark", "rectools", "lenskit", "core transposed"),
    "neighbours": ("core", "spark", "rectools", "lenskit"),
    "als": ("spark", "spark+implicit", "rectools", "lenskit"),
}
SETTINGS = {
    "ease": {"l2": 400},
    "neighbours": {"num_neighbours": 100, "shrink": 0.0},
    "als": {"rank": 64, "iterations": 12, "alpha": 3.0},
}
OWN_SETTINGS = {
    "spark": {"engine": "spark"}, "spark+implicit": {"engine": "implicit"}, "core transposed": {"transposed": True},
}  # fmt: skip
GRIDS = {
    "spark": (0.03, 0.1, 0.3),
    "spark+implicit": (0.03, 0.1, 0.3),
    "rectools": (1.0, 10.0, 30.0, 100.0),
    "lenskit": (1.0, 10.0, 30.0, 100.0),
}
TUNING_SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peers", required=True, help="interpreter of the environment with rectools and lenskit")
    parser.add_argument("--models", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--runs", type=int, default=3, help="of each library and model, with as many seeds")
    options = parser.parse_args()
    ratings = read_ratings(options.data)
    split = leave_last_out(ratings)
    report = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    report |= {
        "hardware": hardware(), "versions": {**versions("pyspark", "numpy", "scipy"), **_peer_versions(options.peers)},
        "protocol": "ml-1m, last film of each user held out, full ranking, seen films left out", "tie_order": TIE_ORDER,
        "users": len(split.user_ids), "items": len(split.item_ids), "train_rows": int(split.train.nnz),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="bench_peers_") as folder:
        for model in options.models:
            report[model] = compare(model, ratings, split, Path(folder), options.peers, options.runs)
            print(model, json.dumps(report[model]), flush=True)
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(report, indent=1) + "\n")


def compare(model: str, ratings: pd.DataFrame, split: Split, folder: Path, peers: str, runs: int) -> dict[str, object]:
    settings = {library: {**SETTINGS[model], **OWN_SETTINGS.get(library, {})} for library in LIBRARIES[model]}
    tuned: dict[str, object] = {}
    if model == "als":
        tuned = {library: tune(library, ratings, split, folder, peers) for library in settings}
        for library, found in tuned.items():
            settings[library]["regularization"] = found["chosen"]
    write_pairs(split, folder / "train.parquet")
    found = {library: [] for library in settings}
    for seed in range(1, runs + 1):
        for library, own in settings.items():  # in turns
            found[library].append(run(library, model, folder, {**own, "seed": seed}, split, peers))
            print(model, library, found[library][-1], flush=True)
    measured = {library: summarize(runs_of) for library, runs_of in found.items()}
    ours = measured[next(iter(measured))]
    for library, figures in measured.items():
        figures["seconds_ratio_to_ours"] = round(figures["seconds"] / ours["seconds"], 2)
        figures["memory_ratio_to_ours"] = round(figures["peak_memory_gb"] / ours["peak_memory_gb"], 2)
        figures["settings"] = settings[library]
    return {"ours": next(iter(measured)), "runs": runs, "libraries": measured, **({"tuning": tuned} if tuned else {})}


def tune(library: str, ratings: pd.DataFrame, split: Split, folder: Path, peers: str) -> dict[str, object]:
    """Choose the regularization by ndcg on each user's last but one film."""
    ordered = ratings.sort_values("timestamp", kind="stable")
    rest = ordered[ordered.duplicated("user_id", keep="last")]
    is_last = ~rest.duplicated("user_id", keep="last")
    validation = make_split(rest[~is_last], rest[is_last])
    write_pairs(validation, folder / "train.parquet")
    ndcg = {}
    for value in GRIDS[library]:
        settings = {**SETTINGS["als"], **OWN_SETTINGS.get(library, {}), "regularization": value, "seed": TUNING_SEED}
        ndcg[value] = run(library, "als", folder, settings, validation, peers)["ndcg"]
    print("tuned", library, ndcg, flush=True)
    return {"chosen": max(ndcg, key=ndcg.__getitem__), "validation_ndcg": ndcg}


def run(library: str, model: str, folder: Path, settings: dict, split: Split, peers: str) -> dict[str, float]:
    lists = folder / "lists.parquet"
    interpreter = peers if library in ("rectools", "lenskit") else sys.executable
    command = [
        interpreter,
        str(HERE / "peer_models.py"),
        library,
        model,
        str(folder / "train.parquet"),
        str(lists),
        json.dumps(settings),
    ]
    environment = (
        {**os.environ, "OPENBLAS_NUM_THREADS": "1"} if library == "rectools" and model == "als" else dict(os.environ)
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        with PeakMemory(process.pid, every_seconds=0.1) as memory:
            output, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{library} {model} ended with {process.returncode}")
    seconds = json.loads(output.strip().splitlines()[-1])
    values = evaluate_lists(pd.read_parquet(lists), split)
    lists.unlink()
    return {**values, **{f"seconds_{name}": value for name, value in seconds.items()},
            "seconds": round(seconds["fit"] + seconds["recommend"], 2), "peak_memory_gb": round(memory.peak / 1e9, 2)}  # fmt: skip


def summarize(runs: list[dict[str, float]]) -> dict[str, object]:
    """Means of the metrics, medians of the rest."""
    middle = {name: (statistics.mean if name in ("hr", "ndcg") else statistics.median) for name in runs[0]}
    figures = {
        name: round(of([run[name] for run in runs]), 5 if name in ("hr", "ndcg") else 2) for name, of in middle.items()
    }
    return {**figures, "hr_of_runs": [run["hr"] for run in runs], "ndcg_of_runs": [run["ndcg"] for run in runs]}


def write_pairs(split: Split, path: Path) -> None:
    pairs = split.train.tocoo()
    rows = {"user_id": split.user_ids[pairs.row], "item_id": np.array(split.item_ids, dtype=object)[pairs.col]}
    pd.DataFrame(rows).to_parquet(path)


def _peer_versions(peers: str) -> dict[str, str]:
    names = ("rectools", "lenskit", "pm-implicit", "torch")
    code = (
        f"import json; from importlib.metadata import version; print(json.dumps({{n: version(n) for n in {names!r}}}))"
    )
    return json.loads(subprocess.run([peers, "-c", code], check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
