"""The HTML report of an evaluation run: one file that needs no network, for a screen, a phone or paper.

Plots are inline SVG whose colours are CSS variables, so that they follow the light or dark theme of the page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from functools import partial
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter
from numpy.typing import NDArray

from recsys_spark.columns import Bucket, Task
from recsys_spark.evaluation.run_results import (
    ALL_USERS,
    BASELINE,
    ExampleUser,
    Measured,
    MetricKey,
    RunResults,
    index_metrics,
    models_of,
    ratio_to_baseline,
)

WANTED_K = 10
"""List length of the comparison; the shortest measured one where there is no 10."""

RANKING_METRICS = ("ndcg", "hr", "recall", "map", "coverage", "novelty")
NO_BEST = ("novelty", "diversity", "gini")
"""Metrics that describe lists: more is not better, so no value of theirs is bold."""

SLICES = {
    ALL_USERS: "Everyone",
    "warm_users": "Known users",
    "cold_users": "New users",
    "warm_items": "Known items",
    "cold_items": "New items",
}
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

INK, MUTED, GRID = "#1f2328", "#667085", "#e4e7ec"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#b0578d", "#b87d00", "#3f4a8a")
"""After Okabe and Ito's colour-blind-safe palette, darkened where it is too pale for white paper."""
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
CSS_COLOURS = {
    INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--rule)",
    **{colour: f"var(--s{number})" for number, colour in enumerate(SERIES, start=1)},
}  # fmt: skip
PLOT_STYLE: Any = {  # matplotlib types the keys one by one
    "font.size": 9, "svg.fonttype": "none", "text.parse_math": False, "text.color": INK, "axes.labelcolor": MUTED,
    "xtick.color": MUTED, "ytick.color": MUTED, "axes.edgecolor": GRID, "axes.linewidth": 0.8, "grid.color": GRID,
    "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "xtick.major.size": 0, "ytick.major.size": 0, "xtick.minor.size": 0, "ytick.minor.size": 0, "legend.frameon": False,
}  # fmt: skip
PLOT_WIDTH = 4.4  # inches; makes letters of about 10 pixels on a phone, 14 on a desktop
MAX_POINTS = 200  # of a curve: more only make the file larger


