"""One Arrow batch of lists and truths, as a worker gets it: sums and users' values by hand. No Spark."""

from __future__ import annotations

import math

import pandas as pd
import pyarrow as pa
import pytest

from recsys_spark.evaluation.blocks import LIST_SHARE, NO_BUCKET, PAST_SHARE, block_sums, block_users

TYPES = {
    "task": pa.string(), "model": pa.string(), "user_id": pa.string(), "slices": pa.list_(pa.string()),
    "truth": pa.list_(pa.string()), "items": pa.list_(pa.string()), "item_users": pa.list_(pa.int64()),
    "category": pa.list_(pa.string()), "past_categories": pa.list_(pa.string()), "past_counts": pa.list_(pa.int64()),
    "user_group": pa.int64(),
}  # fmt: skip


def row(user, items, truth, slices=("all",), **others):
    """A row of the model m on the task next; every item of a list has one user and no category unless others say more."""
    full = {
        "task": "next", "model": "m", "user_id": user, "slices": slices, "truth": truth, "items": items,
        "item_users": [1] * len(items), "category": [""] * len(items), "past_categories": [], "past_counts": [], "user_group": 0,
    }  # fmt: skip
    return full | others


def batch_of(*rows):
    return pa.RecordBatch.from_pydict({name: pa.array([r[name] for r in rows], kind) for name, kind in TYPES.items()})


def sums_of(*rows, ks=(2,), num_users=4):
    pdf = block_sums(batch_of(*rows), ks, num_users).to_pandas()
    assert not pdf.duplicated(["task", "model", "slice", "metric", "k", "bucket"]).any()
    return pdf


def means_of(*rows, **arguments):
    """(slice, metric) -> (mean, users) of the model m at k = 2."""
    pdf = sums_of(*rows, **arguments).query("model == 'm' and k == 2")
    summed = pdf.groupby(["slice", "metric"])[["users", "total"]].sum()
    return {key: (total / users, users) for key, users, total in summed.itertuples()}


def test_every_metric_of_two_users_by_hand():
    found = means_of(row("ann", ["a", "b", "c"], ["b", "c", "d"]), row("bob", ["x", "y"], ["q"]))
    of_ann = {
        "hr": 1, "recall": 1 / 3, "recall_min": 1 / 2, "precision": 1 / 2, "f1": 2 / 5, "mrr": 1 / 2, "map": 1 / 4,
        "ndcg": (1 / math.log2(3)) / (1 + 1 / math.log2(3)), "diversity": 0,
    }  # fmt: skip
    for metric, value in of_ann.items():
        assert found["all", metric] == (pytest.approx(value / 2), 2)
    assert found["all", "novelty"] == (2, 2)
    assert len(found) == len(of_ann) + 1  # no past, so no miscalibration


def test_sums_of_squares_are_those_of_the_users_values():
    pdf = sums_of(row("ann", ["a", "b"], ["a"]), row("bob", ["x", "a"], ["a"])).set_index("metric")
    assert (pdf.loc["mrr", "total"], pdf.loc["mrr", "squares"]) == (1.5, 1.25)


def test_novelty_and_diversity_follow_the_lists_items():
    rows = [
        row("ann", ["a", "b"], ["a"], item_users=[4, 1], category=["food", "drink"]),
        row("bob", ["c", "unknown"], ["a"], item_users=[2, 0], category=["", ""]),
    ]
    found = means_of(*rows, num_users=4)
    # -log2(4/4), -log2(1/4) for ann; -log2(2/4) and, for the unseen item, -log2(1/4) for bob
    assert found["all", "novelty"] == (pytest.approx(((0 + 2) / 2 + (1 + 2) / 2) / 2), 2)
    assert found["all", "diversity"] == (0.5, 2)  # two categories for ann, twice none for bob


def test_a_row_counts_in_each_of_its_slices():
    found = means_of(
        row("ann", ["a"], ["a"], slices=["all", "warm_users", "heavy_users"]),
        row("new", ["c"], ["b"], slices=["all", "cold_users"]),
        row("ann", ["a"], ["z"], slices=["cold_items"]),
    )
    hits = {name: value for (name, metric), value in found.items() if metric == "hr"}
    assert hits == {
        "all": (0.5, 2), "warm_users": (1, 1), "heavy_users": (1, 1), "cold_users": (0, 1), "cold_items": (0, 1),
    }  # fmt: skip


