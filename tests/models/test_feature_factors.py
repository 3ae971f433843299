"""Factorisation of features on worlds whose truth is known: what is learned, for whom, and what the numbers depend on."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from recsys_spark.config_feature_factors import FeatureFactorsConfig
from recsys_spark.errors import TrainingError
from recsys_spark.models import feature_factors
from recsys_spark.models.feature_factors import (
    bpr_slopes,
    fit_feature_factors,
    item_vectors,
    needed_bytes,
    user_vectors,
    warp_slopes,
)
from recsys_spark.models.feature_matrix import build_side

CONFIG = FeatureFactorsConfig(embedding_size=8, epochs=10, batch_size=32, seed=1)
GROUPS = ("red", "blue")
HELD_OUT = 2


def group_of(identifier):
    return identifier.split("-")[0]


# two groups of ten users and eight items; a user had all but two items of the own group
USERS = [f"{group}-u{n}" for group in GROUPS for n in range(10)]
ITEMS = [f"{group}-i{n}" for group in GROUPS for n in range(8)]
PAIRS = [
    (user, item)
    for number, user in enumerate(USERS)
    for place, item in enumerate(ITEMS)
    if group_of(user) == group_of(item) and (place - number) % 8 >= HELD_OUT
]
COLD = ["red-new", "blue-new"]


def texts(values):
    return pa.chunked_array([values], pa.string())


def sides(user_features=False, item_features=False, user_ids=True, item_ids=True, pairs=PAIRS):
    """Both sides; a feature is the group, of everybody and of a cold one in each group."""
    built = []
    for place, everybody, with_features, own_ids in (
        (0, USERS, user_features, user_ids),
        (1, ITEMS, item_features, item_ids),
    ):
        ids = [*everybody, *COLD] if with_features else []
        groups = [f"group={group_of(identifier)}" for identifier in ids]
        built.append(build_side(texts([pair[place] for pair in pairs]), texts(ids), texts(groups), own_ids))
    return built


def scores(config=CONFIG, weights=None, **what):
    """Score of every item for every user, as a dict of dicts by raw ids."""
    users, items = sides(**what)
    embeddings = fit_feature_factors(users, items, np.ones(len(PAIRS)) if weights is None else weights, config)
    left, right = user_vectors(users.features, embeddings.users), item_vectors(items.features, embeddings.items)
    table = left @ right.T
    return {
        user: dict(zip(items.ids.to_pylist(), row.tolist(), strict=True))
        for user, row in zip(users.ids.to_pylist(), table, strict=True)
    }


def share_of_own_group_first(table):
    """How often the held out items of the own group stand above every item of the other group."""
    right = 0
    for user in USERS:
        others = [score for item, score in table[user].items() if group_of(item) != group_of(user)]
        mine = {item for item in ITEMS if group_of(item) == group_of(user)} - {i for u, i in PAIRS if u == user}
        right += min(table[user][item] for item in mine) > max(others)
    return right / len(USERS)


@pytest.mark.parametrize("loss", ["warp", "bpr"])
@pytest.mark.parametrize("features", [False, True], ids=["ids only", "ids and features"])
def test_held_out_items_of_the_own_group_come_before_the_other_group(loss, features):
    config = CONFIG.model_copy(update={"loss": loss})
    assert share_of_own_group_first(scores(config, user_features=features, item_features=features)) >= 0.95


@pytest.mark.parametrize("loss", ["warp", "bpr"])
def test_cold_item_of_the_right_group_stands_above_that_of_the_wrong_group(loss):
    table = scores(CONFIG.model_copy(update={"loss": loss}), item_features=True)
    for user in USERS:
        right, wrong = sorted(COLD, key=lambda item: group_of(item) != group_of(user))
        assert table[user][right] > table[user][wrong], user


@pytest.mark.parametrize("loss", ["warp", "bpr"])
def test_cold_user_with_a_telling_feature_finds_the_right_group_first(loss):
    table = scores(CONFIG.model_copy(update={"loss": loss}), user_features=True)
    for user in COLD:
        own = [table[user][item] for item in ITEMS if group_of(item) == group_of(user)]
        others = [table[user][item] for item in ITEMS if group_of(item) != group_of(user)]
        assert min(own) > max(others), user


def test_without_item_ids_items_of_the_same_features_are_the_same_item():
    table = scores(item_features=True, item_ids=False)
    assert len({table["red-u0"][item] for item in table["red-u0"] if group_of(item) == "red"}) == 1
    assert share_of_own_group_first(table) == 1


def test_bias_makes_the_popular_item_first_where_taste_says_nothing():
    pairs = [(f"u{n}", "hit") for n in range(20)] + [(f"u{n}", f"niche{n}") for n in range(20)]
    users, items = sides(pairs=pairs)
    config = CONFIG.model_copy(update={"embedding_size": 1})
    embeddings = fit_feature_factors(users, items, np.ones(len(pairs)), config)
    biases = dict(zip(items.ids.to_pylist(), embeddings.items[:, -1], strict=True))
    assert biases.pop("hit") > max(biases.values())


def test_vectors_are_sums_over_features_and_their_product_is_the_score():
    users, items = sides(user_features=True, item_features=True)
    embeddings = fit_feature_factors(users, items, np.ones(len(PAIRS)), CONFIG)
    own, group = embeddings.users[0], embeddings.users[len(USERS)]  # blue-u0 and group=blue
    item, item_group = embeddings.items[0], embeddings.items[len(ITEMS)]
    expected = float((own + group) @ (item + item_group)[:-1] + item[-1] + item_group[-1])
    left, right = user_vectors(users.features, embeddings.users), item_vectors(items.features, embeddings.items)
    assert left[0] @ right[0] == pytest.approx(expected, rel=1e-5)


def test_same_seed_gives_the_same_bits_and_another_seed_others():
    first, again = scores(), scores()
    assert first == again
    assert scores(CONFIG.model_copy(update={"seed": 2})) != first


def test_order_of_the_interactions_makes_no_difference():
    weights = np.arange(1.0, 1 + len(PAIRS))
    shuffled = np.random.default_rng(0).permutation(len(PAIRS))
    fitted = [
        fit_feature_factors(*sides(pairs=[PAIRS[n] for n in order]), weights[order], CONFIG)
        for order in (np.arange(len(PAIRS)), shuffled)
    ]
    assert (fitted[0].users == fitted[1].users).all()
    assert (fitted[0].items == fitted[1].items).all()


def test_weights_count_relative_to_their_mean():
    weights = np.where([user.endswith("u0") for user, _ in PAIRS], 5.0, 1.0)
    assert scores(weights=weights) == scores(weights=weights * 4)  # powers of two divide without rounding
    assert scores(weights=weights) != scores()


@pytest.mark.parametrize("loss", ["warp", "bpr"])
def test_an_item_the_user_had_is_never_drawn_against_another_one(loss):
    # everybody had everything: there is no pair to order, so nothing moves
    pairs = [(user, item) for user in "abc" for item in "xyz"]
    users, items = sides(pairs=pairs)
    config = CONFIG.model_copy(update={"loss": loss, "epochs": 1})
    left = fit_feature_factors(users, items, np.ones(9), config)
    right = fit_feature_factors(users, items, np.ones(9), config.model_copy(update={"epochs": 5}))
    assert (left.users == right.users).all()
    assert (left.items == right.items).all()


def test_regularization_shortens_the_embeddings():
    def length(regularization):
        config = CONFIG.model_copy(update={"regularization": regularization})
        return np.linalg.norm(fit_feature_factors(*sides(), np.ones(len(PAIRS)), config).items)

    assert length(10.0) < length(1.0) < length(0.0)


# a step by hand: two users, three items, features that are shared and features that are not

USER_FEATURES = sparse.csr_matrix([[1, 0, 1], [0, 1, 1]], dtype=np.float64)
ITEM_FEATURES = sparse.csr_matrix([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 0]], dtype=np.float64)
BATCH = feature_factors._Batch(
    users=np.array([0, 1, 1]), items=np.array([0, 0, 1]), scale=np.array([1.0, 3.0, 0.5]), drawn=np.array([1, 2]),
    counts=np.array([[True, True], [False, True], [False, True]]), first_try=np.array([0, 1, 1]),
)  # fmt: skip


def learned_by_hand():
    rng = np.random.default_rng(3)
    parts = []
    for features, width in ((USER_FEATURES, 2), (ITEM_FEATURES, 3)):
        values = rng.standard_normal((features.shape[1], width)) / 10  # so near that every order violates warp's margin
        parts.append(feature_factors._Learned(features, values, np.zeros_like(values)))
    return parts


def cost_by_hand(loss, regularization, of_users, of_items):
    """The module's docstring, interaction by interaction."""
    users, items = USER_FEATURES @ of_users, ITEM_FEATURES @ of_items
    total = 0.0
    for n, (user, item, scale) in enumerate(zip(BATCH.users, BATCH.items, BATCH.scale, strict=True)):
        score = items[:, :-1] @ users[user] + items[:, -1]
        counted = [int(j) for j, counts in zip(BATCH.drawn, BATCH.counts[n], strict=True) if counts]
        if loss == "bpr":
            total += scale * np.mean([np.log1p(np.exp(score[j] - score[item])) for j in counted])
        else:  # in a circle from first_try on, the first that counts violates; two items can be wrong
            place = next(t for t in range(2) if BATCH.counts[n][(BATCH.first_try[n] + t) % 2])
            j = BATCH.drawn[(BATCH.first_try[n] + place) % 2]
            total += scale * np.log(2 / (place + 1)) * (1 + score[j] - score[item])
        lengths = USER_FEATURES[[user]] @ (of_users**2).sum(1) + ITEM_FEATURES[[item]] @ (of_items**2).sum(1)
        total += regularization / 2 * float(lengths[0])
    return total


