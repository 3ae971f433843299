"""The approximate index: exact where every cell is visited, exact where lists come out short, and an honest recall elsewhere."""

import sys

import numpy as np
import pytest

from recsys_spark.config_approximate import ApproximateConfig
from recsys_spark.errors import ConfigError
from recsys_spark.models.approximate import (
    IndexRecall,
    build_index,
    measure_recall,
    open_index,
    top_k_approximate,
    write_index,
)
from recsys_spark.models.category_cap import CategoryCap
from recsys_spark.models.top_k import top_k_dot_product

pytest.importorskip("faiss", reason="the extra `ann` is not installed")

ALL_CELLS = ApproximateConfig(cells=20, probes=20)
SEEN = (np.arange(0, 201, 4), np.random.default_rng(7).integers(0, 900, 200))  # four items of each of 50 users


@pytest.fixture(scope="module")
def vectors():
    """50 users and 900 items in 30 tight directions, as small whole numbers, so that dot products are exact and tie."""
    rng = np.random.default_rng(5)
    directions = rng.integers(-3, 4, (30, 8))
    items = directions[np.arange(900) % 30] * 4 + rng.integers(-1, 2, (900, 8))
    users = directions[rng.integers(0, 30, 50)] + rng.integers(-1, 2, (50, 8))
    return users.astype(np.float32), items.astype(np.float32)


@pytest.fixture(scope="module")
def excluded():
    return np.random.default_rng(9).random(900) < 0.1


def assert_same_but_for_ties_at_the_end(answer, exact):
    """Which of the items that tie with the last place are listed is open; all else is equal, order included."""
    assert (answer.scores == exact.scores).all()
    assert (answer.counts == exact.counts).all()
    is_above_last = exact.scores > exact.scores[:, -1:]
    assert (answer.positions == exact.positions)[is_above_last].all()


@pytest.mark.parametrize("max_block_bytes", [1, 2**20])
@pytest.mark.parametrize("seen", [None, SEEN])
def test_visiting_every_cell_gives_the_exact_lists(vectors, excluded, seen, max_block_bytes):
    users, items = vectors
    index = build_index(items, excluded, ALL_CELLS)
    answer, _ = top_k_approximate(index, users, items, 10, 3, seen, excluded, max_block_bytes=max_block_bytes)
    assert_same_but_for_ties_at_the_end(answer, top_k_dot_product(users, items, 10, seen, excluded))


def test_cap_holds_and_rows_that_it_leaves_short_are_made_exactly(vectors, excluded):
    users, items = vectors
    cap = CategoryCap((np.arange(900) % 3).astype(np.int32), 4)  # at most 12 in all: every list of 15 comes out short
    index = build_index(items, excluded, ALL_CELLS)
    answer, is_exact = top_k_approximate(index, users, items, 15, 1, SEEN, excluded, cap)
    exact = top_k_dot_product(users, items, 15, SEEN, excluded, cap=cap)
    assert is_exact.all()
    assert all((part == other).all() for part, other in zip(answer, exact, strict=True))


def test_cap_is_applied_to_what_the_index_gives(vectors, excluded):
    users, items = vectors
    cap = CategoryCap((np.arange(900) % 3).astype(np.int32), 6)
    index = build_index(items, excluded, ALL_CELLS)
    answer, is_exact = top_k_approximate(index, users, items, 15, 20, SEEN, excluded, cap)
    assert not is_exact.any()
    per_category = [np.bincount(cap.categories[row]).max() for row in answer.positions]
    assert max(per_category) == 6
    assert_same_but_for_ties_at_the_end(answer, top_k_dot_product(users, items, 15, SEEN, excluded, cap=cap))


def test_only_users_whose_fetched_items_were_seen_are_made_exactly(vectors):
    users, items = vectors
    nobody = np.zeros(900, dtype=bool)
    index = build_index(items, nobody, ALL_CELLS)
    first = top_k_dot_product(users, items, 10)
    seen = (np.array([0, 10, *[10] * 49]), first.positions[0])  # user 0 has seen the own first 10, nobody else anything
    answer, is_exact = top_k_approximate(index, users, items, 10, 1, seen, nobody)
    assert is_exact.tolist() == [True] + [False] * 49
    exact = top_k_dot_product(users, items, 10, seen)
    assert (answer.positions[0] == exact.positions[0]).all()


