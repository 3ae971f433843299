"""The plots of the report: inline SVG whose colours are CSS variables, so that they follow the page's light or dark theme."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, timedelta
from functools import partial
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from recsys_spark.evaluation.run_results import BASELINE, Measured, RunResults, Tail

INK, MUTED, GRID, PAPER = "#1f2328", "#667085", "#e4e7ec", "#fffffe"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#b0578d", "#b87d00", "#3f4a8a")
"""After Okabe and Ito's colour-blind-safe palette, darkened where it is too pale for white paper."""
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
CSS_COLOURS = {
    INK: "var(--ink)", PAPER: "var(--paper)", MUTED: "var(--muted)", GRID: "var(--rule)",
    **{colour: f"var(--s{number})" for number, colour in enumerate(SERIES, start=1)},
}  # fmt: skip
MARKERS = ("o", "D", "s", "^", "v", "P")
PLOT_STYLE: Any = {  # matplotlib types the keys one by one
    "font.size": 9, "svg.fonttype": "none", "text.parse_math": False, "text.color": INK, "axes.labelcolor": MUTED,
    "xtick.color": MUTED, "ytick.color": MUTED, "axes.edgecolor": GRID, "axes.linewidth": 0.8, "grid.color": GRID,
    "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "xtick.major.size": 0, "ytick.major.size": 0, "xtick.minor.size": 0, "ytick.minor.size": 0, "legend.frameon": False,
}  # fmt: skip
PLOT_WIDTH = 4.4  # inches; makes letters of about 10 pixels on a phone, 14 on a desktop
MAX_POINTS = 200  # of a curve: more only make the file larger

Style = dict[str, Any]
"""Colour and line style of a model, as matplotlib's keywords."""
BASE_STYLE: Style = {"color": MUTED, "linestyle": "-"}


def format_metric(value: float, name: str = "") -> str:
    """Four decimals; novelty is in bits, where two are plenty."""
    return f"{value:.2f}" if name == "novelty" else f"{value:.4f}"


def concentration(values: NDArray[np.int64]) -> dict[str, float]:
    """Give how many items are listed, and the share of all places that the ten most listed take."""
    top = np.sort(values)[::-1]
    return {"items": int(np.count_nonzero(values)), "share": float(top[:10].sum() / top.sum())}


def line_style(place: int) -> Style:
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


def ranking_plot(
    ranked: Mapping[str, Measured], best: Collection[str], task: str, k: int, confidence: float
) -> Markup | None:
    """NDCG of every model with its interval; best names the models not shown to be below the highest."""
    if not ranked:
        return None
    values = ", ".join(f"{model} {format_metric(found.value)}" for model, found in ranked.items())
    alt = f"Dot plot of NDCG@{k} on the task {task}, with {confidence:.0%} intervals: {values}."
    return _plot(
        partial(_draw_ranking, ranked=ranked, best=best, k=k), 0.75 + 0.3 * len(ranked), f"ranking-{task}", alt
    )


