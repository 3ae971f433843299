"""The part of the configuration that says what `recsys tune` searches, and for what."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from recsys_spark.config_base import BaseConfig


class ParameterConfig(BaseConfig):
    """What one setting may be: a range with both ends, or choices."""

    low: int | float | None = None
    """Smallest value. Ends without a decimal point make a range of whole numbers, so write 1.0 where fractions are meant."""
    high: int | float | None = None
    """Largest value."""
    log: bool = False
    """Search the logarithm: 0.01 to 0.1 gets as much attention as 0.1 to 1."""
    step: int | float | None = Field(None, gt=0)
    """Distance of neighbouring values, from low on; null: every whole number, or any fraction."""
    choices: tuple[str | int | float | bool | None, ...] | None = Field(None, min_length=1)
    """Values to choose from, instead of a range."""

    @model_validator(mode="after")
    def _one_kind(self) -> ParameterConfig:
        if self.choices is not None:
            if (self.low, self.high, self.step, self.log) != (None, None, None, False):
                raise ValueError("expected choices or a range, found both")
            return self
        if self.low is None or self.high is None:
            raise ValueError("expected low and high, or choices")
        if self.low >= self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithm needs low above 0, found {self.low}")
        if self.log and self.step is not None:
            raise ValueError("step and log exclude each other: steps are distances, log searches ratios")
        return self

    @property
    def is_whole(self) -> bool:
        """Say whether the range is one of whole numbers."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step) if value is not None)

    def ends(self) -> tuple[Any, ...]:
        """Give every choice, or both ends of the range."""
        return self.choices if self.choices is not None else (self.low, self.high)


class TuneConfig(BaseConfig):
    """Search for settings: trained before validation_start, judged by the validation period, test is never looked at."""

    task: Literal["next", "discovery"] = "discovery"
    """Whose lists are judged."""
    metric: Literal["hr", "recall", "recall_min", "precision", "f1", "ndcg", "map", "mrr", "novelty", "diversity"] = (
        "ndcg"
    )
    """Mean over all users with truth; the trial with the largest one wins."""
    k: int | None = Field(None, ge=1)
    """Cut-off of the metric; null: the first of evaluation.k."""
    spaces: dict[str, dict[str, ParameterConfig]] = {}
    """Model -> dotted key -> what it may be, for example `als: {als.rank: {low: 16, high: 128, log: true}}`.

    A model that is not named searches its own section around the values it has: numbers from a quarter to four times
    (whole) or a tenth to ten times (fractions), words and switches over all that they can be."""
    seed: int | None = 42
    """Start of the sampler; null: another one each time, which several drivers of one study need."""
    storage: str | None = None
    """SQLAlchemy URL of Optuna's database; null keeps a SQLite file below data_root/tune, for one driver."""
