"""What the driver makes of the collected sums of blocks.py: means with intervals, comparisons of models, calibration curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from recsys_spark.columns import CI_HIGH, CI_LOW, METRIC, MODEL, NUM_USERS, SLICE, TASK, VALUE, K
from recsys_spark.evaluation import metrics
from recsys_spark.evaluation.blocks import BUCKET, LIST_SHARE, NO_BUCKET, PAST_SHARE, TESTED
from recsys_spark.evaluation.run_results import ALL_USERS
from recsys_spark.evaluation.significance import Comparison, compare_models

METRIC_KEY = [TASK, MODEL, SLICE, METRIC, K]
_SUMS = ["users", "total", "squares"]


def with_intervals(sums_pdf: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Turn the sums into rows of value, ci_low, ci_high, num_users, one per task, model, slice, metric and k."""
    ordered = sums_pdf[~sums_pdf[METRIC].isin([PAST_SHARE, LIST_SHARE])].sort_values([*METRIC_KEY, BUCKET])
    rows = []
    for row in ordered.groupby(METRIC_KEY, as_index=False)[_SUMS].sum().to_dict("records"):
        summary = metrics.interval_from_moments(int(row["users"]), row["total"], row["squares"], confidence)
        key = [row[name] for name in METRIC_KEY]
        rows.append((*key, summary.mean, summary.low, summary.high, summary.num_users))
    return pd.DataFrame(rows, columns=[*METRIC_KEY, VALUE, CI_LOW, CI_HIGH, NUM_USERS])


def comparisons(
    sums_pdf: pd.DataFrame, models: list[str], confidence: float, num_resamples: int, seed: int
) -> dict[str, list[Comparison]]:
    """Compare the models of each task, in the order given, by ndcg at the first k on all users.

    Tasks with fewer than two models, or with all users in one group, have nothing to compare and are left out.
    """
    tested = sums_pdf[(sums_pdf[METRIC] == TESTED) & (sums_pdf[SLICE] == ALL_USERS) & (sums_pdf[BUCKET] != NO_BUCKET)]
    found = {}
    for task, rows in tested.groupby(TASK, sort=False):
        totals = rows.pivot(index=BUCKET, columns=MODEL, values="total").sort_index()
        num_users = rows.pivot(index=BUCKET, columns=MODEL, values="users").sort_index()
        present = [model for model in models if model in totals]
        if len(present) > 1 and len(totals) > 1:
            users = num_users[present[0]].to_numpy()
            found[str(task)] = compare_models(totals[present], users, present, confidence, num_resamples, seed)
    return found


def comparisons_pdf(comparisons: Mapping[str, Sequence[Comparison]]) -> pd.DataFrame:
    """Give every comparison as a row: task and the fields of Comparison."""
    rows = [(task, *pair) for task, pairs in comparisons.items() for pair in pairs]
    return pd.DataFrame(rows, columns=[TASK, *Comparison._fields])


def calibration_curves(sums_pdf: pd.DataFrame) -> dict[tuple[str, str], np.ndarray]:
    """Give (task, model) -> shape (bins, 2): the mean share of a category in users' pasts, and in their lists.

    The bins are the tenths of the past share that any user's category falls into, from low to high.
    """
    curves = {}
    for (task, model), rows in sums_pdf[sums_pdf[METRIC].isin([PAST_SHARE, LIST_SHARE])].groupby([TASK, MODEL]):
        means = (rows["total"] / rows["users"]).to_numpy()
        table = rows.assign(mean=means).pivot(index=BUCKET, columns=METRIC, values="mean").sort_index()
        curves[str(task), str(model)] = table[[PAST_SHARE, LIST_SHARE]].to_numpy()
    return curves
