"""Every metric against hand-computed values, a slow plain-Python reference and, where it has one, scikit-learn."""

import math
from statistics import NormalDist, fmean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from recsys_spark.evaluation import metrics
from recsys_spark.evaluation.metrics import Summary, interval_from_moments, ranking_metrics, summarize

METRICS = ["hr", "recall", "recall_min", "precision", "f1", "ndcg", "map", "mrr"]
BIG = 2**63 - 1


def ragged(lists):
    """Lists of lists as (items, offsets)."""
    items = np.array([item for row in lists for item in row], dtype=np.int64)
    return items, np.cumsum([0] + [len(row) for row in lists])


def evaluate(lists, truths, k):
    return ranking_metrics(*ragged(lists), *ragged(truths), k)


def one_user(items, truth, k):
    return {name: float(values[0]) for name, values in evaluate([items], [truth], k).items()}


def reference(items, truth, k):
    """The metrics of one user, one loop each, from their definitions."""
    truth, top = set(truth), items[:k]
    hits = sum(item in truth for item in top)
    precision, recall = hits / k, hits / len(truth)
    dcg = sum(1 / math.log2(rank + 1) for rank, item in enumerate(top, start=1) if item in truth)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(truth)) + 1))
    precisions = [len(truth & set(top[:rank])) / rank for rank, item in enumerate(top, start=1) if item in truth]
    first = next((rank for rank, item in enumerate(top, start=1) if item in truth), None)
    return {
        "hr": float(bool(truth & set(top))),
        "recall": recall,
        "recall_min": hits / min(k, len(truth)),
        "precision": precision,
        "f1": 0.0 if hits == 0 else 2 * precision * recall / (precision + recall),
        "ndcg": dcg / ideal,
        "map": sum(precisions) / min(k, len(truth)),
        "mrr": 0.0 if first is None else 1 / first,
    }


# Items of any size, among them ones too far apart for (user, item) to be one int64 without re-numbering.
ITEMS = st.integers(0, 12) | st.sampled_from([-BIG - 1, -5, 2**40, BIG])
USERS = st.lists(
    st.tuples(st.lists(ITEMS, max_size=12, unique=True), st.lists(ITEMS, min_size=1, max_size=12, unique=True)),
    min_size=1,
    max_size=8,
)


# ranking_metrics


def test_literal_case():
    # Hits at ranks 2 and 4 of five; three relevant items.
    found = one_user([10, 11, 12, 13, 14], [13, 11, 99], 5)
    dcg, ideal = 1 / math.log2(3) + 1 / math.log2(5), 1 + 1 / math.log2(3) + 1 / 2
    expected = [1, 2 / 3, 2 / 3, 2 / 5, 1 / 2, dcg / ideal, (1 / 2 + 2 / 4) / 3, 1 / 2]
    assert found == pytest.approx(dict(zip(METRICS, expected, strict=True)))


def test_several_users_at_once():
    found = evaluate([[1, 2, 3], [], [7], [3, 2, 1]], [[1], [1, 2], [8], [1]], 3)
    assert list(found) == METRICS
    assert found["hr"].tolist() == [1, 0, 0, 1]
    assert found["mrr"].tolist() == pytest.approx([1, 0, 0, 1 / 3])
    assert found["ndcg"].tolist() == pytest.approx([1, 0, 0, 1 / 2])
    assert all(values.dtype == np.float64 and values.shape == (4,) for values in found.values())


def test_same_item_of_another_user_is_no_hit():
    assert evaluate([[1], [2]], [[2], [1]], 1)["hr"].tolist() == [0, 0]


def test_empty_list_scores_zero():
    assert one_user([], [1, 2], 10) == dict.fromkeys(METRICS, 0.0)


def test_short_list_keeps_k_as_the_denominator_of_precision():
    found = one_user([1, 2], [1, 2], 10)
    assert found["precision"] == 0.2
    assert found["f1"] == pytest.approx(2 * 0.2 * 1 / 1.2)
    assert [found[name] for name in ("recall", "recall_min", "ndcg", "map", "mrr")] == [1] * 5


