"""Mean and spread over windows, by hand."""

from __future__ import annotations

from datetime import date

import pandas as pd
import pytest

from recsys_spark.evaluation.windows import spread_over_windows, windows_table

COLUMNS = ["run_date", "task", "model", "slice", "metric", "k", "value"]
FIRST, SECOND, THIRD = date(2024, 1, 1), date(2024, 2, 1), date(2024, 3, 1)


def frame(**values):
    """model -> ndcg of three windows; hr is twice as high."""
    rows = [
        (day, "next", model, "all", metric, 10, factor * value)
        for model, found in values.items()
        for day, value in zip((FIRST, SECOND, THIRD), found, strict=False)
        for metric, factor in (("ndcg", 1), ("hr", 2))
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_spread_is_that_of_the_windows():
    spread = spread_over_windows(frame(popular=(0.1, 0.2, 0.3))).query("metric == 'ndcg'").iloc[0]
    assert (spread["mean"], spread["sd"]) == (pytest.approx(0.2), pytest.approx(0.1))
    assert (spread["lowest"], spread["highest"], spread["windows"]) == (0.1, 0.3, 3)


def test_slice_that_a_window_lacks_is_counted_where_it_is():
    pdf = frame(popular=(0.1, 0.2))
    cold = pdf[pdf["run_date"] == SECOND].assign(slice="cold_users", value=0.5)
    spread = spread_over_windows(pd.concat([pdf, cold])).query("metric == 'ndcg'").set_index("slice")
    assert spread["windows"].to_dict() == {"all": 2, "cold_users": 1}
    assert pd.isna(spread.loc["cold_users", "sd"])


def test_table_compares_with_popular_window_by_window():
    assert windows_table(frame(popular=(0.1, 0.2, 0.3), als=(0.2, 0.3, 0.3)), "next", 10).splitlines() == [
        "next, k = 10, 3 windows from 2024-01-01 to 2024-03-01",
        "model            ndcg@10  lowest  highest            hr@10  x popular  ahead in",
        "popular  0.2000 ± 0.1000  0.1000   0.3000  0.4000 ± 0.2000       1.00         -",
        "als      0.2667 ± 0.0577  0.2000   0.3000  0.5333 ± 0.1155       1.50    2 of 3",
    ]


def test_table_of_one_window_claims_no_spread():
    lines = windows_table(frame(als=(0.2,)), "next", 10).splitlines()
    assert lines[2].split() == ["als", "0.2000", "0.2000", "0.2000", "0.4000", "-", "-"]


def test_table_of_a_task_that_was_not_measured_says_so():
    assert windows_table(frame(als=(0.2,)), "discovery", 10) == "discovery: nothing measured at k = 10"
