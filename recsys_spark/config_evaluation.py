"""The part of the configuration that says what is measured, on which slices, and how models are compared."""

from __future__ import annotations

from pydantic import Field, PositiveInt, field_validator

from recsys_spark.config_base import BaseConfig


class EvaluationConfig(BaseConfig):
    """Offline metrics."""

    k: tuple[PositiveInt, ...] = Field((10, 20), min_length=1)
    """Cut-offs; models are compared, and lists described, at the first."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Level of the intervals over users, and of what is called a difference between two models."""
    num_resamples: int = Field(10_000, ge=100, le=1_000_000)
    """Random draws of the paired tests between models."""
    seed: int = Field(42, ge=0)
    """Of these draws."""
    heavy_user_share: float = Field(0.1, gt=0, lt=1)
    """Slice heavy_users: so large a share of the users, those with the most interactions; ties are all in."""
    new_user_days: int = Field(28, ge=1)
    """Slice new_users: known users whose first interaction lies at most so many days before the cutoff."""
    head_share: float = Field(0.5, gt=0, lt=1)
    """Slice head_items: the most popular items, so many that they have this share of the interactions; ties are all in."""
    num_categories: int = Field(5, ge=0, le=100)
    """Slices category:NAME for so many categories, those with the most interactions; 0 makes none."""
    example_user: str | None = None
    """User whose history and lists the report shows by id, or `median` for the one of median activity; null shows nobody's."""

    @field_validator("k")
    @classmethod
    def _each_once(cls, k: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(k)) < len(k):
            raise ValueError("expected every cut-off once")
        return k
