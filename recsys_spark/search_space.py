"""What a search may vary: the space of one model, written in the config or made from the model's own typed section."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from recsys_spark.config import Config, RecommendConfig
from recsys_spark.config_base import BaseConfig
from recsys_spark.config_file import with_values
from recsys_spark.config_tune import ParameterConfig
from recsys_spark.errors import ConfigError

Space = Mapping[str, ParameterConfig]
"""Dotted key -> what it may be."""

MODELS: tuple[str, ...] = get_args(get_args(RecommendConfig.model_fields["models"].annotation)[0])
"""Every model that can be recommended with."""

SECTION_OF = {"popular": None, "popular_recent": "popular"}
"""Section of the config that holds a model's settings, where it is not called like the model; null: it has none."""

FIXED = {
    "data_root", "spark", "tables", "sources", "ingest", "checks", "monitoring", "split", "recommend", "evaluation", "tune",
    "tracking", "maintain", "erase",
}  # fmt: skip
"""Sections that say what is read, split, measured and kept: no search varies them, or its trials could not be compared."""

# Part of a result's identity, or of the machine; not of the model.
_NOT_OF_THE_MODEL = {"seed", "num_blocks", "engine", "max_block_bytes", "max_driver_bytes", "max_items", "num_threads"}


def space_of(config: Config, model: str) -> dict[str, ParameterConfig]:
    """Give the model's space of tune.spaces, or else the one that its own section makes.

    Every key and every end is checked by building the config with it. Raises ConfigError when a model or a key is unknown,
    when a key must not vary or a value is out of its range, or when there is nothing to search.
    """
    for name in (model, *config.tune.spaces):
        if name not in MODELS:
            raise ConfigError(f"model {name!r} of --model or tune.spaces is not one of {', '.join(MODELS)}")
    space = config.tune.spaces.get(model) or _own_section(config, model)
    for key, parameter in space.items():
        if key.split(".")[0] in FIXED:
            raise ConfigError(
                f"tune.spaces.{model}: {key} must be the same in every trial; expected settings of models, interactions or cleaning"
            )
        for value in parameter.ends():
            with_values(config, {key: value}, origin=f"tune.spaces.{model}")
    return space


def values_now(config: Config, space: Space) -> dict[str, Any]:
    """Give the values that the config has now, of the keys where the space holds them: the first trial."""
    now = {key: _value_at(config, key) for key in space}
    return {key: value for key, value in now.items() if _holds(space[key], value)}


def _own_section(config: Config, model: str) -> dict[str, ParameterConfig]:
    name = SECTION_OF.get(model, model)
    section = getattr(config, name or "", None)
    fields = type(section).model_fields if isinstance(section, BaseConfig) else {}
    found = {
        f"{name}.{key}": parameter
        for key, field in fields.items()
        if key not in _NOT_OF_THE_MODEL and (parameter := values_around(field, getattr(section, key))) is not None
    }
    if not found:
        raise ConfigError(
            f"model {model} has no settings of its own to search; name some under tune.spaces.{model}, for example "
            "interactions.half_life_days: {low: 7.0, high: 365.0, log: true}"
        )
    return found


def values_around(field: FieldInfo, value: Any) -> ParameterConfig | None:
    """Values around the present one; null for lists, texts, 0 and null, which say no order of magnitude."""
    if get_origin(field.annotation) is Literal:
        return ParameterConfig(choices=get_args(field.annotation))
    if isinstance(value, bool):
        return ParameterConfig(choices=(False, True))
    if not isinstance(value, int | float) or value <= 0:
        return None
    factor = 4 if isinstance(value, int) else 10
    low, high = value / factor, value * factor
    for limit in field.metadata:
        low, high = max(low, getattr(limit, "ge", low)), min(high, getattr(limit, "le", high))
        # a limit that is left out itself: half of the way to it
        low = low if low > getattr(limit, "gt", -math.inf) else (limit.gt + value) / 2
        high = high if high < getattr(limit, "lt", math.inf) else (limit.lt + value) / 2
    if isinstance(value, int):
        low, high = max(1, round(low)), int(high)
    return ParameterConfig(low=low, high=high, log=True) if low < high else None


def _value_at(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else getattr(value, part)
    return value


def _holds(parameter: ParameterConfig, value: Any) -> bool:
    if parameter.choices is not None:
        return value in parameter.choices
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    low, high = parameter.ends()
    return is_number and low <= value <= high