@pytest.mark.parametrize("loss", ["warp", "bpr"])
def test_step_goes_down_the_gradient_of_the_documented_loss(loss):
    config = CONFIG.model_copy(update={"loss": loss, "regularization": 0.5, "learning_rate": 0.25})
    of_users, of_items = learned_by_hand()
    start = [of_users.values.copy(), of_items.values.copy()]
    feature_factors._descend(BATCH, of_users, of_items, config)
    for number, learned in enumerate((of_users, of_items)):
        gradient = np.zeros_like(start[number])
        for place in np.ndindex(gradient.shape):
            up, down = ([part.copy() for part in start] for _ in range(2))
            up[number][place] += 1e-5
            down[number][place] -= 1e-5
            gradient[place] = (cost_by_hand(loss, 0.5, *up) - cost_by_hand(loss, 0.5, *down)) / 2e-5
        np.testing.assert_allclose(learned.squares, gradient**2, rtol=1e-4, atol=1e-7)
        moved = np.where(np.abs(gradient) > 1e-3, learned.values - start[number], 0)
        np.testing.assert_allclose(moved, np.where(np.abs(gradient) > 1e-3, -0.25 * np.sign(gradient), 0), rtol=1e-3)


def test_warp_tries_in_a_circle_and_pays_for_the_first_violation_by_its_tries():
    above = np.array([[0.0, 0.0, -2.0], [0.0, 0.0, -2.0], [-2.0, 0.0, 0.0], [-2.0, -2.0, -1.0]])
    counts = np.array([[True, True, True], [True, True, True], [True, False, False], [True, True, True]])
    slopes = warp_slopes(above, counts, np.array([0, 2, 0, 0]), num_items=101)
    expected = np.zeros((4, 3))
    expected[0, 0] = np.log(100)  # the first try
    expected[1, 0] = np.log(100 / 2)  # begins at the last place, where nothing violates
    np.testing.assert_allclose(slopes, expected)  # row 2 had what would violate; row 3 keeps the margin of 1