def test_miscalibration_counts_users_with_a_list_and_a_past_only():
    past = {"past_categories": ["film", "book"], "past_counts": [1, 1]}
    rows = [
        row("same", ["a", "b"], ["q"], category=["book", "film"], **past),
        row("other", ["a", "b"], ["q"], category=["book", "book"], **past),
        row("no list", [], ["q"], **past),
        row("no past", ["a"], ["q"], category=["book"]),
    ]
    other = 0.5 * math.log(0.5 / 0.995) + 0.5 * math.log(0.5 / 0.005)
    assert means_of(*rows)["all", "miscalibration"] == (pytest.approx(other / 2), 2)
    users = block_users(batch_of(*rows), (2,), 4).to_pandas().set_index("user_id")["miscalibration_at_2"]
    assert users.to_dict() == pytest.approx(
        {"same": 0, "other": other, "no list": math.nan, "no past": math.nan}, nan_ok=True
    )


def test_only_ndcg_at_the_first_k_of_all_users_is_kept_by_groups():
    rows = [
        row("ann", ["a"], ["a"], slices=["all", "warm_users"], user_group=7),
        row("bob", ["a"], ["b"], slices=["all", "cold_users"], user_group=9),
        row("cat", ["a"], ["a"], slices=["all", "warm_users"], user_group=7),
    ]
    pdf = sums_of(*rows, ks=(2, 1))
    grouped = pdf[pdf["bucket"] != NO_BUCKET]
    assert set(zip(grouped["slice"], grouped["metric"], grouped["k"], strict=True)) == {("all", "ndcg", 2)}
    assert {r.bucket: (r.users, r.total) for r in grouped.itertuples()} == {7: (2, 2.0), 9: (1, 0.0)}


def test_shares_of_categories_by_tenths_of_the_past():
    past = {"past_categories": ["film", "book", "song"], "past_counts": [5, 4, 1]}
    rows = [
        row("ann", ["a", "b"], ["q"], category=["film", "book"], slices=["all", "warm_users"], **past),
        row("ann", ["a", "b"], ["q"], category=["film", "book"], slices=["warm_items"], **past),
        row("bob", ["a", "b"], ["q"], category=["film", "film"], past_categories=["film"], past_counts=[3]),
    ]
    pdf = sums_of(*rows)
    shares = {
        (r.metric, r.bucket): (r.users, r.total) for r in pdf.itertuples() if r.metric in (PAST_SHARE, LIST_SHARE)
    }
    assert shares == {
        (PAST_SHARE, 1): (1, 0.1), (PAST_SHARE, 4): (1, 0.4), (PAST_SHARE, 5): (1, 0.5), (PAST_SHARE, 9): (1, 1.0),
        (LIST_SHARE, 1): (1, 0.0), (LIST_SHARE, 4): (1, 0.5), (LIST_SHARE, 5): (1, 0.5), (LIST_SHARE, 9): (1, 1.0),
    }  # fmt: skip
    assert set(pdf[pdf["metric"] == LIST_SHARE]["slice"]) == {"all"}


def test_users_values_are_what_the_sums_add_up():
    rows = [
        row("ann", ["a", "b"], ["b"], slices=["all", "warm_users"], model="m"),
        row("bob", ["b", "c"], ["b", "c"], slices=["all"], model="m"),
        row("ann", ["c"], ["b"], slices=["all", "warm_users"], model="other"),
    ]
    users = block_users(batch_of(*rows), (1, 2), 4).to_pandas().explode("slices")
    wide = [name for name in users if "_at_" in name]
    means = users.groupby(["model", "slices"])[wide].sum().stack()
    pdf = sums_of(*rows, ks=(1, 2))
    found = (
        pdf.assign(name=pdf["metric"] + "_at_" + pdf["k"].astype(str))
        .groupby(["model", "slice", "name"])["total"]
        .sum()
    )
    expected = means[~means.index.get_level_values(2).str.startswith("miscal")]
    pd.testing.assert_series_equal(found.sort_index(), expected.sort_index(), check_names=False)


def test_a_batch_cut_out_of_a_larger_one_gives_its_own_rows():
    whole = batch_of(*(row(f"u{i}", [f"i{i}", "x"], [f"i{i}"], user_group=i) for i in range(6)))
    part = block_sums(whole.slice(2, 3), (1,), 4).to_pandas().query("metric == 'ndcg'")
    assert sorted(part["bucket"]) == [2, 3, 4]
    assert part["total"].sum() == 3