def test_truth_longer_than_k():
    found = one_user([1, 2], [1, 2, 3, 4], 2)
    assert found["recall"] == 0.5
    assert [found[name] for name in ("recall_min", "precision", "ndcg", "map", "mrr")] == [1] * 5
    assert found["f1"] == pytest.approx(2 / 3)


def test_k_of_one_and_the_cut_of_longer_lists():
    assert set(one_user([5, 6], [5], 1).values()) == {1.0}
    assert set(one_user([6, 5], [5], 1).values()) == {0.0}
    assert one_user([1, 2, 3, 4], [3, 4], 3) == one_user([1, 2, 3], [3, 4], 3)


def test_perfect_lists_of_any_length_score_exactly_one():
    for size in range(1, 60):
        assert one_user(list(range(size)), list(range(size)), size) == dict.fromkeys(METRICS, 1.0)


def test_no_users_gives_empty_arrays():
    assert {name: values.shape for name, values in evaluate([], [], 3).items()} == dict.fromkeys(METRICS, (0,))


@given(USERS, st.integers(1, 14))
def test_equals_the_reference(users, k):
    found = evaluate([items for items, _ in users], [truth for _, truth in users], k)
    for row, (items, truth) in enumerate(users):
        assert {name: values[row] for name, values in found.items()} == pytest.approx(reference(items, truth, k))
    for values in found.values():
        assert ((values >= 0) & (values <= 1)).all()


@given(USERS, st.integers(1, 14), st.randoms())
def test_order_of_the_truth_and_blocks_of_users_give_the_same_bits(users, k, random):
    whole = evaluate([items for items, _ in users], [truth for _, truth in users], k)
    for row, (items, truth) in enumerate(users):
        assert one_user(items, random.sample(truth, len(truth)), k) == {name: whole[name][row] for name in METRICS}


def test_ndcg_equals_scikit_learn():
    rng = np.random.default_rng(0)
    for k in (1, 5, 20, 50):
        order = rng.permutation(50)
        truth = rng.choice(50, 8, replace=False)
        relevance, scores = np.isin(np.arange(50), truth), np.empty(50)
        scores[order] = -np.arange(50)
        expected = sklearn_metrics.ndcg_score(relevance[None].astype(int), scores[None], k=k)
        assert one_user(order.tolist(), truth.tolist(), k)["ndcg"] == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 2, 10])
def test_duplicates_in_a_list_raise_within_and_beyond_k(k):
    with pytest.raises(ValueError, match=r"2 duplicate items in a list, the first in row 1"):
        evaluate([[1, 2], [4, 3, 4, 4]], [[1], [1]], k)


def test_duplicate_and_empty_truths_raise():
    with pytest.raises(ValueError, match=r"1 duplicate items in a ground truth, the first in row 2"):
        evaluate([[1], [1], [1]], [[1, 2], [2], [3, BIG, 3]], 1)
    with pytest.raises(ValueError, match="2 users have an empty ground truth"):
        evaluate([[1], [2], [3]], [[], [1], []], 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1], [0, 1], [1], [0, 1], 0), "k >= 1"),
        (([1], [0, 2], [1], [0, 1], 1), "list offsets"),
        (([1], [1, 1], [1], [0, 1], 1), "list offsets"),
        (([1, 2], [0, 2], [1, 2], [0, 2, 1, 2], 1), "truth offsets"),
        (([1], [], [1], [0, 1], 1), "list offsets"),
        (([1], [0, 1], [1, 2], [0, 1, 2], 1), "one list per ground truth"),
        (([1.5], [0, 1], [1], [0, 1], 1), "integers"),
        (([[1]], [0, 1], [1], [0, 1], 1), "integers"),
    ],
)
def test_arguments_that_do_not_fit_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        ranking_metrics(*(np.array(part) if isinstance(part, list) else part for part in arguments))


# Means and intervals