def test_fewer_probes_find_less_and_recall_says_how_much():
    rng = np.random.default_rng(1)
    users, items = rng.normal(size=(200, 16)).astype(np.float32), rng.normal(size=(4000, 16)).astype(np.float32)
    nobody = np.zeros(4000, dtype=bool)
    exact = top_k_dot_product(users, items, 10)
    recalls = {}
    for probes in (1, 10, 100):
        index = build_index(items, nobody, ApproximateConfig(cells=100, probes=probes))
        answer, is_exact = top_k_approximate(index, users, items, 10, 2)
        found = measure_recall(answer, is_exact, exact)
        by_hand = np.mean([len({*a} & {*b}) / 10 for a, b in zip(answer.positions, exact.positions, strict=True)])
        assert found == IndexRecall(pytest.approx(by_hand), float(is_exact.mean()), 200)
        recalls[probes] = found.recall
    assert recalls[1] < recalls[10] < recalls[100] == 1


def test_items_with_the_scores_of_the_last_exact_place_count_as_found():
    users, items = np.ones((1, 2), np.float32), np.ones((100, 2), np.float32)  # all items are the same
    exact = top_k_dot_product(users, items, 10)
    other = exact._replace(positions=exact.positions + 50)
    assert measure_recall(other, np.array([False]), exact) == IndexRecall(1.0, 0.0, 1)
    lower = exact._replace(scores=exact.scores - np.array([[0] * 6 + [1] * 4], np.float32))
    assert measure_recall(lower, np.array([False]), exact).recall == pytest.approx(0.6)


def test_recall_of_short_exact_lists_is_of_what_there_is():
    users, items = np.ones((2, 1), np.float32), np.array([[3], [2], [1]], np.float32)
    seen = (np.array([0, 0, 3]), np.array([0, 1, 2]))  # the second user has seen everything and does not count
    exact = top_k_dot_product(users, items, 5, seen)
    missed = exact._replace(scores=np.array([[3, 2, -np.inf, -np.inf, -np.inf]] * 2, np.float32))
    assert measure_recall(missed, np.array([True, False]), exact) == IndexRecall(pytest.approx(2 / 3), 1.0, 1)


def test_same_config_gives_the_same_lists_also_through_a_file(vectors, excluded, tmp_path):
    users, items = vectors
    config = ApproximateConfig(cells=20, probes=2)
    answers = []
    for name in ("one", "two"):
        write_index(build_index(items, excluded, config), tmp_path / name)
        answers.append(top_k_approximate(open_index(str(tmp_path / name)), users, items, 10, 2, SEEN, excluded)[0])
    assert all((part == other).all() for part, other in zip(*answers, strict=True))


def test_small_catalogues_get_fewer_cells_and_one_item_is_enough():
    for num_items, cells in ((1, 1), (77, 1), (78, 2), (3900, 100)):
        items = np.random.default_rng(0).normal(size=(num_items, 4)).astype(np.float32)
        index = build_index(items, np.zeros(num_items, dtype=bool), ApproximateConfig(cells=100))
        assert (index.nlist, index.ntotal) == (cells, num_items)
        answer, _ = top_k_approximate(index, items[:1], items, 3, 2)
        assert answer.positions[0, 0] == top_k_dot_product(items[:1], items, 3).positions[0, 0]


def test_nothing_to_index_and_bad_vectors_are_errors(vectors):
    _, items = vectors
    with pytest.raises(ValueError, match="at least one item"):
        build_index(items, np.ones(900, dtype=bool), ALL_CELLS)
    index = build_index(items, np.zeros(900, dtype=bool), ALL_CELLS)
    with pytest.raises(ValueError, match="finite"):
        top_k_approximate(index, np.full((1, 8), np.nan, np.float32), items, 3, 2)


def test_missing_faiss_names_the_extra(vectors, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"faiss-cpu: install recsys_spark\[ann\].*or set recommend.index to exact"):
        build_index(vectors[1], np.zeros(900, dtype=bool), ALL_CELLS)