def _draw_ranking(axes: Axes, ranked: Mapping[str, Measured], best: Collection[str], k: int) -> None:
    highest = max(found.value for found in ranked.values())
    if BASELINE in ranked:
        axes.axvline(ranked[BASELINE].value, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    for place, (model, found) in enumerate(ranked.items()):
        is_highest = found.value == highest > 0
        colour = SERIES[0] if is_highest or model in best else MUTED
        low, high = (found.value if end is None else end for end in (found.low, found.high))
        axes.plot([low, high], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
        fill = colour if is_highest or colour == MUTED else PAPER
        axes.plot([found.value], [place], "o", color=colour, markerfacecolor=fill, markersize=5, clip_on=False)
        text = format_metric(found.value)
        axes.annotate(text, (high, place), (7, 0), textcoords="offset points", va="center", fontsize=8, color=INK)
    axes.set_yticks(range(len(ranked)), list(ranked), color=INK)
    axes.set_ylim(len(ranked) - 0.5, -0.5)
    # From 0, so that distances are honest; the rest is room for the numbers.
    axes.set_xlim(0, (max(highest, *(found.high or 0 for found in ranked.values())) or 1) * 1.18)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"NDCG@{k}")


def popularity_plot(counts: NDArray[np.int64]) -> Markup | None:
    """Events of every item, most popular first, on logarithmic axes; null without events."""
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


def concentration_plot(
    counts: Mapping[str, NDArray[np.int64]], events: NDArray[np.int64], task: str, styles: Mapping[str, Style]
) -> Markup | None:
    """Share of the places of a task's lists that the most listed items take; null without lists."""
    listed = {model: np.sort(values)[::-1] for model, values in counts.items() if values.sum()}
    if not listed:
        return None
    tops = ", ".join(f"{model} {concentration(values)['share']:.0%}" for model, values in listed.items())
    alt = f"Share of all list places on the task {task} that the most listed items take; the ten most listed: {tops}."
    draw = partial(_draw_concentration, listed=listed, events=np.sort(events)[::-1], styles=styles)
    return _plot(draw, 3.3, f"concentration-{task}", alt)


def _draw_concentration(
    axes: Axes, listed: Mapping[str, NDArray[np.int64]], events: NDArray[np.int64], styles: Mapping[str, Style]
) -> None:
    if events.sum():
        places = _log_places(len(events))
        axes.fill_between(places, np.cumsum(events)[places - 1] / events.sum(), color=GRID, label="what users did")
    for model, values in listed.items():
        places = _log_places(len(values))
        style = styles.get(model, BASE_STYLE)
        marker = "o" if len(values) == 1 else ""
        shares = np.cumsum(values)[places - 1] / values.sum()
        axes.plot(places, shares, label=model, linewidth=1.8, marker=marker, **style)
    axes.set_xscale("log")
    _plain_decades(axes.xaxis)
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(_percent())
    axes.grid(axis="y")
    axes.set_xlabel("most listed items (number of items)")
    axes.set_ylabel("share of all list places")
    _legend_below(axes)


def bias_plot(tails: Mapping[str, Tail], task: str, styles: Mapping[str, Style]) -> Markup | None:
    """Share of list places against share of interactions of the most popular items: above the diagonal lists are more popular."""
    if not tails:
        return None
    shares = ", ".join(f"{model} {_share_at_half(tail.popularity):.0%}" for model, tail in tails.items())
    alt = f"Popularity bias on the task {task}: share of list places of the items that drew half of all interactions: {shares}."
    lines = {model: _thinned(tail.popularity) for model, tail in tails.items()}
    draw = partial(
        _draw_shares,
        lines=lines,
        styles=styles,
        names=("share of what users had, popular items first", "share of all list places"),
    )
    return _plot(draw, 3.5, f"bias-{task}", alt)


def coverage_plot(tails: Mapping[str, Tail], task: str, styles: Mapping[str, Style]) -> Markup | None:
    """Coverage of the top 1, 2, ... of the lists."""
    if not tails:
        return None
    ends = ", ".join(f"{model} {tail.coverage[-1]:.1%}" for model, tail in tails.items())
    length = max(len(tail.coverage) for tail in tails.values())
    alt = f"Share of the catalogue in anybody's list by list length on the task {task}; at length {length}: {ends}."
    return _plot(partial(_draw_coverage, tails=tails, styles=styles), 3.1, f"coverage-{task}", alt)


def calibration_plot(
    curves: Mapping[str, NDArray[np.float64]], task: str, styles: Mapping[str, Style]
) -> Markup | None:
    """Mean share of a category in lists against its share in the same users' pasts, by tenths of the latter."""
    if not curves:
        return None
    ends = ", ".join(f"{model} {points[-1, 1]:.0%}" for model, points in curves.items())
    top = max(float(points[-1, 0]) for points in curves.values())
    alt = f"Calibration on the task {task}: of categories that fill {top:.0%} of a user's past, lists hold on average: {ends}."
    names = ("share of a category in what a user had", "its share of the user's list")
    return _plot(
        partial(_draw_shares, lines=curves, styles=styles, names=names, marker="o"), 3.5, f"calibration-{task}", alt
    )


def categories_plot(
    had: Mapping[str, float], listed: Mapping[str, Mapping[str, float]], task: str, styles: Mapping[str, Style]
) -> Markup | None:
    """Shares of the largest categories in what users had (grey bars) and in each model's lists (dots)."""
    if not had or not listed:
        return None
    shares = ", ".join(f"{name} {share:.0%}" for name, share in had.items())
    alt = f"Shares of the largest categories in what users had ({shares}) and in the lists of each model on the task {task}."
    draw = partial(_draw_categories, had=had, listed=listed, styles=styles)
    return _plot(draw, 1.3 + 0.28 * len(had), f"categories-{task}", alt)


def _draw_shares(
    axes: Axes,
    lines: Mapping[str, NDArray[np.float64]],
    styles: Mapping[str, Style],
    names: tuple[str, str],
    marker: str = "",
) -> None:
    top = 1.02 * max(float(points.max(initial=0)) for points in lines.values())
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=3, solid_capstyle="butt")
    for model, points in lines.items():
        axes.plot(*points.T, label=model, linewidth=1.8, marker=marker, markersize=3.5, **styles.get(model, BASE_STYLE))
    axes.set_xlim(0, top)
    axes.set_ylim(0, top)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(_percent())
    axes.grid()
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    _legend_below(axes)


