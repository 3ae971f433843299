"""From sums of blocks to what people read; the sums are literal."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from recsys_spark.evaluation import metrics
from recsys_spark.evaluation.significance import compare_models
from recsys_spark.evaluation.sums import comparisons, comparisons_pdf, with_intervals

COLUMNS = ["task", "model", "slice", "metric", "k", "bucket", "users", "total", "squares"]


def sums_of(values_of, groups, **others):
    """Sums of ndcg by groups of users, as metric_sums gives them; values_of: model -> the users' values."""
    key = {"task": "next", "slice": "all", "metric": "ndcg", "k": 10} | others
    rows = []
    for model, values in values_of.items():
        for group in sorted(set(groups)):
            own = np.array([value for value, number in zip(values, groups, strict=True) if number == group])
            rows.append(
                key
                | {"model": model, "bucket": group, "users": len(own), "total": own.sum(), "squares": (own**2).sum()}
            )
    return pd.DataFrame(rows)[COLUMNS]


def test_interval_is_that_of_the_users_values_however_they_are_grouped():
    values = np.array([0.0, 1.0, 1.0, 0.5])
    for groups in ([-1, -1, -1, -1], [3, 8, 3, 9]):
        found = with_intervals(sums_of({"m": values}, groups), 0.9)
        expected = metrics.summarize(values, 0.9)
        assert found[["value", "ci_low", "ci_high", "num_users"]].to_numpy().tolist() == [pytest.approx(list(expected))]


def test_models_are_compared_by_their_groups():
    rng = np.random.default_rng(0)
    values = {"zebra": rng.random(40), "als": rng.random(40) + 0.3}
    groups = list(range(100, 140))
    noise = sums_of({"als": [1.0], "zebra": [9.0]}, [-1], metric="hr")
    sums = pd.concat([sums_of(values, groups), noise])
    found = comparisons(sums.sample(frac=1, random_state=1), ["zebra", "als", "absent"], 0.95, 500, seed=3)
    expected = compare_models(
        np.stack([values["zebra"], values["als"]], axis=1), np.ones(40), ["zebra", "als"], 0.95, 500, 3
    )
    assert list(found) == ["next"]
    assert found["next"][0][:2] == ("zebra", "als")
    assert found["next"][0][2:] == pytest.approx(expected[0][2:])
    row = comparisons_pdf(found).to_dict("records")[0]
    assert (row["task"], row["other"], row["p_holm"]) == ("next", "als", found["next"][0].p_holm)


@pytest.mark.parametrize("sums", [
    sums_of({"alone": [1.0, 0.0]}, [1, 2]), sums_of({"a": [1.0, 0.0], "b": [0.0, 0.0]}, [1, 1]),
])  # fmt: skip
def test_nothing_to_compare(sums):
    assert comparisons(sums, ["alone", "a", "b"], 0.95, 500, seed=3) == {}