def test_summary_literal():
    assert summarize(np.array([0, 0, 1, 1])) == pytest.approx((0.5, -0.0658, 1.0658, 4), abs=1e-4)
    assert isinstance(summarize([1.0, 2.0]), Summary)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=50), st.floats(0.5, 0.999))
def test_summary_equals_the_statistics_module(values, confidence):
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * stdev(values) / math.sqrt(len(values))
    expected = (fmean(values), fmean(values) - half, fmean(values) + half, len(values))
    assert summarize(values, confidence) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.floats(0.5, 0.999))
def test_moments_give_the_same_interval(values, confidence):
    array = np.array(values)
    found = interval_from_moments(len(array), array.sum(), (array**2).sum(), confidence)
    assert found == pytest.approx(summarize(array, confidence), abs=1e-6)


def test_shifted_moments_keep_the_digits_of_values_far_from_zero():
    values = 1e9 + np.random.default_rng(0).random(1000)
    deviations = values - 1e9
    found = interval_from_moments(1000, deviations.sum(), (deviations**2).sum(), shift=1e9)
    expected = summarize(values)
    assert found.mean == pytest.approx(expected.mean, abs=1e-6)
    assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=1e-6)


def test_one_value_and_equal_values_have_a_defined_interval():
    assert summarize([0.25]) == interval_from_moments(1, 0.25, 0.0625) == (0.25, 0.25, 0.25, 1)
    found = interval_from_moments(3, 0.3, 0.03)
    assert found.low <= found.mean <= found.high
    assert found.high - found.low < 1e-7


def test_summaries_refuse_nothing_nan_and_nonsense():
    with pytest.raises(ValueError, match="no values"):
        summarize([])
    with pytest.raises(ValueError, match="NaN"):
        summarize([0.5, math.nan])
    with pytest.raises(ValueError, match="confidence"):
        summarize([0.5], 1.0)
    with pytest.raises(ValueError, match="count >= 1"):
        interval_from_moments(0, 0, 0)
    with pytest.raises(ValueError, match="finite"):
        interval_from_moments(2, math.nan, 0)


# The catalogue


def test_coverage():
    assert metrics.coverage(3, 4) == 0.75
    assert metrics.coverage(0, 4) == 0
    for recommended, size in ((5, 4), (-1, 4), (0, 0)):
        with pytest.raises(ValueError, match="recommended"):
            metrics.coverage(recommended, size)


def test_gini_literal_cases():
    assert metrics.gini([7, 7, 7], 3) == 0
    assert metrics.gini([9], 4) == metrics.gini([0, 9, 0], 4) == 1
    # (-1 * 1 + 1 * 3) / 4 with n - 1 = 1, then (-2 * 0 + 0 * 1 + 2 * 3) / 4 / 2
    assert metrics.gini([3, 1], 2) == 0.5
    assert metrics.gini([3, 1], 3) == 0.75
    assert metrics.gini([], 5) == metrics.gini([0, 0], 5) == metrics.gini([8], 1) == 0


@given(st.lists(st.integers(0, 20), min_size=2, max_size=15), st.integers(0, 5))
def test_gini_is_the_mean_difference_of_all_pairs(counts, left_out):
    size = len(counts) + left_out
    padded = counts + [0] * left_out
    differences = sum(abs(a - b) for a in padded for b in padded)
    expected = 0 if sum(counts) == 0 else differences / (2 * size * sum(counts)) * size / (size - 1)
    assert metrics.gini(counts, size) == pytest.approx(expected)
    assert -1e-12 <= metrics.gini(counts, size) <= 1 + 1e-12


@pytest.mark.parametrize("counts", [[1, 2, 3], [-1], [math.nan]])
def test_gini_refuses_bad_counts(counts):
    with pytest.raises(ValueError, match="counts"):
        metrics.gini(counts, 2)


