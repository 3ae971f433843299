"""The exact lines of small cases."""

import pandas as pd
import pytest

from recsys_spark.evaluation.run_results import ExampleUser, ListedItem
from recsys_spark.evaluation.significance import Comparison
from recsys_spark.evaluation.summary import all_metrics_table, example_table, metrics_table, slices_table

COLUMNS = ["task", "model", "slice", "metric", "k", "value", "ci_low", "ci_high", "num_users"]


def rows(model, ndcg, num_users=1200, task="next", slice_name="all"):
    return [
        (task, model, slice_name, "ndcg", 10, ndcg, ndcg - 0.01, ndcg + 0.01, num_users),
        (task, model, slice_name, "hr", 10, 0.5, 0.45, 0.55, num_users),
        (task, model, slice_name, "recall", 10, 0.25, 0.2499, 0.2501, num_users),
        (task, model, slice_name, "coverage", 10, 0.125, None, None, num_users),
    ]


def frame(*groups):
    return pd.DataFrame([row for group in groups for row in group], columns=COLUMNS)


def test_metrics_table():
    pdf = frame(rows("popular", 0.1), rows("als", 0.15), rows("als", 0.9, slice_name="cold_users"))
    assert metrics_table(pdf, "next").splitlines() == [
        "next, k = 10, 1,200 users",
        "model            ndcg@10            hr@10        recall@10  coverage  x popular",
        "popular  0.1000 ± 0.0100  0.5000 ± 0.0500  0.2500 ± 0.0001    0.1250       1.00",
        "als      0.1500 ± 0.0100  0.5000 ± 0.0500  0.2500 ± 0.0001    0.1250       1.50",
    ]


def test_metrics_table_marks_what_is_more_than_chance():
    pdf = frame(rows("popular", 0.1), rows("als", 0.15), rows("again", 0.14), rows("poor", 0.05))
    pairs = [("popular", "als", -0.05, 0.001), ("popular", "again", -0.04, 0.2), ("popular", "poor", 0.05, 0.05)]
    pairs += [("als", "again", 0.01, 0.06), ("als", "poor", 0.1, 0.001), ("again", "poor", 0.09, 0.001)]
    compared = [Comparison(model, other, gap, gap, gap, p, p, p, p) for model, other, gap, p in pairs]
    assert metrics_table(pdf, "next", comparisons=compared).splitlines() == [
        "next, k = 10, 1,200 users",
        "model            ndcg@10              hr@10        recall@10  coverage  x popular",
        "popular  0.1000 ± 0.0100    0.5000 ± 0.0500  0.2500 ± 0.0001    0.1250       1.00",
        "als      0.1500 ± 0.0100 *  0.5000 ± 0.0500  0.2500 ± 0.0001    0.1250       1.50 +",
        "again    0.1400 ± 0.0100 *  0.5000 ± 0.0500  0.2500 ± 0.0001    0.1250       1.40",
        "poor     0.0500 ± 0.0100    0.5000 ± 0.0500  0.2500 ± 0.0001    0.1250       0.50 -",
        "* best, or not shown to be below it; + - shown to be above or below popular (95%, Holm)",
    ]


def test_metrics_table_keeps_the_order_of_the_frame_and_stays_narrow():
    names = ["zebra", "a_model_with_a_name_that_goes_on_and_on", "als"]
    lines = metrics_table(frame(*(rows(name, 0.1, num_users=10**9) for name in names)), "next").splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["zebra", "a_model_with_a_name…", "als"]
    assert max(map(len, lines)) <= 100


def test_metrics_table_without_baseline_or_values():
    pdf = frame([row for row in rows("als", 0.1) if row[3] != "hr"])
    assert metrics_table(pdf, "next").splitlines()[1:] == [
        "model          ndcg@10        recall@10  coverage",
        "als    0.1000 ± 0.0100  0.2500 ± 0.0001    0.1250",
    ]
    some = frame(rows("als", 0.1), [row for row in rows("knn", 0.1) if row[3] != "hr"])
    assert (
        metrics_table(some, "next").splitlines()[-1]
        == "knn    0.1000 ± 0.0100                -  0.2500 ± 0.0001    0.1250"
    )
    assert "popular  0" in metrics_table(frame(rows("popular", 0.0), rows("als", 0.1)), "next")


def test_every_metric_and_every_slice():
    pdf = frame(rows("als", 0.1), rows("knn", 0.2), rows("als", 0.3, num_users=7, slice_name="cold_users"))
    assert all_metrics_table(pdf, "next").splitlines() == [
        "metric          als     knn",
        "ndcg@10      0.1000  0.2000",
        "hr@10        0.5000  0.5000",
        "recall@10    0.2500  0.2500",
        "coverage@10  0.1250  0.1250",
    ]
    assert slices_table(pdf, "next", 10).splitlines() == [
        "ndcg@10 by slice  users     als     knn",
        "all               1,200  0.1000  0.2000",
        "cold_users            7  0.3000       -",
    ]


@pytest.mark.parametrize(("task", "k"), [("discovery", 10), ("next", 20)])
def test_metrics_table_of_what_was_not_measured(task, k):
    assert metrics_table(frame(rows("als", 0.1)), task, k) == f"{task}: nothing measured at k = {k}"


def test_example_table():
    example = ExampleUser(
        "u1",
        (("Milk", 1200), ("Bread", 3)),
        {
            ("next", "als"): (
                ListedItem("1", "Milk", 0.9, True),
                ListedItem("2", "Eggs", 0.8, False),
                ListedItem("3", "Tea", 0.7, False),
            )
        },
        {"next": ("Milk",)},
    )
    assert example_table(example, "next", "als").splitlines() == [
        "user u1 had most | next, als: 1 of 3 came true (*)",
        "1,200 x Milk     |  1 * Milk",
        "3 x Bread        |  2   Eggs",
        "                 |  3   Tea",
    ]
    assert example_table(example, "next", "als", k=1).splitlines()[1:] == ["1,200 x Milk     |  1 * Milk"]


def test_example_table_without_history_or_list():
    assert example_table(ExampleUser("u1", (), {}, {}), "next", "als").splitlines() == [
        "user u1 had most          | next, als: 0 of 0 came true (*)",
        "nothing before the cutoff | no list",
    ]


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("x" * 80, "2 x " + "x" * 43 + "…"),
        ("牛奶" * 30, "2 x " + "牛奶" * 10 + "牛…"),  # two columns each
        ("red\x1b[31m\nline", "2 x red [31m line"),
    ],
)
def test_example_table_cuts_and_cleans_labels(label, shown):
    example = ExampleUser("u1", ((label, 2),), {("next", "als"): (ListedItem("1", label, 1.0, True),)}, {})
    lines = example_table(example, "next", "als").splitlines()
    assert len(lines) == 2
    assert lines[1].split(" | ")[0].rstrip() == shown
    assert all(len(line) + sum("\u4e00" <= char <= "\u9fff" for char in line) <= 100 for line in lines)