def test_bpr_is_a_mean_over_what_counts():
    above = np.array([[0.0, 0.0, 5.0], [0.0, 0.0, 0.0]])
    counts = np.array([[True, True, False], [False, False, False]])
    np.testing.assert_allclose(bpr_slopes(above, counts), [[0.25, 0.25, 0], [0, 0, 0]])


def test_numbers_that_are_not_finite_end_in_a_training_error():
    with pytest.raises(TrainingError, match=r"not finite after 1 epochs; lower feature_factors.learning_rate"):
        scores(CONFIG.model_copy(update={"learning_rate": 1e38}))


def test_nothing_to_learn_from_is_an_error():
    with pytest.raises(TrainingError, match=r"no interaction whose user and item have a feature"):
        scores(user_ids=False)


def test_interactions_without_features_are_left_out():
    users, items = sides(user_features=True, item_features=True, item_ids=False)
    bare = build_side(
        texts([i for _, i in PAIRS]), texts(["red-i0", "red-new"]), texts(["group=red"] * 2), own_ids=False
    )
    assert bare.has_features().sum() == 2
    embeddings = fit_feature_factors(users, bare, np.ones(len(PAIRS)), CONFIG)
    assert embeddings.items.shape == (1, 9)
    assert np.isfinite(embeddings.items).all()
    assert len(items.ids) == len(ITEMS) + 2


def test_needed_memory_grows_with_pairs_rows_embedding_size_and_draws():
    assert needed_bytes(2, 0, CONFIG) == 2 * needed_bytes(1, 0, CONFIG)
    assert needed_bytes(0, 2, CONFIG) == 2 * needed_bytes(0, 1, CONFIG)
    larger = CONFIG.model_copy(update={"embedding_size": 17})
    assert needed_bytes(0, 1, larger) > needed_bytes(0, 1, CONFIG)
    # several matrices of (batch, draws) live at once; more items than there are cannot be drawn
    large_steps = CONFIG.model_copy(update={"batch_size": 65_536, "num_negatives": 10_000})
    assert needed_bytes(0, 20_000, large_steps) > 65_536 * 10_000 * 16
    assert needed_bytes(0, 50, large_steps) < 65_536 * 50 * 32
