"""The HTML report of an evaluation run: one file that needs no network, for a screen, a phone or paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from recsys_spark.columns import READ, Bucket, Task
from recsys_spark.evaluation import report_plots as plots
from recsys_spark.evaluation.run_results import (
    ALL_USERS,
    BASELINE,
    CATEGORY_SLICE,
    ExampleUser,
    Measured,
    MetricKey,
    RunResults,
    index_metrics,
    models_of,
    ratio_to_baseline,
)
from recsys_spark.evaluation.significance import Comparison, best_models, verdict

WANTED_K = 10
"""List length of the comparison; the shortest measured one where there is no 10."""

RANKING_METRICS = ("ndcg", "hr", "recall", "map", "coverage", "novelty")
NO_BEST = ("novelty", "diversity", "gini", "miscalibration")
"""Metrics that describe lists: more is not better, so no value of theirs is bold."""

SLICES = {
    ALL_USERS: ("Everyone", "with anything in the truth period"),
    "warm_users": ("Known users", "with interactions before the cutoff"),
    "heavy_users": ("Heavy users", "the known users with the most interactions"),
    "new_users": ("New users", "known users who came shortly before the cutoff"),
    "cold_users": ("Unknown users", "without interactions before the cutoff"),
    "warm_items": ("Known items", "truth cut down to items of the catalogue"),
    "head_items": ("Popular items", "known items that together drew the first part of all interactions"),
    "tail_items": ("Long tail", "all other known items"),
    "cold_items": ("Unknown items", "items that nobody had before the cutoff"),
}
"""Slice -> its name, and what it holds; slices by category follow them."""
VERDICTS = {1: "above", 0: "not shown", -1: "below", None: ""}
"""How a model stands to popular; `significance.verdict` -> word."""
BUCKETS = {
    Bucket.INSERTED: "new rows of the table",
    Bucket.UPDATED: "newer versions of rows that were there",
    Bucket.DUPLICATE: "delivered before, under the same id",
    Bucket.NEAR_DUPLICATE: "the same user, item and action again within moments",
    Bucket.LATE: "older at delivery than duplicates can be looked up",
    Bucket.FILTERED: "left out by a rule with a name",
    Bucket.QUARANTINED: "not readable; kept as they came, with the reason",
}
TASKS = {
    Task.NEXT: "what users take next; items they had may come again",
    Task.DISCOVERY: "items the user never had before",
}


def render_report(results: RunResults) -> str:
    """Give the report as one HTML document. The same results give the same text."""
    metrics = index_metrics(results.metrics_pdf)
    ks = sorted({key[4] for key in metrics})
    k = results.k or (WANTED_K if WANTED_K in ks else ks[0] if ks else WANTED_K)
    names = dict.fromkeys(key[1] for key in metrics) | dict.fromkeys(model for _, model in results.list_counts)
    styles = {model: plots.line_style(place) for place, model in enumerate(name for name in names if name != BASELINE)}
    context = {
        "results": results,
        "k": k,
        "tasks": [_task_view(results, metrics, task, k, styles) for task in dict.fromkeys(key[0] for key in metrics)],
        "feeds": [_feed_view(name, counts) for name, counts in results.conservation.items()],
        "popularity_plot": plots.popularity_plot(results.item_event_counts),
        "days_plot": plots.days_plot(results),
        "baseline": BASELINE,
        "models": list(names),
        "tasks_of_example": _example_view(results.example) if results.example else [],
        "last_truth_day": results.truth_end - timedelta(days=1),
    }
    return _environment().get_template("report.html.j2").render(context)


def _environment() -> Environment:
    # The template's name ends in .j2, which jinja's guess by extension would not escape.
    loader = PackageLoader("recsys_spark.evaluation", package_path="")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["metric"] = plots.format_metric
    environment.filters["share"] = _format_share
    return environment


def _format_share(share: float) -> str:
    """A percentage that never rounds something to nothing."""
    return "< 0.01 %" if 0 < share < 0.0001 else f"{share:.2%}".replace("%", " %")


def _feed_view(name: str, counts: Mapping[str, float]) -> dict[str, Any]:
    read = counts.get(READ, 0)
    shown = [bucket for bucket in BUCKETS if counts.get(bucket, 0) or bucket == Bucket.INSERTED]
    buckets: list[dict[str, Any]] = []
    for bucket in shown:
        parts = [(key.split(".", 1)[1], lines) for key, lines in counts.items() if key.startswith(f"{bucket}.")]
        # The largest reason first; equal ones by name.
        reasons = sorted(parts, key=lambda part: (-part[1], part[0]))
        lines = counts.get(bucket, 0)
        buckets.append({"name": bucket, "meaning": BUCKETS[bucket], "lines": lines, "reasons": reasons})
    accounted = sum(bucket["lines"] for bucket in buckets)
    shares = ", ".join(f"{bucket['name']} {_format_share(bucket['lines'] / max(1, read))}" for bucket in buckets)
    return {"name": name, "read": read, "buckets": buckets, "missing": read - accounted, "label": shares}


def _task_view(
    results: RunResults,
    metrics: Mapping[MetricKey, Measured],
    task: str,
    k: int,
    styles: Mapping[str, plots.Style],
) -> dict[str, Any]:
    models = models_of(metrics, task)
    ranked = {model: found for model in models if (found := metrics.get((task, model, ALL_USERS, "ndcg", k)))}
    best_model = max(ranked, key=lambda model: ranked[model].value) if ranked else None
    names = list(dict.fromkeys((key[3], key[4]) for key in metrics if key[0] == task and key[2] == ALL_USERS))
    counts = {model: results.list_counts[task, model] for model in models if (task, model) in results.list_counts}
    tails = {model: results.tails[task, model] for model in models if (task, model) in results.tails}
    pairs = results.comparisons.get(task, [])
    best = best_models(pairs, results.confidence)
    return {
        "name": task,
        "meaning": TASKS.get(task, ""),
        "models": models,
        "comparison": _cells(metrics, task, models, [(ALL_USERS, metric, k) for metric in RANKING_METRICS]),
        "ratios": {model: ratio_to_baseline(metrics, task, model, k) for model in models},
        "best_model": best_model,
        "best": ranked[best_model] if best_model else None,
        "against_best": _against_best(models, pairs, best, results.confidence),
        "against_baseline": {model: VERDICTS[verdict(pairs, model, BASELINE, results.confidence)] for model in models},
        "pairs": sorted(pairs, key=lambda pair: pair.p_holm),
        "plot": plots.ranking_plot(ranked, best, task, k, results.confidence),
        "slices": _slice_rows(metrics, task, models, k),
        "all_names": names,
        "all_cells": _cells(metrics, task, models, [(ALL_USERS, metric, length) for metric, length in names]),
        "concentration": {model: plots.concentration(values) for model, values in counts.items() if values.sum()},
        "head_shares": {model: tail.head_share for model, tail in tails.items()},
        "concentration_plot": plots.concentration_plot(counts, results.item_event_counts, task, styles),
        "bias_plot": plots.bias_plot(tails, task, styles),
        "coverage_plot": plots.coverage_plot(tails, task, styles),
        **_category_plots(results, task, models, styles),
    }


def _against_best(
    models: Sequence[str], pairs: Sequence[Comparison], best: Sequence[str], confidence: float
) -> dict[str, str]:
    """Model -> "best", or whether it was shown to be below the best: "yes", "not shown"; empty without comparisons."""
    if not best:
        return {}
    shown = {model: verdict(pairs, model, best[0], confidence) for model in models}
    return {model: "best" if model == best[0] else "yes" if shown[model] == -1 else "not shown" for model in models}


def _category_plots(
    results: RunResults, task: str, models: Sequence[str], styles: Mapping[str, plots.Style]
) -> dict[str, Any]:
    if results.categories is None:
        return {"calibration_plot": None, "categories_plot": None}
    curves, listed = results.categories.curves, results.categories.listed
    return {
        "calibration_plot": plots.calibration_plot(
            {model: curves[task, model] for model in models if (task, model) in curves}, task, styles
        ),
        "categories_plot": plots.categories_plot(
            results.categories.had,
            {model: listed[task, model] for model in models if (task, model) in listed},
            task,
            styles,
        ),
    }


def _slice_rows(
    metrics: Mapping[MetricKey, Measured], task: str, models: Sequence[str], k: int
) -> list[dict[str, Any]]:
    """One row per slice, in the order of SLICES, with a cell per model; nothing when there is only everyone."""
    found = dict.fromkeys(key[2] for key in metrics if key[0] == task)
    by_category = [name for name in found if name.startswith(CATEGORY_SLICE)]
    names = [name for name in (*SLICES, *by_category) if name in found]
    cells = _cells(metrics, task, models, [(name, "ndcg", k) for name in names])
    rows = []
    for place, name in enumerate(names):
        title, meaning = SLICES.get(name, (name.removeprefix(CATEGORY_SLICE), "a category of items"))
        users = _users_of(metrics, task, name, k)
        rows.append(
            {"title": title, "meaning": meaning, "users": users, "cells": [cells[model][place] for model in models]}
        )
    return rows if names != [ALL_USERS] else []


def _users_of(metrics: Mapping[MetricKey, Measured], task: str, slice_name: str, k: int) -> str:
    """How many users a slice has: one number, since every model is measured on all of them."""
    wanted = (task, slice_name, "ndcg", k)
    counts = {found.num_users for (name, _, *rest), found in metrics.items() if (name, *rest) == wanted}
    return " or ".join(f"{count:,}" for count in sorted(counts))


def _example_view(example: ExampleUser) -> list[dict[str, Any]]:
    views = []
    for task in dict.fromkeys(task for task, _ in example.lists):
        lists = {model: items for (name, model), items in example.lists.items() if name == task}
        hits = {model: sum(item.is_hit for item in items) for model, items in lists.items()}
        length = max(map(len, lists.values()))
        views.append({"name": task, "models": list(lists), "lists": lists, "hits": hits, "length": length})
    return views


def _cells(
    metrics: Mapping[MetricKey, Measured], task: str, models: Sequence[str], columns: Sequence[tuple[str, str, int]]
) -> dict[str, list[dict[str, Any]]]:
    """Model to its row of cells. The best of a column is marked, all of them when several are equally good."""
    rows: dict[str, list[dict[str, Any]]] = {model: [] for model in models}
    for slice_name, metric, k in columns:
        column = {model: metrics.get((task, model, slice_name, metric, k)) for model in models}
        highest = max((found.value for found in column.values() if found), default=0.0)
        is_contest = len(models) > 1 and highest > 0 and metric not in NO_BEST
        for model, found in column.items():
            is_best = is_contest and found is not None and found.value == highest
            rows[model].append({"metric": metric, "k": k, "found": found, "is_best": is_best})
    return rows
