"""What a search may vary: written spaces are checked against the typed config, others are made from it."""

from __future__ import annotations

import pytest
from pydantic import Field

from recsys_spark.config import Config
from recsys_spark.config_base import BaseConfig
from recsys_spark.config_file import load_config, with_values
from recsys_spark.errors import ConfigError
from recsys_spark.search_space import MODELS, SECTION_OF, space_of, values_around, values_now


def config_with(space, model="als"):
    return load_config(None, [f"tune.spaces.{model}={space}"])


@pytest.mark.parametrize("model", [model for model in MODELS if SECTION_OF.get(model, model)])
def test_every_model_has_a_space_that_holds_its_defaults_and_never_its_seed(model):
    space = space_of(Config(), model)
    now = values_now(Config(), space)
    assert now
    assert set(now) == set(space)
    assert not any(key.endswith((".seed", ".num_blocks")) for key in space)
    for key, parameter in space.items():
        for value in parameter.ends():
            with_values(Config(), {key: value}, origin=key)


def test_space_lies_around_the_values_that_the_config_has():
    space = space_of(load_config(None, ["als.rank=100", "als.alpha=2.0"]), "als")
    assert (space["als.rank"].low, space["als.rank"].high, space["als.rank"].log) == (25, 400, True)
    assert (space["als.alpha"].low, space["als.alpha"].high) == (0.2, 20.0)
    assert space["als.weight_scale"].choices == ("linear", "log", "one")


class SomeConfig(BaseConfig):
    share: float = Field(0.5, gt=0, lt=1)
    size: int = Field(3, ge=2, le=5)
    none: float | None = None
    zero: float = 0.0
    switch: bool = False
    words: tuple[str, ...] = ("a",)
    fixed: int = Field(1, ge=1, le=1)


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("share", (0.05, 0.75)),  # half of the way to a limit that is left out
        ("size", (2, 5)),
        ("switch", (False, True)),
        ("none", None), ("zero", None), ("words", None), ("fixed", None),
    ],
)  # fmt: skip
def test_space_made_from_a_field_stays_within_its_limits(name, ends):
    found = values_around(SomeConfig.model_fields[name], getattr(SomeConfig(), name))
    assert (found.ends() if found else None) == ends
    if isinstance(getattr(SomeConfig(), name), int):
        assert found is None or all(isinstance(end, int) for end in found.ends())


def test_model_without_settings_of_its_own_says_what_to_name():
    with pytest.raises(ConfigError, match=r"popular has no settings .* tune\.spaces\.popular"):
        space_of(Config(), "popular")
    space = space_of(config_with("{interactions.half_life_days: {low: 7.0, high: 365.0}}", "popular"), "popular")
    assert set(space) == {"interactions.half_life_days"}


def test_model_that_nobody_knows_is_refused():
    with pytest.raises(ConfigError, match=r"model 'alz' of --model or tune\.spaces is not one of popular, "):
        space_of(Config(), "alz")
    with pytest.raises(ConfigError, match="model 'alz'"):
        space_of(config_with("{als.rank: {choices: [8]}}", "alz"), "als")


def test_written_space_replaces_the_made_one():
    config = config_with(
        "{als.rank: {low: 8, high: 64, step: 8}, interactions.half_life_days: {choices: [30, 60, null]}}"
    )
    space = space_of(config, "als")
    assert set(space) == {"als.rank", "interactions.half_life_days"}
    assert space["als.rank"].is_whole
    assert values_now(config, space) == {"als.rank": 64, "interactions.half_life_days": None}


def test_present_value_outside_of_the_space_is_no_start():
    config = config_with(
        "{als.rank: {low: 8, high: 16}, als.weight_scale: {choices: [one]}, als.alpha: {low: 0.5, high: 2.0}}"
    )
    assert values_now(config, space_of(config, "als")) == {"als.alpha": 1.0}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("{als.rnak: {low: 8, high: 16}}", r"tune\.spaces\.als: unknown key als\.rnak; did you mean als\.rank\?"),
        ("{als.rank: {low: 0, high: 16}}", r"tune\.spaces\.als: als\.rank: .*greater than or equal to 1.*found 0"),
        ("{als.rank: {low: 8.5, high: 16}}", r"tune\.spaces\.als: als\.rank: .*integer.*found 8\.5"),
        ("{als.weight_scale: {choices: [log, sqrt]}}", r"als\.weight_scale: .*found 'sqrt'"),
        ("{split.test_share: {low: 0.1, high: 0.2}}", r"split\.test_share must be the same in every trial"),
        ("{recommend.k: {low: 10, high: 20}}", r"recommend\.k must be the same in every trial"),
        ("{data_root: {choices: [a, b]}}", r"data_root must be the same in every trial"),
    ],
)
def test_space_that_cannot_be_searched_is_refused(space, message):
    with pytest.raises(ConfigError, match=message):
        space_of(config_with(space), "als")


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("{}", "expected low and high, or choices"),
        ("{low: 1}", "expected low and high, or choices"),
        ("{low: 2, high: 1}", "low 2 must be below high 1"),
        ("{low: 1, high: 2, choices: [1, 2]}", "expected choices or a range, found both"),
        ("{low: 0, high: 1, log: true}", "a logarithm needs low above 0, found 0"),
        ("{low: 1, high: 9, log: true, step: 2}", "step and log exclude each other"),
        ("{choices: []}", "at least 1 item"),
        ("{low: 1, hihg: 2}", r"did you mean tune\.spaces\.als\.als\.rank\.high"),
    ],
)
def test_parameter_is_a_range_or_choices(parameter, message):
    with pytest.raises(ConfigError, match=message):
        config_with(f"{{als.rank: {parameter}}}")
