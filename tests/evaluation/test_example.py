"""The example user: who is chosen, and what is shown of them."""

from __future__ import annotations

import pytest
from factories import make_events

from recsys_spark.evaluation.example import example_user

LISTS = "user_id string, item_id string, score float, rank int, model string, task string"


def events(spark, day, *pairs):
    return make_events(spark, [{"user_id": u, "item_id": i, "timestamp": f"2024-03-{day} 10:00:00"} for u, i in pairs])


@pytest.fixture
def before(spark):
    many = [("busy", f"i{n}") for n in range(9)]
    return events(
        spark,
        "01",
        ("ann", "tea"),
        ("ann", "tea"),
        ("ann", "bread"),
        ("ann", None),
        ("idle", "tea"),
        ("bob", "tea"),
        *many,
    )


@pytest.fixture
def after(spark):
    return events(
        spark, "09", ("ann", "milk"), ("ann", "tea"), ("ann", None), ("bob", "tea"), ("busy", "tea"), ("new", "tea")
    )


@pytest.fixture
def recommendations(spark):
    rows = [
        ("ann", "tea", 3.0, 1, "again", "next"), ("ann", "milk", 2.0, 2, "again", "next"), ("ann", "no", 1.0, 3, "again", "next"),
        ("ann", "milk", 2.0, 1, "popular", "discovery"), ("bob", "tea", 1.0, 1, "again", "next"),
    ]  # fmt: skip
    return spark.createDataFrame(rows, LISTS)


def test_median_user_has_events_on_both_sides_and_median_activity(spark, before, after, recommendations):
    # of bob (1 event before), ann (4) and busy (9); idle has nothing after, new nothing before
    assert example_user("median", before, after, recommendations, None, k=2).user_id == "ann"


def test_history_counts_repeats_most_first_and_truth_differs_by_task(spark, before, after, recommendations):
    shown = example_user("ann", before, after, recommendations, None, k=2)
    assert shown.history == (("tea", 2), ("bread", 1))
    assert shown.truth == {"next": ("milk", "tea"), "discovery": ("milk",)}


def test_lists_end_at_k_and_mark_hits(spark, before, after, recommendations):
    shown = example_user("ann", before, after, recommendations, None, k=2)
    hits = {key: [(item.item_id, item.is_hit) for item in items] for key, items in shown.lists.items()}
    assert hits == {("next", "again"): [("tea", True), ("milk", True)], ("discovery", "popular"): [("milk", True)]}


def test_labels_are_title_and_category_or_the_id(spark, before, after, recommendations):
    labels = spark.createDataFrame(
        [("tea", "Green tea", "drinks"), ("milk", "Milk", None), ("bread", None, None), ("other", "x", "y")],
        "item_id string, title string, category string",
    )
    shown = example_user("ann", before, after, recommendations, labels, k=3)
    assert [item.label for item in shown.lists["next", "again"]] == ["Green tea · drinks", "Milk", "no"]
    assert shown.history == (("Green tea · drinks", 2), ("bread", 1))


@pytest.mark.parametrize("wanted", ["nobody", "idle"])
def test_user_without_lists_gives_no_example(spark, before, after, recommendations, wanted):
    assert example_user(wanted, before, after, recommendations, None, k=2) is None


def test_median_of_nobody_gives_no_example(spark, before, recommendations):
    assert example_user("median", before, events(spark, "09"), recommendations, None, k=2) is None
