"""Everything that is measured of lists, in one call: what `evaluate` and `recsys evaluate` have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame

from recsys_spark.columns import MODEL, TASK
from recsys_spark.config_evaluation import EvaluationConfig
from recsys_spark.evaluation.evaluate import collect_lists, collect_pasts, metric_sums
from recsys_spark.evaluation.known import Known
from recsys_spark.evaluation.list_profile import (
    ListProfile,
    catalogue_rows,
    categories_of,
    list_profile,
    profiles,
    tails,
)
from recsys_spark.evaluation.run_results import Categories, Tail
from recsys_spark.evaluation.significance import Comparison
from recsys_spark.evaluation.slices import SliceLimits
from recsys_spark.evaluation.sums import METRIC_KEY, comparisons, with_intervals


@dataclass(frozen=True)
class Measurement:
    """What was measured, as plain values; keys are (task, model)."""

    metrics_pdf: pd.DataFrame
    """As in RunResults."""
    comparisons: dict[str, list[Comparison]]
    profiles: dict[tuple[str, str], ListProfile]
    tails: dict[tuple[str, str], Tail]
    """Empty when nothing is known of the time before."""
    categories: Categories | None

    def list_counts(self) -> dict[tuple[str, str], np.ndarray]:
        """Give how often each recommended item is listed."""
        return {key: profile.counts() for key, profile in self.profiles.items()}


@dataclass(frozen=True)
class Before:
    """What is known of the time before the cutoff."""

    interactions: DataFrame
    """user_id, item_id, one row a pair."""
    known: Known
    limits: SliceLimits
    larger_catalogues: Mapping[str, int] = field(default_factory=dict)
    """Model -> items that it can list, for models that list items nobody had, too."""


def measure(
    recommendations: DataFrame,
    truth: DataFrame,
    items: DataFrame,
    before: Before | None,
    order: Sequence[str],
    config: EvaluationConfig,
) -> Measurement:
    """Measure lists against truth; runs Spark jobs.

    Needs recommendations (task, model, user_id, item_id, rank), the outputs of `slice_truth` and `item_stats`, and the tasks
    and models in the order of the tables. Without a before there is neither coverage nor calibration, and novelty is 0.
    """
    known = before.known if before else None
    pasts = collect_pasts(before.interactions, items) if before and before.known.categories else None
    lists = collect_lists(recommendations, items)
    asked = recommendations.select(TASK, MODEL).distinct()
    sums_pdf = metric_sums(lists, truth, pasts, asked, config.k, known.num_users if known else 1).toPandas()
    larger = before.larger_catalogues if before else {}
    shapes = profiles(list_profile(recommendations, items, config.k[0], larger).toPandas())
    metrics_pdf = with_intervals(sums_pdf, config.confidence)
    if before and known:
        of_all_lists = catalogue_rows(shapes, len(known.item_users), config.k, larger)
        metrics_pdf = pd.concat([metrics_pdf, of_all_lists], ignore_index=True)
    return Measurement(
        metrics_pdf=_in_order(metrics_pdf, order),
        comparisons=comparisons(sums_pdf, list(order), config.confidence, config.num_resamples, config.seed),
        profiles=shapes,
        tails=tails(shapes, known.item_users, before.limits.head_from, max(config.k), larger)
        if before and known
        else {},
        categories=categories_of(shapes, known, sums_pdf) if known else None,
    )


def _in_order(metrics_pdf: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    places = {name: place for place, name in enumerate(order)}
    return metrics_pdf.sort_values(
        METRIC_KEY, key=lambda column: column.map(places) if column.name in (TASK, MODEL) else column, ignore_index=True
    )
