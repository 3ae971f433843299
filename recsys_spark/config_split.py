"""The part of the configuration that says how a backtest cuts the past into windows."""

from __future__ import annotations

from pydantic import Field, model_validator

from recsys_spark.config_base import BaseConfig


class WindowsConfig(BaseConfig):
    """Rolling windows of a backtest, counted back from the end of the events; whole days, UTC."""

    count: int = Field(4, ge=1, le=1000)
    """Number of windows."""
    test_days: int = Field(28, ge=1)
    """Length of a window's truth."""
    train_days: int | None = Field(None, ge=1)
    """Length of what a window learns from; null: everything before its cutoff."""
    gap_days: int = Field(0, ge=0)
    """Days between the cutoff and the truth that are neither: as long as lists wait until they are shown."""
    step_days: int | None = Field(None, ge=1)
    """Days from one window to the next; null: test_days, so that the truths lie end to end."""

    @model_validator(mode="after")
    def _truths_apart(self) -> WindowsConfig:
        if self.step_days is not None and self.step_days < self.test_days:
            raise ValueError(
                f"step_days = {self.step_days} is below test_days = {self.test_days}: the same days would be truth twice"
            )
        return self