def test_novelty_literal_case():
    # 8 users: item 0 known to all (0 bits), 1 to half (1), 2 to one (3), 3 to nobody (counts as one: 3).
    items, offsets = ragged([[0, 1], [2, 3, 0], [], [1]])
    per_list = metrics.novelty_per_list(items, offsets, [8, 4, 1, 0], 8, 2)
    assert per_list.tolist() == [0.5, 3, 0, 1]
    assert metrics.novelty(items, offsets, [8, 4, 1, 0], 8, 2) == pytest.approx((0.5 + 3 + 1) / 3)
    assert metrics.novelty(*ragged([[], []]), [8], 8, 2) == metrics.novelty(*ragged([]), [], 8, 2) == 0


@given(st.lists(st.lists(st.integers(0, 5), max_size=6, unique=True), max_size=5), st.integers(1, 7))
def test_novelty_equals_a_loop(lists, k):
    users = [9, 0, 1, 3, 7, 2]
    means = [fmean(-math.log2(max(1, users[item]) / 9) for item in items[:k]) for items in lists if items]
    assert metrics.novelty(*ragged(lists), users, 9, k) == pytest.approx(fmean(means) if means else 0)


def test_novelty_refuses_bad_arguments():
    items, offsets = ragged([[0, 1]])
    for item_users, num_users in (([9, 1], 8), ([-1, 1], 8), ([0, 0], 0)):
        with pytest.raises(ValueError, match="item_users"):
            metrics.novelty(items, offsets, item_users, num_users, 2)
    with pytest.raises(ValueError, match="items in"):
        metrics.novelty(items, offsets, [1], 8, 2)
    with pytest.raises(ValueError, match="k >= 1"):
        metrics.novelty(items, offsets, [1, 1], 8, 0)
    with pytest.raises(ValueError, match="duplicate"):
        metrics.novelty(*ragged([[0], [1, 1]]), [1, 1], 8, 1)


def test_diversity_literal_case():
    categories, offsets = ragged([[1, 1, 1], [1, 2, 3], [1, 1, 2, 2], [5], [], [1, 1, 2]])
    assert metrics.intra_list_diversity(categories, offsets, 4).tolist() == pytest.approx([0, 1, 4 / 6, 0, 0, 2 / 3])
    assert metrics.intra_list_diversity(categories, offsets, 2).tolist() == [0, 1, 0, 0, 0, 0]
    assert metrics.intra_list_diversity(categories, offsets, 1).tolist() == [0] * 6


@given(st.lists(st.lists(st.sampled_from([-1, 0, 1, BIG]), max_size=6), max_size=5), st.integers(1, 7))
def test_diversity_equals_a_loop_over_pairs(lists, k):
    expected = []
    for categories in (row[:k] for row in lists):
        pairs = [(a, b) for i, a in enumerate(categories) for b in categories[:i]]
        expected.append(fmean(a != b for a, b in pairs) if pairs else 0)
    assert metrics.intra_list_diversity(*ragged(lists), k).tolist() == pytest.approx(expected)


# Scores and ratings


def test_rank_by_score_breaks_ties_by_utf8_bytes():
    # U+FF5E comes before U+1F600 in UTF-8, after it in UTF-16; a trailing NUL is part of an id.
    item_ids = ["\U0001f600", "b", "\uff5e", "a", "a\0", "é", "B", "z"]
    scores = [0.0, 0.0, -0.0, 0.0, 0.0, 0.0, -0.0, 9.0]
    order = metrics.rank_by_score(scores, item_ids)
    assert [item_ids[i] for i in order] == ["z", "B", "a", "a\0", "b", "é", "\uff5e", "\U0001f600"]


@given(st.lists(st.tuples(st.sampled_from([-1, 0, 2, math.inf, -math.inf]), st.text(max_size=3)), max_size=12))
def test_rank_by_score_equals_sorted(pairs):
    scores, item_ids = [score for score, _ in pairs], [item_id for _, item_id in pairs]
    expected = sorted(range(len(pairs)), key=lambda i: (-scores[i], item_ids[i].encode()))
    assert metrics.rank_by_score(scores, item_ids).tolist() == expected


