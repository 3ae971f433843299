"""What a finished evaluation run shows to people: plain values that the report and the terminal summary are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys_spark.columns import CI_HIGH, CI_LOW, METRIC, MODEL, NUM_USERS, SLICE, TASK, VALUE, K
from recsys_spark.evaluation.significance import Comparison

BASELINE = "popular"
"""The model that every other one is divided by."""

ALL_USERS = "all"
"""The slice that leaves nobody out."""


CATEGORY_SLICE = "category:"
"""How the names of slices by category begin."""


class Measured(NamedTuple):
    """A metric with its interval over users; metrics of a whole set of lists (coverage, gini) have none."""

    value: float
    low: float | None
    high: float | None
    num_users: int


MetricKey = tuple[str, str, str, str, int]
"""Task, model, slice, metric, k."""


def index_metrics(metrics_pdf: pd.DataFrame) -> dict[MetricKey, Measured]:
    """Look-up of the metrics frame, in its order. Rows without a value (a slice without users) are left out."""
    found: dict[MetricKey, Measured] = {}
    for row in metrics_pdf.to_dict("records"):
        if pd.isna(row[VALUE]):
            continue
        key = (str(row[TASK]), str(row[MODEL]), str(row[SLICE]), str(row[METRIC]), int(row[K]))
        has_interval = pd.notna(row[CI_LOW]) and pd.notna(row[CI_HIGH])
        low, high = (float(row[CI_LOW]), float(row[CI_HIGH])) if has_interval else (None, None)
        found[key] = Measured(float(row[VALUE]), low, high, int(row[NUM_USERS]))
    return found


def models_of(metrics: Mapping[MetricKey, Measured], task: str) -> list[str]:
    """The models that were measured on a task, in the order of the frame."""
    return list(dict.fromkeys(key[1] for key in metrics if key[0] == task))


def ratio_to_baseline(metrics: Mapping[MetricKey, Measured], task: str, model: str, k: int) -> float | None:
    """Ndcg divided by the baseline's on the same users; None without a baseline or where the baseline scores 0."""
    mine, base = (metrics.get((task, name, ALL_USERS, "ndcg", k)) for name in (model, BASELINE))
    return mine.value / base.value if mine and base and base.value > 0 else None


@dataclass(frozen=True)
class Tail:
    """Where the lists of one model on one task lie between popular and rare items."""

    head_share: float
    """Share of the list places that items of the slice head_items take."""
    popularity: NDArray[np.float64]
    """Points (share of all interactions, share of all list places) of the most popular items, more and more of them."""
    coverage: NDArray[np.float64]
    """Coverage of the top 1, 2, ... of the lists."""


@dataclass(frozen=True)
class Categories:
    """Categories in lists and in what users had."""

    had: dict[str, float]
    """The largest categories -> their share of all interactions."""
    listed: dict[tuple[str, str], dict[str, float]]
    """(task, model) -> the same categories' shares of all list places."""
    curves: dict[tuple[str, str], NDArray[np.float64]]
    """(task, model) -> points (mean share of a category in users' pasts, mean share in their lists), by tenths of the first."""


@dataclass(frozen=True)
class ListedItem:
    """One place of a recommended list."""

    item_id: str
    label: str
    score: float
    is_hit: bool
    """True when the user had the item in the truth period."""


@dataclass(frozen=True)
class ExampleUser:
    """One user's past beside what the models listed."""

    user_id: str
    history: tuple[tuple[str, int], ...]
    """Label and times before the cutoff, most first."""
    lists: dict[tuple[str, str], tuple[ListedItem, ...]]
    """(task, model) to the top items, best first."""
    truth: dict[str, tuple[str, ...]]
    """Task to the labels of what came afterwards."""


@dataclass(frozen=True)
class RunResults:
    """Everything that the report shows. Empty parts are allowed: their sections are left out."""

    title: str
    notices: tuple[str, ...]
    """What a reader must know first: licence of the data, simulated data, a fallback that was used."""
    run_date: date
    """The cutoff: models learned from the days before it."""
    truth_end: date
    """The first day that is no longer truth."""
    protocol: str
    conservation: dict[str, dict[str, float]]
    """Feed name to the counts of data/outcome.py bucket_counts, plus `read`."""
    events_per_day: tuple[tuple[date, int], ...]
    metrics_pdf: pd.DataFrame
    """Columns task model slice metric k value ci_low ci_high num_users; tasks and models are shown in its order."""
    item_event_counts: NDArray[np.int64]
    """Events per item before the cutoff, any order."""
    list_counts: dict[tuple[str, str], NDArray[np.int64]]
    """(task, model) to how often each recommended item is listed, any order."""
    example: ExampleUser | None
    config_yaml: str
    table_versions: dict[str, int]
    timings: dict[str, float]
    """Step to seconds."""
    confidence: float = 0.95
    """Level of the intervals."""
    k: int | None = None
    """The list length that comparisons and plots are about: the first of the measured ones. Null: 10, or the shortest."""
    comparisons: dict[str, list[Comparison]] = field(default_factory=dict)
    """Task -> every pair of models, by ndcg at k."""
    tails: dict[tuple[str, str], Tail] = field(default_factory=dict)
    """(task, model) -> how popular its lists are."""
    categories: Categories | None = None
    """Null where items have no categories."""
