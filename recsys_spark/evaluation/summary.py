"""An evaluation run as text for a terminal: at most 100 columns wide, no colours."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

import pandas as pd

from recsys_spark.evaluation.run_results import (
    ALL_USERS,
    BASELINE,
    ExampleUser,
    ListedItem,
    Measured,
    MetricKey,
    index_metrics,
    models_of,
    ratio_to_baseline,
)
from recsys_spark.evaluation.significance import Comparison, best_models, verdict

BASELINE_MARKS = {1: "+", -1: "-", 0: " ", None: " "}
MODEL_WIDTH = 20
SIDE_WIDTH = 48  # two sides and the bar between them make 99 columns


def metrics_table(
    metrics_pdf: pd.DataFrame,
    task: str,
    k: int = 10,
    comparisons: Sequence[Comparison] = (),
    confidence: float = 0.95,
) -> str:
    """Give one line per model, in the frame's order: values ± half the width of their intervals.

    The last column is ndcg as a multiple of popular's; columns without any value are left out. With comparisons (by ndcg at
    k), marks that a last line explains say which models were not shown to be below the best, and which to differ from popular.
    """
    metrics = index_metrics(metrics_pdf)
    models = models_of(metrics, task)
    if not any((task, model, ALL_USERS, "ndcg", k) in metrics for model in models):
        return f"{task}: nothing measured at k = {k}"
    header = ["model", f"ndcg@{k}", f"hr@{k}", f"recall@{k}", "coverage", f"x {BASELINE}"]
    rows = [_model_cells(metrics, task, model, k) for model in models]
    legend = []
    if comparisons:
        best = best_models(comparisons, confidence)
        for model, cells in zip(models, rows, strict=True):
            cells[1] += " *" if model in best else "  "
            cells[-1] += f" {BASELINE_MARKS[verdict(comparisons, model, BASELINE, confidence)]}"
        header[1], header[-1] = header[1] + "  ", header[-1] + "  "
        against_baseline = f"; + - shown to be above or below {BASELINE}" if BASELINE in models else ""
        legend = [f"* best, or not shown to be below it{against_baseline} ({confidence:.0%}, Holm)"]
    kept = [
        place for place, cells in enumerate(zip(*rows, strict=True)) if place == 0 or {*map(str.strip, cells)} != {"-"}
    ]
    table = _table([[row[place] for place in kept] for row in [header, *rows]])
    return "\n".join([f"{task}, k = {k}, {_users(metrics, task, k)}", table, *legend])


def all_metrics_table(metrics_pdf: pd.DataFrame, task: str) -> str:
    """Give every metric of all users: metrics down, models across."""
    metrics = index_metrics(metrics_pdf)
    models = models_of(metrics, task)
    names = dict.fromkeys((key[3], key[4]) for key in metrics if key[0] == task and key[2] == ALL_USERS)
    rows = [
        [f"{name}@{k}", *(_value(metrics.get((task, model, ALL_USERS, name, k))) for model in models)]
        for name, k in names
    ]
    return _table([["metric", *(_cut(model, MODEL_WIDTH) for model in models)], *rows])


def slices_table(metrics_pdf: pd.DataFrame, task: str, k: int) -> str:
    """Give ndcg at k of every slice: slices down, models across."""
    metrics = index_metrics(metrics_pdf)
    models = models_of(metrics, task)
    header = [f"ndcg@{k} by slice", "users", *(_cut(model, MODEL_WIDTH) for model in models)]
    rows = []
    for name in dict.fromkeys(key[2] for key in metrics if key[0] == task):
        found = [metrics.get((task, model, name, "ndcg", k)) for model in models]
        num_users = next((measured.num_users for measured in found if measured), 0)
        rows.append([_cut(name, SIDE_WIDTH), f"{num_users:,}", *map(_value, found)])
    return _table([header, *rows])


def example_table(example: ExampleUser, task: str, model: str, k: int = 10) -> str:
    """Give two columns: what the user had most, and the model's top k with * at what came true. Long labels are cut."""
    listed = example.lists.get((task, model), ())[:k]
    had = [f"{times:,} x {label}" for label, times in example.history[:k]] or ["nothing before the cutoff"]
    recommended = [_list_line(rank, item) for rank, item in enumerate(listed, start=1)] or ["no list"]
    num_hits = sum(item.is_hit for item in listed)
    title = f"{task}, {model}: {num_hits} of {len(listed)} came true (*)"
    left = [f"user {example.user_id} had most", *had]
    right = [title, *recommended]
    height = max(len(left), len(right))
    left, right = ([*side, *[""] * (height - len(side))] for side in (left, right))
    return "\n".join(_side_by_side(left, right))


def _model_cells(metrics: Mapping[MetricKey, Measured], task: str, model: str, k: int) -> list[str]:
    ratio = ratio_to_baseline(metrics, task, model, k)
    values = (metrics.get((task, model, ALL_USERS, metric, k)) for metric in ("ndcg", "hr", "recall", "coverage"))
    return [_cut(model, MODEL_WIDTH), *map(_number, values), "-" if ratio is None else f"{ratio:.2f}"]


def _value(measured: Measured | None) -> str:
    return "-" if measured is None else f"{measured.value:.4f}"


def _number(measured: Measured | None) -> str:
    if measured is None:
        return "-"
    if measured.low is None or measured.high is None:
        return f"{measured.value:.4f}"
    return f"{measured.value:.4f} ± {(measured.high - measured.low) / 2:.4f}"


def _users(metrics: Mapping[MetricKey, Measured], task: str, k: int) -> str:
    wanted = (task, ALL_USERS, "ndcg", k)
    counts = [found.num_users for (name, _, *rest), found in metrics.items() if (name, *rest) == wanted]
    few, many = min(counts), max(counts)
    return f"{many:,} users" if few == many else f"{few:,} to {many:,} users"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(_columns(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(_join_cells(row, widths).rstrip() for row in rows)


def _join_cells(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Names to the left, numbers to the right."""
    padded = [
        _pad(cells[0], widths[0]),
        *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)),
    ]
    return "  ".join(padded)


def _list_line(rank: int, item: ListedItem) -> str:
    return f"{rank:>2} {'*' if item.is_hit else ' '} {item.label}"


def _side_by_side(left: Sequence[str], right: Sequence[str]) -> list[str]:
    width = min(SIDE_WIDTH, max(_columns(line) for line in left))
    return [
        f"{_pad(_cut(mine, width), width)} | {_cut(other, SIDE_WIDTH)}".rstrip()
        for mine, other in zip(left, right, strict=True)
    ]


def _cut(text: str, width: int) -> str:
    """Text in at most `width` columns. Item titles come from outside: what could steer a terminal becomes a space."""
    clean = "".join(char if char.isprintable() else " " for char in text)
    if _columns(clean) <= width:
        return clean
    while _columns(clean) > width - 1:
        clean = clean[:-1]
    return clean.rstrip() + "…"


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _columns(text))


def _columns(text: str) -> int:
    """Columns of a terminal: Chinese, Japanese and Korean characters take two, combining marks none."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else not unicodedata.combining(char) for char in text)