def test_rank_by_score_refuses_nan_and_other_lengths():
    for scores, message in (([1, math.nan], "NaN: found 1"), ([1], "one score per item")):
        with pytest.raises(ValueError, match=message):
            metrics.rank_by_score(scores, ["a", "b"])


def test_auc_literal_cases():
    assert metrics.auc([0, 0, 1, 1], [1, 2, 3, 4]) == 1
    assert metrics.auc([1, 1, 0, 0], [1, 2, 3, 4]) == 0
    assert metrics.auc([0, 1, 0, 1], [5, 5, 5, 5]) == 0.5
    # Pairs: 3 > 1, 3 = 3 (half), 2 > 1, 2 < 3.
    assert metrics.auc([1, 1, 0, 0], [3, 2, 1, 3]) == 2.5 / 4


@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=40))
def test_auc_equals_scikit_learn(pairs):
    labels, scores = [int(label) for label, _ in pairs], [score for _, score in pairs]
    if len(set(labels)) < 2:
        with pytest.raises(ValueError, match="positives and negatives"):
            metrics.auc(labels, scores)
    else:
        assert metrics.auc(labels, scores) == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores))


@given(st.lists(st.tuples(st.booleans(), st.floats(1e-9, 1 - 1e-9)), min_size=1, max_size=40))
def test_log_loss_and_accuracy_equal_scikit_learn(pairs):
    labels, probabilities = [int(label) for label, _ in pairs], [value for _, value in pairs]
    expected = sklearn_metrics.log_loss(labels, probabilities, labels=[0, 1])
    assert metrics.log_loss(labels, probabilities) == pytest.approx(expected)
    predicted = [int(value >= 0.5) for value in probabilities]
    assert metrics.accuracy(labels, probabilities) == sklearn_metrics.accuracy_score(labels, predicted)


def test_log_loss_literal_cases():
    assert metrics.log_loss([1, 0], [0.5, 0.25]) == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    assert metrics.log_loss([1, 0], [0, 0]) == pytest.approx(-math.log(metrics.LOG_LOSS_EPS) / 2)
    assert metrics.log_loss([1, 0], [1, 0]) == pytest.approx(0, abs=1e-14)


def test_accuracy_counts_the_threshold_as_positive():
    assert metrics.accuracy([1, 0, 1, 0], [0.5, 0.5, 0.4, 0.1]) == 0.5
    assert metrics.accuracy([1, 0, 1, 0], [0.5, 0.5, 0.4, 0.1], threshold=0.4) == 0.75


def test_mae_and_rmse_literal_cases():
    assert metrics.mae([1, 2, 3], [2, 2, 1]) == 1
    assert metrics.rmse([1, 2, 3], [2, 2, 1]) == pytest.approx(math.sqrt(5 / 3))
    assert metrics.mae([4.5], [4.5]) == metrics.rmse([4.5], [4.5]) == 0


@pytest.mark.parametrize("name", ["auc", "log_loss", "accuracy", "mae", "rmse"])
def test_nan_empty_and_uneven_input_raise(name):
    metric = getattr(metrics, name)
    with pytest.raises(ValueError, match="NaN"):
        metric([1, 0], [0.5, math.nan])
    with pytest.raises(ValueError, match="NaN"):
        metric([1, math.nan], [0.5, 0.5])
    with pytest.raises(ValueError, match="one length"):
        metric([1, 0], [0.5])
    with pytest.raises(ValueError, match="1-d"):
        metric([[1, 0]], [[0.5, 0.5]])
    with pytest.raises(ValueError, match=r"at least one|no ratings"):
        metric([], [])


def test_labels_and_probabilities_out_of_range_raise():
    with pytest.raises(ValueError, match="labels 0 and 1"):
        metrics.auc([1, 2], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"probabilities in \[0, 1\]"):
        metrics.log_loss([1, 0], [0.5, 1.5])
    with pytest.raises(ValueError, match="infinite"):
        metrics.mae([1], [math.inf])
