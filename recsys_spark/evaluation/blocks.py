"""What a worker does with one Arrow batch of lists and truths: every user's metrics, as they are or summed up.

A row is a user's list of one task and model beside the user's truth; the numbers are made in metrics.py and calibration.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from recsys_spark.columns import CATEGORY, METRIC, MODEL, SLICE, TASK, USER_ID, K
from recsys_spark.evaluation import calibration, metrics
from recsys_spark.evaluation.ragged import rows_of, take_rows
from recsys_spark.evaluation.run_results import ALL_USERS

ITEMS = "items"
TRUTH = "truth"
SLICES = "slices"
ITEM_USERS = "item_users"
PAST_CATEGORIES = "past_categories"
PAST_COUNTS = "past_counts"
USER_GROUP = "user_group"
BUCKET = "bucket"

TESTED = "ndcg"
"""The metric that models are compared by, at the first k on all users: chosen before, or every metric would be one more test."""
PAST_SHARE = "past_share"
LIST_SHARE = "list_share"
NUM_BINS = 10
NO_BUCKET = -1

SUM_COLUMNS = (TASK, MODEL, SLICE, METRIC, K, BUCKET, "users", "total", "squares")


class _UserValues(NamedTuple):
    """One metric of every row of a batch."""

    metric: str
    k: int
    values: np.ndarray
    is_known: np.ndarray
    """False where the metric says nothing of the user; the value is 0 then and does not count."""


class _Index(NamedTuple):
    """Rows that are summed up together: the place of each in keys."""

    places: np.ndarray
    keys: pd.DataFrame


class _Lists(NamedTuple):
    """A batch as numbers; items and categories as codes that mean the same on both sides."""

    items: np.ndarray
    offsets: np.ndarray
    truth: np.ndarray
    truth_offsets: np.ndarray
    item_users: np.ndarray
    categories: np.ndarray
    past: np.ndarray
    past_counts: np.ndarray
    past_offsets: np.ndarray


def block_users(batch: pa.RecordBatch, ks: tuple[int, ...], num_users: int) -> pa.RecordBatch:
    """Give task, model, slices, user_id and one column METRIC_at_K per metric, null where it says nothing of the user."""
    columns = {name: batch[name] for name in (TASK, MODEL, SLICES, USER_ID)}
    for metric, k, values, is_known in _user_values(_lists_of(batch), ks, num_users):
        columns[f"{metric}_at_{k}"] = pa.array(values, mask=~is_known)
    return pa.RecordBatch.from_pydict(columns)


def block_sums(batch: pa.RecordBatch, ks: tuple[int, ...], num_users: int) -> pa.RecordBatch:
    """Give SUM_COLUMNS: users, total and squares of each metric by task, model and slice.

    The tested metric is kept apart by groups of users (bucket: the row's user_group) in the slice all, and the shares of the
    categories by the tenth of the past share, where each category of a user's past counts as one. Elsewhere the bucket is -1.
    """
    lists = _lists_of(batch)
    slices, slice_offsets = _flat(batch[SLICES])
    rows, names = rows_of(slice_offsets), slices.to_numpy(zero_copy_only=False)
    groups = np.where(names == ALL_USERS, batch[USER_GROUP].to_numpy()[rows], NO_BUCKET)
    by_slice = _index(batch, rows, names, np.full(len(rows), NO_BUCKET))
    by_group = _index(batch, rows, names, groups)
    parts = []
    for metric, k, values, is_known in _user_values(lists, ks, num_users):
        index = by_group if metric == TESTED and k == ks[0] else by_slice
        parts.append(_sums(index, metric, k, values[rows], is_known[rows]))
    parts += _share_sums(batch, lists, rows[names == ALL_USERS], ks[0])
    sums = pd.concat([part for part in parts if len(part)], ignore_index=True)
    return pa.RecordBatch.from_pandas(sums[sums["users"] > 0][list(SUM_COLUMNS)], preserve_index=False)


def _user_values(lists: _Lists, ks: tuple[int, ...], num_users: int) -> list[_UserValues]:
    """Every per-user metric of every row at every k; num_users is the denominator of novelty."""
    users, ranks = metrics.find_hits(lists.items, lists.offsets, lists.truth, lists.truth_offsets)
    num_rows = len(lists.offsets) - 1
    # each place of a list is its own item here, so that item_users need not be looked up
    places = np.arange(len(lists.items))
    found = []
    for k in ks:
        values = metrics.metrics_of_hits(users, ranks, np.diff(lists.truth_offsets), k)
        values["novelty"] = metrics.novelty_per_list(places, lists.offsets, lists.item_users, num_users, k)
        values["diversity"] = metrics.intra_list_diversity(lists.categories, lists.offsets, k)
        found += [
            _UserValues(metric, k, of_users, np.ones(num_rows, dtype=bool)) for metric, of_users in values.items()
        ]
        compared, shares = _shares(lists, k)
        distances, is_known = np.zeros(num_rows), np.zeros(num_rows, dtype=bool)
        distances[compared], is_known[compared] = calibration.miscalibration(shares, len(compared)), True
        found.append(_UserValues("miscalibration", k, distances, is_known))
    return found


def _share_sums(batch: pa.RecordBatch, lists: _Lists, everybody: np.ndarray, k: int) -> Iterator[pd.DataFrame]:
    """Sums of the list share and of the past share by the tenth of the past share, over the categories of users' pasts."""
    compared, shares = _shares(lists, k)
    counts = np.isin(compared, everybody)[shares.users]
    bins = np.minimum(NUM_BINS - 1, (shares.past[counts] * NUM_BINS).astype(np.int64))
    rows = compared[shares.users[counts]]
    index = _index(batch, rows, np.full(len(rows), ALL_USERS, dtype=object), bins)
    for name, values in ((PAST_SHARE, shares.past), (LIST_SHARE, shares.listed)):
        yield _sums(index, name, k, values[counts], np.ones(len(rows), dtype=bool))


def _shares(lists: _Lists, k: int) -> tuple[np.ndarray, calibration.CategoryShares]:
    """The rows with a list and a past, and the shares of their categories."""
    compared = np.flatnonzero((np.diff(lists.offsets) > 0) & (np.diff(lists.past_offsets) > 0))
    listed, offsets = take_rows(lists.categories, lists.offsets, compared)
    past, past_offsets = take_rows(lists.past, lists.past_offsets, compared)
    past_counts, _ = take_rows(lists.past_counts, lists.past_offsets, compared)
    return compared, calibration.category_shares(listed, offsets, past, past_counts, past_offsets, k)


def _index(batch: pa.RecordBatch, rows: np.ndarray, slices: np.ndarray, buckets: np.ndarray) -> _Index:
    columns = {
        TASK: batch[TASK].to_numpy(zero_copy_only=False)[rows],
        MODEL: batch[MODEL].to_numpy(zero_copy_only=False)[rows],
        SLICE: slices,
        BUCKET: buckets,
    }
    coded = {name: pd.factorize(values) for name, values in columns.items()}
    shape = tuple(max(1, len(names)) for _, names in coded.values())
    keys, places = np.unique(np.ravel_multi_index([codes for codes, _ in coded.values()], shape), return_inverse=True)
    parts = np.unravel_index(keys, shape)
    return _Index(places, pd.DataFrame({name: coded[name][1][part] for name, part in zip(coded, parts, strict=True)}))


def _sums(index: _Index, metric: str, k: int, values: np.ndarray, is_known: np.ndarray) -> pd.DataFrame:
    def summed(weights: np.ndarray) -> np.ndarray:
        return np.bincount(index.places, weights=weights, minlength=len(index.keys))

    sums = index.keys.copy()
    sums[METRIC], sums[K] = metric, np.int32(k)
    sums["users"] = summed(is_known).astype(np.int64)
    sums["total"], sums["squares"] = summed(values * is_known), summed(values**2 * is_known)
    return sums


def _lists_of(batch: pa.RecordBatch) -> _Lists:
    list_items, offsets = _flat(batch[ITEMS])
    truth_items, truth_offsets = _flat(batch[TRUTH])
    past_names, past_offsets = _flat(batch[PAST_CATEGORIES])
    items, truth = _codes(list_items, truth_items)
    categories, past = _codes(_flat(batch[CATEGORY])[0], past_names)
    item_users, past_counts = (
        _flat(batch[name])[0].to_numpy(zero_copy_only=False) for name in (ITEM_USERS, PAST_COUNTS)
    )
    return _Lists(items, offsets, truth, truth_offsets, item_users, categories, past, past_counts, past_offsets)


def _codes(some: pa.Array, others: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Number two arrays of names alike."""
    codes = pa.concat_arrays([some, others]).dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes[: len(some)], codes[len(some) :]


def _flat(lists: pa.ListArray) -> tuple[pa.Array, np.ndarray]:
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return lists.flatten(), offsets - offsets[0]
