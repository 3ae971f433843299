"""All metrics, in numpy: the one implementation, which Spark calls per block of users through mapInPandas.

Lists travel as the ragged arrays of ragged.py: items as int64 codes of any size, the same codes on both sides, and offsets.
In the formulas h is the number of hits (items of the top k that are in the ground truth T), rel(r) is 1 where the item
at rank r = 1, 2, ... is a hit, else 0.

NaN is an error everywhere, a duplicate in a list or in a ground truth too. No function returns NaN.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_spark.evaluation.ragged import (
    Ints,
    check_no_duplicates,
    checked_ragged,
    compact,
    count_keys,
    ranks_of,
    rows_of,
    sort_keys,
    top_k_part,
)

Floats = NDArray[np.float64]

# Probabilities are clipped to [LOG_LOSS_EPS, 1 - LOG_LOSS_EPS]: one certain mistake costs 34.5, not infinity.
LOG_LOSS_EPS = 1e-15


class Summary(NamedTuple):
    """Mean of a per-user metric with its confidence interval."""

    mean: float
    low: float
    high: float
    num_users: int
    """The number of users averaged over."""


def ranking_metrics(
    list_items: Ints, list_offsets: Ints, truth_items: Ints, truth_offsets: Ints, k: int
) -> dict[str, Floats]:
    """Compute every ranking metric of every user.

    - hr: 1 if h > 0, else 0
    - recall: h / |T|
    - recall_min: h / min(k, |T|), so that 1 can be reached when |T| > k
    - precision: h / k, also when the list is shorter
    - f1: harmonic mean of the user's precision and recall, which is 2h / (k + |T|); 0 when both are 0
    - ndcg: sum of rel(r) / log2(r + 1), divided by the same sum for a perfect list of min(k, |T|) hits
      (binary gains; Järvelin & Kekäläinen, ACM TOIS 20(4), 2002, with the log2(r + 1) discount of Burges et al. 2005)
    - map: average precision, sum of rel(r) * (hits up to r) / r, divided by min(k, |T|)
      (Manning, Raghavan & Schütze, Introduction to Information Retrieval, 8.4, cut at k)
    - mrr: 1 / rank of the first hit, 0 without one (Voorhees, TREC-8, 1999, cut at k)

    Args:
        list_items: recommended items, each list in rank order (ties already broken, see rank_by_score).
        list_offsets: where each user's list starts and ends; lists longer than k are cut, an empty list scores 0.
        truth_items: ground truth items, a set per user in any order.
        truth_offsets: where each user's ground truth starts and ends.
        k: list length, at least 1.

    Returns:
        Metric name to float64 array of shape (users,), values in [0, 1].

    Raises:
        ValueError: k < 1, offsets that do not fit, a user without ground truth (leave those out before), a duplicate
            in a list (also beyond k) or in a ground truth.
    """
    users, ranks = find_hits(list_items, list_offsets, truth_items, truth_offsets)
    return metrics_of_hits(users, ranks, np.diff(truth_offsets), k)


def find_hits(list_items: Ints, list_offsets: Ints, truth_items: Ints, truth_offsets: Ints) -> tuple[Ints, Ints]:
    """Give the row and the rank (from 0) of every hit, row by row in the order of rank; arguments and errors as above."""
    list_items, list_offsets = checked_ragged(list_items, list_offsets, "list")
    truth_items, truth_offsets = checked_ragged(truth_items, truth_offsets, "truth")
    num_rows, num_empty = len(truth_offsets) - 1, np.count_nonzero(np.diff(truth_offsets) == 0)
    if len(list_offsets) - 1 != num_rows:
        raise ValueError(f"expected one list per ground truth, found {len(list_offsets) - 1} and {num_rows}")
    if num_empty:
        raise ValueError(f"{num_empty} users have an empty ground truth: leave them out")
    length = int(np.diff(list_offsets).max(initial=1))
    list_rows, truth_rows = rows_of(list_offsets), rows_of(truth_offsets)
    list_codes, truth_codes, num_codes = compact(list_items, truth_items, length * max(1, num_rows))
    # (row, item, rank) as one number: the sets of all users become one sorted array that still knows the ranks.
    list_keys = sort_keys((list_rows * num_codes + list_codes) * length + ranks_of(list_offsets, list_rows))
    truth_keys = check_no_duplicates(truth_rows * num_codes + truth_codes, num_codes, "ground truth")
    list_pairs = list_keys // length
    check_no_duplicates(list_pairs, num_codes, "list")
    if not len(list_keys):
        return list_rows, list_rows
    found = np.minimum(np.searchsorted(list_pairs, truth_keys), len(list_pairs) - 1)
    found = found[list_pairs[found] == truth_keys]
    hits = np.sort(list_pairs[found] // num_codes * length + list_keys[found] % length)
    return hits // length, hits % length


def metrics_of_hits(users: Ints, ranks: Ints, num_truth: Ints, k: int) -> dict[str, Floats]:
    """Compute ranking_metrics from the output of find_hits and the size of each ground truth; hits beyond k do not count."""
    if k < 1:
        raise ValueError(f"expected k >= 1, found {k}")
    users, ranks, num_users = users[ranks < k], ranks[ranks < k], len(num_truth)
    hits = np.bincount(users, minlength=num_users)
    reachable = np.minimum(k, num_truth)
    # Hits come user by user, so the number of a hit within its list is its place minus the place of the user's first.
    hit_number = np.arange(1, len(users) + 1) - (np.cumsum(hits) - hits)[users]
    discounts = 1 / np.log2(np.arange(2, 2 + max(ranks.max(initial=0) + 1, reachable.max(initial=0))))
    # Both sums add discounts one by one in rank order, so a perfect list gets exactly 1 and none gets more.
    dcg = np.bincount(users, weights=discounts[ranks], minlength=num_users)
    precisions = np.bincount(users, weights=hit_number / (ranks + 1), minlength=num_users)
    is_first = hit_number == 1
    reciprocal_rank = np.zeros(num_users)
    reciprocal_rank[users[is_first]] = 1 / (ranks[is_first] + 1)
    return {
        "hr": (hits > 0).astype(np.float64),
        "recall": hits / num_truth,
        "recall_min": hits / reachable,
        "precision": hits / k,
        "f1": 2 * hits / (k + num_truth),
        "ndcg": dcg / np.cumsum(discounts)[reachable - 1],
        "map": precisions / reachable,
        "mrr": reciprocal_rank,
    }


def summarize(values: ArrayLike, confidence: float = 0.95) -> Summary:
    """Mean and normal-approximation interval mean ± z * s / sqrt(n), with s the sample standard deviation (n - 1).

    One value has no deviation to measure: its interval is the value itself (low = high = mean), never NaN. The interval
    is not cut at the metric's bounds. No values, NaN or infinity raise ValueError.
    """
    numbers = _checked_numbers(values, "values")
    if not len(numbers):
        raise ValueError("no values to summarize")
    mean = float(numbers.mean())
    return _interval(len(numbers), mean, float(np.sum((numbers - mean) ** 2)), confidence)


def interval_from_moments(
    count: int, total: float, total_squares: float, confidence: float = 0.95, shift: float = 0.0
) -> Summary:
    """Same as summarize, from sums that can be added over blocks: n, sum of (x - shift), sum of (x - shift)².

    Subtracting sums of squares cancels digits: the deviation is good to about 1e-7 of the largest distance from shift.
    That is enough for metrics in [0, 1] with shift 0. For values far from 0 with a small spread pass a typical value as
    shift and build the sums with it (Chan, Golub & LeVeque, The American Statistician 37, 1983).
    """
    if count < 1:
        raise ValueError(f"expected count >= 1, found {count}")
    if not np.isfinite([total, total_squares, shift]).all():
        raise ValueError(f"moments must be finite, found {total}, {total_squares}, shift {shift}")
    mean = total / count
    # Equal values may leave a rounding residue, also a negative one.
    return _interval(count, shift + mean, max(0.0, total_squares - total * mean), confidence)


def _interval(count: int, mean: float, squared_deviations: float, confidence: float) -> Summary:
    if not 0 < confidence < 1:
        raise ValueError(f"expected confidence between 0 and 1, found {confidence}")
    deviation = np.sqrt(squared_deviations / (count - 1)) if count > 1 else 0.0
    half = float(NormalDist().inv_cdf((1 + confidence) / 2) * deviation / np.sqrt(count))
    return Summary(mean, mean - half, mean + half, count)


def coverage(num_recommended_items: int, catalogue_size: int) -> float:
    """Share of the catalogue that was recommended to anyone: distinct recommended items / catalogue size."""
    if not 0 <= num_recommended_items <= catalogue_size or catalogue_size < 1:
        raise ValueError(f"expected 0 <= recommended <= catalogue, found {num_recommended_items} and {catalogue_size}")
    return num_recommended_items / catalogue_size


def gini(counts: ArrayLike, catalogue_size: int) -> float:
    """Gini index of how often each item is recommended: 0 = all equally often, 1 = one item gets everything.

    G = sum over j = 1..n of (2j - n - 1) * p(j), divided by n - 1, where p(1) <= ... <= p(n) are the items' shares of
    all recommendations and n is the catalogue size (Shani & Gunawardana, Recommender Systems Handbook, 2011, ch. 8).

    Args:
        counts: recommendations per item, any order; items that are left out were never recommended and count as 0.
        catalogue_size: n. With one item, or without any recommendation, all items are equal: 0.
    """
    numbers = _checked_numbers(counts, "counts")
    if len(numbers) > catalogue_size or catalogue_size < 1 or (numbers < 0).any():
        raise ValueError(f"expected at most {catalogue_size} counts >= 0, found {len(numbers)}")
    total = numbers.sum()
    if catalogue_size == 1 or total == 0:
        return 0.0
    # The zeros of the items left out sort first and add nothing, they only move the others up.
    places = np.arange(catalogue_size - len(numbers) + 1, catalogue_size + 1)
    weighted = np.sum((2 * places - catalogue_size - 1) * np.sort(numbers))
    return float(weighted / total / (catalogue_size - 1))


def novelty_per_list(list_items: Ints, list_offsets: Ints, item_users: ArrayLike, num_users: int, k: int) -> Floats:
    """Mean of -log2(users_i / U) over the top k of each list: the self-information of its items, in bits.

    Zhou et al., PNAS 107(10), 2010. An empty list gives 0.

    Args:
        list_items: positions in item_users, each list in rank order.
        list_offsets: where each list starts and ends.
        item_users: number of users of each item in the training data. 0 counts as 1: unseen is as novel as seen once.
        num_users: U, the users of the training data.
        k: list length, at least 1.
    """
    items, offsets = checked_ragged(list_items, list_offsets, "list")
    popularity = _checked_numbers(item_users, "item_users")
    if num_users < 1 or ((popularity < 0) | (popularity > num_users)).any():
        raise ValueError(f"expected item_users from 0 to num_users = {num_users} >= 1")
    if len(items) and (items.min() < 0 or items.max() >= len(popularity)):
        raise ValueError(f"expected items in [0, {len(popularity)}), found {items.min()} to {items.max()}")
    rows = rows_of(offsets)
    check_no_duplicates(rows * max(1, len(popularity)) + items, max(1, len(popularity)), "list")
    in_top_k, lengths = top_k_part(rows, offsets, k)
    # The quotient U / users, not the negated logarithm, so that an item everybody knows gives 0 and not -0.
    information = np.log2(num_users / np.maximum(1, popularity))[items[in_top_k]]
    return np.bincount(rows[in_top_k], weights=information, minlength=len(lengths)) / np.maximum(1, lengths)


def novelty(list_items: Ints, list_offsets: Ints, item_users: ArrayLike, num_users: int, k: int) -> float:
    """Mean of novelty_per_list over the lists that are not empty; 0 when there are none."""
    values = novelty_per_list(list_items, list_offsets, item_users, num_users, k)[np.diff(list_offsets) > 0]
    return float(values.mean()) if len(values) else 0.0


def intra_list_diversity(list_categories: Ints, list_offsets: Ints, k: int) -> Floats:
    """Share of unordered pairs within each top k whose categories differ.

    1 - sum over categories c of n_c (n_c - 1) / (m (m - 1)), m = min(k, list length): the mean pairwise distance of
    Ziegler et al., WWW 2005, with distance 1 between categories and 0 within. Lists with fewer than two items have no
    pair and give 0. A missing category needs a code of its own, and then it is a category like any other.

    Args:
        list_categories: category code of each recommended item, each list in rank order.
        list_offsets: where each list starts and ends.
        k: list length, at least 1.
    """
    categories, offsets = checked_ragged(list_categories, list_offsets, "category")
    rows = rows_of(offsets)
    in_top_k, lengths = top_k_part(rows, offsets, k)
    codes, _, num_codes = compact(categories, categories[:0], len(offsets))
    keys, sizes = count_keys((rows * num_codes + codes)[in_top_k])
    # Whole numbers until the last step, so a list of one category gives exactly 0 and one of m categories exactly 1.
    equal_pairs = np.bincount(keys // num_codes, weights=sizes * (sizes - 1), minlength=len(lengths))
    pairs = lengths * (lengths - 1)
    return (pairs - equal_pairs) / np.maximum(1, pairs)


def rank_by_score(scores: ArrayLike, item_ids: Sequence[str]) -> Ints:
    """Positions in order of score descending, ties by item id as UTF-8 bytes ascending. NaN raises ValueError."""
    numbers = _checked_numbers(scores, "scores", allow_infinite=True)
    if len(numbers) != len(item_ids):
        raise ValueError(f"expected one score per item id, found {len(numbers)} and {len(item_ids)}")
    by_id = np.array(sorted(range(len(item_ids)), key=lambda i: item_ids[i].encode()), dtype=np.int64)
    return by_id[np.argsort(-numbers[by_id], kind="stable")]


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Probability that a positive is scored above a negative; ties count half.

    (R - P (P + 1) / 2) / (P N), with R the sum of the positives' ranks by score, ties sharing their mean rank: the
    Mann-Whitney statistic (Hanley & McNeil, Radiology 143, 1982). Labels are 0 and 1; both must occur.
    """
    is_positive = _checked_labels(labels) == 1
    numbers = _same_length(_checked_numbers(scores, "scores", allow_infinite=True), is_positive)
    num_positive = int(np.count_nonzero(is_positive))
    num_negative = len(is_positive) - num_positive
    if not num_positive or not num_negative:
        raise ValueError(f"expected positives and negatives, found {num_positive} and {num_negative}")
    _, groups, sizes = np.unique(numbers, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(sizes) - (sizes - 1) / 2
    rank_sum = float(mean_ranks[groups[is_positive]].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean of -log p of the true label (natural logarithm), p clipped to [LOG_LOSS_EPS, 1 - LOG_LOSS_EPS]."""
    is_positive = _checked_labels(labels) == 1
    numbers = _same_length(_checked_probabilities(probabilities), is_positive)
    clipped = np.clip(numbers, LOG_LOSS_EPS, 1 - LOG_LOSS_EPS)
    return float(-np.mean(np.where(is_positive, np.log(clipped), np.log1p(-clipped))))


def accuracy(labels: ArrayLike, probabilities: ArrayLike, threshold: float = 0.5) -> float:
    """Share of rows whose label is predicted: 1 where the probability is at least the threshold, else 0."""
    is_positive = _checked_labels(labels) == 1
    numbers = _same_length(_checked_probabilities(probabilities), is_positive)
    return float(np.mean((numbers >= threshold) == is_positive))


def mae(ratings: ArrayLike, predictions: ArrayLike) -> float:
    """Mean absolute error: mean of abs(prediction - rating), over all rows."""
    return float(np.mean(np.abs(_errors(ratings, predictions))))


def rmse(ratings: ArrayLike, predictions: ArrayLike) -> float:
    """Root mean squared error: square root of the mean of (prediction - rating)², over all rows."""
    return float(np.sqrt(np.mean(_errors(ratings, predictions) ** 2)))


def _errors(ratings: ArrayLike, predictions: ArrayLike) -> Floats:
    truth = _checked_numbers(ratings, "ratings")
    if not len(truth):
        raise ValueError("no ratings to compare")
    return _same_length(_checked_numbers(predictions, "predictions"), truth) - truth


def _checked_labels(labels: ArrayLike) -> Floats:
    numbers = _checked_numbers(labels, "labels")
    if not len(numbers) or not np.isin(numbers, (0, 1)).all():
        raise ValueError("expected labels 0 and 1, at least one")
    return numbers


def _checked_probabilities(probabilities: ArrayLike) -> Floats:
    numbers = _checked_numbers(probabilities, "probabilities")
    if ((numbers < 0) | (numbers > 1)).any():
        raise ValueError(f"expected probabilities in [0, 1], found {numbers.min()} to {numbers.max()}")
    return numbers


def _checked_numbers(values: ArrayLike, name: str, allow_infinite: bool = False) -> Floats:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1:
        raise ValueError(f"expected 1-d {name}, found shape {numbers.shape}")
    num_bad = np.count_nonzero(np.isnan(numbers) if allow_infinite else ~np.isfinite(numbers))
    if num_bad:
        raise ValueError(f"{name} must not be NaN{'' if allow_infinite else ' or infinite'}: found {num_bad}")
    return numbers


def _same_length(values: Floats, others: NDArray[Any]) -> Floats:
    if len(values) != len(others):
        raise ValueError(f"expected arrays of one length, found {len(values)} and {len(others)}")
    return values
