"""Metrics of several windows as one table: mean and spread. Free of Spark."""

from __future__ import annotations

import pandas as pd

from recsys_spark.columns import METRIC, MODEL, RUN_DATE, SLICE, TASK, VALUE, K
from recsys_spark.evaluation.run_results import ALL_USERS, BASELINE

MEAN, SD, LOWEST, HIGHEST, WINDOWS = "mean", "sd", "lowest", "highest", "windows"
_KEY = [TASK, MODEL, SLICE, METRIC, K]


def spread_over_windows(metrics_pdf: pd.DataFrame) -> pd.DataFrame:
    """Give mean, sd, lowest and highest value over the windows, by task, model, slice, metric and k, in the frame's order.

    Needs these columns, value and run_date (the window). sd is the sample's (divided by n - 1), NaN for one window. Windows
    count alike, however many users they have; a slice may be missing in some, `windows` says in how many it is.
    """
    values = metrics_pdf.groupby(_KEY, sort=False)[VALUE]
    spread = values.agg(["mean", "std", "min", "max", "count"]).reset_index()
    return spread.rename(columns={"std": SD, "min": LOWEST, "max": HIGHEST, "count": WINDOWS})


def windows_table(metrics_pdf: pd.DataFrame, task: str, k: int) -> str:
    """Give one line per model: mean ± sd of ndcg and hr over the windows, lowest and highest ndcg, and ndcg against popular's.

    The last two columns are the mean of the windows' ratios to popular, and in how many windows the model was ahead of it.
    """
    rows = metrics_pdf[(metrics_pdf[TASK] == task) & (metrics_pdf[SLICE] == ALL_USERS) & (metrics_pdf[K] == k)]
    if rows.empty:
        return f"{task}: nothing measured at k = {k}"
    ndcg = rows[rows[METRIC] == "ndcg"].pivot(index=RUN_DATE, columns=MODEL, values=VALUE)
    hr = rows[rows[METRIC] == "hr"].pivot(index=RUN_DATE, columns=MODEL, values=VALUE)
    lines = [["model", f"ndcg@{k}", "lowest", "highest", f"hr@{k}", f"x {BASELINE}", "ahead in"]]
    for model in dict.fromkeys(rows[MODEL]):
        lines.append([
            str(model), _mean_and_sd(ndcg[model]), f"{ndcg[model].min():.4f}", f"{ndcg[model].max():.4f}", _mean_and_sd(hr[model]),
            *_against_baseline(ndcg, str(model)),
        ])  # fmt: skip
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    texts = ["  ".join(_aligned(line, widths)) for line in lines]
    return "\n".join([f"{task}, k = {k}, {len(ndcg)} windows from {ndcg.index.min()} to {ndcg.index.max()}", *texts])


def _mean_and_sd(values: pd.Series) -> str:
    return f"{values.mean():.4f}" + (f" ± {values.std():.4f}" if len(values) > 1 else "")


def _against_baseline(ndcg: pd.DataFrame, model: str) -> tuple[str, str]:
    if BASELINE not in ndcg or (ndcg[BASELINE] == 0).any():
        return "-", "-"
    ahead = int((ndcg[model] > ndcg[BASELINE]).sum())
    return f"{(ndcg[model] / ndcg[BASELINE]).mean():.2f}", "-" if model == BASELINE else f"{ahead} of {len(ndcg)}"


def _aligned(line: list[str], widths: list[int]) -> list[str]:
    first, *others = (
        cell.ljust(width) if place == 0 else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(line, widths, strict=True))
    )
    return [first, *others]
