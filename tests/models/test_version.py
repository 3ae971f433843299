"""Model versions: what makes two of them equal or different."""

from __future__ import annotations

from datetime import date

import pytest

from recsys_spark.config import AlsConfig, InteractionsConfig
from recsys_spark.models.version import model_version

CUTOFF = date(2024, 3, 10)


def version(model="als", cutoff=CUTOFF, events=7, als=None, interactions=None):
    return model_version(model, cutoff, events, AlsConfig(**(als or {})), InteractionsConfig(**(interactions or {})))


def test_same_inputs_give_the_same_version():
    assert version(als={"rank": 64}) == version(als={"rank": 64.0})
    weights = {"event_weights": {"view": 1.0, "buy": 5.0}}
    turned = {"event_weights": {"buy": 5.0, "view": 1.0}}
    assert version(interactions=weights) == version(interactions=turned)


def test_version_is_stable_between_releases():
    assert model_version("als", CUTOFF, 7) == "als-2024-03-10-589ffd3a"


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"cutoff": date(2024, 3, 11)},
        {"events": 8},
        *[{"als": {name: value}} for name, value in (
            ("rank", 8), ("max_iter", 3), ("reg_param", 0.2), ("alpha", 2.0), ("weight_scale", "one"), ("num_blocks", 2), ("seed", 1),
            ("engine", "implicit"), ("cg_steps", 0), ("num_threads", 1), ("max_driver_bytes", 10),
        )],
        {"interactions": {"event_weights": {"view": 0.5}}},
        {"interactions": {"half_life_days": 30.0}},
        {"interactions": {"min_item_events": 2}},
    ],
    ids=str,
)  # fmt: skip
def test_any_change_gives_another_version(change):
    assert version(**change) != version()


def test_versions_of_several_tables_all_count():
    assert len({model_version("m", CUTOFF, versions) for versions in [(7, 1), (7, 2), (8, 1), (7,), 7]}) == 5


def test_every_als_setting_is_tried_above():
    assert set(AlsConfig.model_fields) == {
        "rank",
        "max_iter",
        "reg_param",
        "alpha",
        "weight_scale",
        "num_blocks",
        "seed",
        "engine",
        "cg_steps",
        "num_threads",
        "max_driver_bytes",
    }


def test_version_names_model_and_cutoff_and_fits_a_partition_value():
    assert version().startswith("als-2024-03-10-")
    assert version().replace("-", "").isalnum()