def _draw_coverage(axes: Axes, tails: Mapping[str, Tail], styles: Mapping[str, Style]) -> None:
    for model, tail in tails.items():
        lengths = np.arange(1, len(tail.coverage) + 1)
        marker = "o" if len(lengths) == 1 else ""
        axes.plot(lengths, tail.coverage, label=model, linewidth=1.8, marker=marker, **styles.get(model, BASE_STYLE))
    axes.set_ylim(0, 1.05 * max(0.01, *(float(tail.coverage.max()) for tail in tails.values())))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_formatter(_percent())
    axes.grid(axis="y")
    axes.set_xlabel("list length")
    axes.set_ylabel("share of the catalogue")
    _legend_below(axes)


def _draw_categories(
    axes: Axes, had: Mapping[str, float], listed: Mapping[str, Mapping[str, float]], styles: Mapping[str, Style]
) -> None:
    places = np.arange(len(had))
    axes.barh(places, list(had.values()), height=0.7, color=GRID, label="what users had")
    names = [BASELINE, *styles]  # a model keeps its marker from plot to plot
    for model, shares in listed.items():
        colour = styles.get(model, BASE_STYLE)["color"]
        marker = MARKERS[names.index(model) % len(MARKERS)]
        axes.plot(
            [shares[name] for name in had], places, marker, color=colour, markersize=5, label=model, clip_on=False
        )
    axes.set_yticks(places, [_shortened(name) for name in had], color=INK)
    axes.set_ylim(len(had) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(_percent())
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    _legend_below(axes)


def _legend_below(axes: Axes) -> None:
    figure = axes.get_figure()
    if figure is not None:
        figure.legend(loc="outside lower center", ncols=3, labelcolor=INK, fontsize=8.5, handlelength=2.6)


def _share_at_half(points: NDArray[np.float64]) -> float:
    return float(np.interp(0.5, points[:, 0], points[:, 1]))


def _thinned(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most MAX_POINTS of a curve's points, evenly spread over its first coordinate, with both ends."""
    places = np.searchsorted(points[:, 0], np.linspace(0, points[-1, 0], MAX_POINTS))
    return points[np.unique([0, *places, len(points) - 1])]


def _shortened(name: str, length: int = 22) -> str:
    return name if len(name) <= length else name[: length - 1].rstrip() + "…"


def _percent() -> FuncFormatter:
    """Shares as percentages with no more decimals than they need."""
    return FuncFormatter(lambda share, _: f"{round(100 * share, 6):g}%")


def _plain_decades(axis: Axis) -> None:
    """Label 1, 10, 100 ... of a logarithmic axis as people write them."""
    axis.set_major_formatter("{x:,.0f}")
    axis.set_minor_formatter(NullFormatter())


def _log_places(length: int) -> NDArray[np.int64]:
    """Ranks 1 .. length, evenly spread on a logarithmic axis."""
    return np.unique(np.geomspace(1, length, MAX_POINTS).round().astype(np.int64))


def days_plot(results: RunResults) -> Markup | None:
    """Events per day, coloured by what they were used for; null when no days are known."""
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