def render_report(results: RunResults) -> str:
    """Give the report as one HTML document. The same results give the same text."""
    metrics = index_metrics(results.metrics_pdf)
    ks = sorted({key[4] for key in metrics})
    k = WANTED_K if WANTED_K in ks else ks[0] if ks else WANTED_K
    names = dict.fromkeys(key[1] for key in metrics) | dict.fromkeys(model for _, model in results.list_counts)
    styles = {model: _line_style(place) for place, model in enumerate(name for name in names if name != BASELINE)}
    context = {
        "results": results,
        "k": k,
        "tasks": [_task_view(results, metrics, task, k, styles) for task in dict.fromkeys(key[0] for key in metrics)],
        "feeds": [_feed_view(name, counts) for name, counts in results.conservation.items()],
        "popularity_plot": _popularity_plot(results.item_event_counts),
        "days_plot": _days_plot(results),
        "baseline": BASELINE,
        "slice_titles": SLICES,
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
    environment.filters["metric"] = _format_metric
    environment.filters["share"] = _format_share
    return environment


def _format_metric(value: float, name: str = "") -> str:
    """Four decimals; novelty is in bits, where two are plenty."""
    return f"{value:.2f}" if name == "novelty" else f"{value:.4f}"


def _format_share(share: float) -> str:
    """A percentage that never rounds something to nothing."""
    return "< 0.01 %" if 0 < share < 0.0001 else f"{share:.2%}".replace("%", " %")


def _feed_view(name: str, counts: Mapping[str, float]) -> dict[str, Any]:
    read = counts.get("read", 0)
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
    styles: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    models = models_of(metrics, task)
    ranked = {model: found for model in models if (found := metrics.get((task, model, ALL_USERS, "ndcg", k)))}
    best_model = max(ranked, key=lambda model: ranked[model].value) if ranked else None
    names = list(dict.fromkeys((key[3], key[4]) for key in metrics if key[0] == task and key[2] == ALL_USERS))
    slices = [name for name in SLICES if any((task, model, name, "ndcg", k) in metrics for model in models)]
    counts = {model: results.list_counts[task, model] for model in models if (task, model) in results.list_counts}
    return {
        "name": task,
        "meaning": TASKS.get(task, ""),
        "models": models,
        "comparison": _cells(metrics, task, models, [(ALL_USERS, metric, k) for metric in RANKING_METRICS]),
        "ratios": {model: ratio_to_baseline(metrics, task, model, k) for model in models},
        "best_model": best_model,
        "best": ranked[best_model] if best_model else None,
        "plot": _ranking_plot(ranked, task, k, results.confidence),
        "slices": {name: _users_of(metrics, task, name, k) for name in slices} if slices != [ALL_USERS] else {},
        "slice_cells": _cells(metrics, task, models, [(name, "ndcg", k) for name in slices]),
        "all_names": names,
        "all_cells": _cells(metrics, task, models, [(ALL_USERS, metric, length) for metric, length in names]),
        "concentration": {model: _concentration(values) for model, values in counts.items() if values.sum()},
        "concentration_plot": _concentration_plot(counts, results.item_event_counts, task, styles),
    }


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


def _concentration(values: NDArray[np.int64]) -> dict[str, float]:
    top = np.sort(values)[::-1]
    return {"items": int(np.count_nonzero(values)), "share": float(top[:10].sum() / top.sum())}


def _line_style(place: int) -> dict[str, Any]:
    """Colour and dashes: models stay apart in grey print too, and the two repeat only together."""
    return {"color": SERIES[place % len(SERIES)], "linestyle": DASHES[place % len(DASHES)]}


def _plot(draw: Callable[[Axes], None], height: float, name: str, alt: str) -> Markup:
    """Inline SVG of one pair of axes; alt says in words what there is to see."""
    with rc_context(PLOT_STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=(PLOT_WIDTH, height), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    box = re.search(r'viewBox="[^"]+"', svg)
    # Without the header, metadata and style sheet meant for a file of its own, and without ids that repeat in each plot.
    body = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>", "", svg[svg.index(">", svg.index("<svg")) + 1 :], flags=re.DOTALL
    )
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    for colour, variable in CSS_COLOURS.items():
        body = body.replace(colour, variable)
    start = f'<svg {box[0] if box else ""} role="img" aria-label="{escape(alt)}">'
    return Markup(start + body)


def _ranking_plot(ranked: Mapping[str, Measured], task: str, k: int, confidence: float) -> Markup | None:
    if not ranked:
        return None
    values = ", ".join(f"{model} {_format_metric(found.value)}" for model, found in ranked.items())
    alt = f"Dot plot of NDCG@{k} on the task {task}, with {confidence:.0%} intervals: {values}."
    return _plot(partial(_draw_ranking, ranked=ranked, k=k), 0.75 + 0.3 * len(ranked), f"ranking-{task}", alt)


def _draw_ranking(axes: Axes, ranked: Mapping[str, Measured], k: int) -> None:
    highest = max(found.value for found in ranked.values())
    if BASELINE in ranked:
        axes.axvline(ranked[BASELINE].value, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    for place, found in enumerate(ranked.values()):
        colour = SERIES[0] if found.value == highest > 0 else MUTED
        low, high = (found.value if end is None else end for end in (found.low, found.high))
        axes.plot([low, high], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
        axes.plot([found.value], [place], "o", color=colour, markersize=5, clip_on=False)
        text = _format_metric(found.value)
        axes.annotate(text, (high, place), (7, 0), textcoords="offset points", va="center", fontsize=8, color=INK)
    axes.set_yticks(range(len(ranked)), list(ranked), color=INK)
    axes.set_ylim(len(ranked) - 0.5, -0.5)
    # From 0, so that distances are honest; the rest is room for the numbers.
    axes.set_xlim(0, (max(highest, *(found.high or 0 for found in ranked.values())) or 1) * 1.18)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"NDCG@{k}")


def _popularity_plot(counts: NDArray[np.int64]) -> Markup | None:
    events = np.sort(counts[counts > 0])[::-1]
    if not len(events):
        return None
    head = max(1, round(len(events) / 100))
    head_share = events[:head].sum() / events.sum()
    alt = (
        f"Events by item, most popular first, both axes logarithmic: {len(events):,} items had events, the most popular "
        f"{events[0]:,}, the one in the middle {int(np.median(events)):,}; the top 1 % drew {head_share:.0%} of all."
    )
    return _plot(partial(_draw_popularity, events=events), 2.9, "popularity", alt)


def _draw_popularity(axes: Axes, events: NDArray[np.int64]) -> None:
    places = _log_places(len(events))
    axes.loglog(places, events[places - 1], color=SERIES[0], linewidth=1.8, marker="o" if len(events) < 20 else "")
    for axis in (axes.xaxis, axes.yaxis):
        _plain_decades(axis)
    axes.grid()
    axes.set_xlabel("items, most popular first (rank)")
    axes.set_ylabel("events before the cutoff")


def _concentration_plot(
    counts: Mapping[str, NDArray[np.int64]], events: NDArray[np.int64], task: str, styles: Mapping[str, dict[str, Any]]
) -> Markup | None:
    listed = {model: np.sort(values)[::-1] for model, values in counts.items() if values.sum()}
    if not listed:
        return None
    tops = ", ".join(f"{model} {_concentration(values)['share']:.0%}" for model, values in listed.items())
    alt = f"Share of all list places on the task {task} that the most listed items take; the ten most listed: {tops}."
    draw = partial(_draw_concentration, listed=listed, events=np.sort(events)[::-1], styles=styles)
    return _plot(draw, 3.3, f"concentration-{task}", alt)


def _draw_concentration(
    axes: Axes, listed: Mapping[str, NDArray[np.int64]], events: NDArray[np.int64], styles: Mapping[str, dict[str, Any]]
) -> None:
    if events.sum():
        places = _log_places(len(events))
        axes.fill_between(places, np.cumsum(events)[places - 1] / events.sum(), color=GRID, label="what users did")
    for model, values in listed.items():
        places = _log_places(len(values))
        style = styles.get(model, {"color": MUTED, "linestyle": "-"})
        marker = "o" if len(values) == 1 else ""
        shares = np.cumsum(values)[places - 1] / values.sum()
        axes.plot(places, shares, label=model, linewidth=1.8, marker=marker, **style)
    axes.set_xscale("log")
    _plain_decades(axes.xaxis)
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="y")
    axes.set_xlabel("most listed items (number of items)")
    axes.set_ylabel("share of all list places")
    figure = axes.get_figure()
    if figure is not None:
        figure.legend(loc="outside lower center", ncols=3, labelcolor=INK, fontsize=8.5, handlelength=2.6)


def _plain_decades(axis: Axis) -> None:
    """Label 1, 10, 100 ... of a logarithmic axis as people write them."""
    axis.set_major_formatter("{x:,.0f}")
    axis.set_minor_formatter(NullFormatter())


def _log_places(length: int) -> NDArray[np.int64]:
    """Ranks 1 .. length, evenly spread on a logarithmic axis."""
    return np.unique(np.geomspace(1, length, MAX_POINTS).round().astype(np.int64))


def _days_plot(results: RunResults) -> Markup | None:
    if not results.events_per_day:
        return None
    # A day without events is a gap to be seen, not one to be closed.
    found = dict(results.events_per_day)
    first, last = min(found), max(found)
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    counts = [found.get(day, 0) for day in days]
    alt = (
        f"Events per day from {first} to {last}: {sum(counts):,} in all, at most {max(counts):,} a day. "
        f"Models learned from the days before the cutoff, {results.run_date}; truth ends before {results.truth_end}."
    )
    draw = partial(_draw_days, days=days, counts=counts, cutoff=results.run_date, truth_end=results.truth_end)
    return _plot(draw, 2.4, "days", alt)


def _draw_days(axes: Axes, days: Sequence[date], counts: Sequence[int], cutoff: date, truth_end: date) -> None:
    parts = (
        ("learned from", SERIES[0], [day < cutoff for day in days]),
        ("truth", SERIES[1], [cutoff <= day < truth_end for day in days]),
        ("not used", MUTED, [day >= truth_end for day in days]),
    )
    edges = date2num([*days, days[-1] + timedelta(days=1)])
    for label, colour, is_part in parts:
        if any(is_part):
            axes.stairs(np.where(is_part, counts, 0), edges, fill=True, color=colour, label=label, linewidth=0)
    axes.axvline(float(date2num(cutoff)), color=INK, linewidth=1, linestyle=(0, (3, 2)), label=f"cutoff {cutoff}")
    locator = AutoDateLocator(minticks=3, maxticks=7)  # a wish for 5 to 6 finds no unit for 2 to 3 years
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylim(0, max(1, *counts) * 1.05)
    axes.grid(axis="y")
    figure = axes.get_figure()
    if figure is not None:
        figure.legend(loc="outside upper left", ncols=4, labelcolor=INK, fontsize=8.5, handlelength=1.2)
