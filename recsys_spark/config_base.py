"""What every class of the configuration has in common."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

WeightScale = Literal["linear", "log", "one"]
"""How a model takes an interaction's weight: as it is, log(1 + weight), or 1."""


class BaseConfig(BaseModel):
    """Frozen, with unknown keys forbidden, so that a typo stops the job before Spark starts."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
