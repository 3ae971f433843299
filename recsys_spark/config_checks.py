"""The part of the configuration that says what an ingest run must look like: docs/guide/monitoring.md explains each check."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from recsys_spark.config_base import BaseConfig


class LimitConfig(BaseConfig):
    """From where on a check warns and fails; null: it never does. A value that equals the limit is still good."""

    warn: float | None = Field(None, ge=0)
    """Beyond this the run ends with a warning."""
    fail: float | None = Field(None, ge=0)
    """Beyond this the run stops with exit code 3."""

    @model_validator(mode="after")
    def _in_order(self) -> LimitConfig:
        if self.warn is not None and self.fail is not None and self.is_beyond(self.warn, self.fail):
            raise ValueError(f"warn = {self.warn} lies beyond fail = {self.fail}, so that nobody would ever be warned")
        return self

    @property
    def is_on(self) -> bool:
        """Say whether there is anything to check."""
        return self.warn is not None or self.fail is not None

    def is_beyond(self, value: float, limit: float) -> bool:
        """Say whether a value breaks a limit."""
        return value > limit


class LowLimitConfig(LimitConfig):
    """A limit that is broken from below."""

    def is_beyond(self, value: float, limit: float) -> bool:
        """Say whether a value breaks a limit."""
        return value < limit


class FeedChecksConfig(BaseConfig):
    """Limits for every run of one feed."""

    freshness_hours: LimitConfig = LimitConfig()
    """Hours from the newest timestamp (items: updated_at) to the end of the run date's day; needs `--date`."""
    volume_low: LowLimitConfig = LowLimitConfig()
    """Lines read, divided by the median of the same weekday in the weeks before; broken from below; needs `--date`."""
    volume_high: LimitConfig = LimitConfig()
    """The same ratio, broken from above."""
    volume_weeks: int = Field(8, ge=1, le=104)
    """How many weeks back volume and fields are compared."""
    volume_min_weeks: int = Field(3, ge=1, le=104)
    """With fewer of these weeks in the history there is no verdict on the volume."""
    null_share: dict[str, LimitConfig] = Field({})
    """Our column, or a field that is kept in attributes -> share of the readable lines that lack it."""
    duplicate_share: LimitConfig = LimitConfig()
    """Share of the lines that hold an event which was there before, in this batch or from another date's run; events only."""
    quarantined_share: dict[str, LimitConfig] = Field({})
    """Reason -> share of the lines read; ingest.max_quarantined_share limits their sum."""
    new_field: LimitConfig = LimitConfig()
    """Share of the readable lines with a field that none of the last runs had."""
    vanished_field: LimitConfig = LimitConfig()
    """Smallest share of lines, over the last runs, that had a field which no line of this run has."""
    drift_runs: int = Field(3, ge=1, le=100)
    """How many of the last runs the fields are compared with."""

    @model_validator(mode="after")
    def _weeks_in_order(self) -> FeedChecksConfig:
        if self.volume_min_weeks > self.volume_weeks:
            raise ValueError(
                f"volume_min_weeks = {self.volume_min_weeks} can never be reached in volume_weeks = {self.volume_weeks}"
            )
        return self

    @property
    def needs_fields(self) -> bool:
        """Say whether a check asks which fields the lines had; that costs one more look at every line."""
        return (
            self.new_field.is_on or self.vanished_field.is_on or any(limit.is_on for limit in self.null_share.values())
        )

    @property
    def needs_history(self) -> bool:
        """Say whether a check compares with earlier runs."""
        return any(limit.is_on for limit in (self.volume_low, self.volume_high, self.new_field, self.vanished_field))


class EventChecksConfig(FeedChecksConfig):
    """Limits for every run of the behaviour log. Nothing fails by default."""

    volume_low: LowLimitConfig = LowLimitConfig(warn=0.5)
    """Lines read, divided by the median of the same weekday in the weeks before; broken from below; needs `--date`."""
    volume_high: LimitConfig = LimitConfig(warn=2.0)
    """The same ratio, broken from above."""
    duplicate_share: LimitConfig = LimitConfig(warn=0.5)
    """Share of the lines that hold an event which was there before, in this batch or from another date's run; events only."""

    @field_validator("volume_low", "volume_high", "duplicate_share", mode="before")
    @classmethod
    def _keep_the_other_default(cls, given: Any, info: ValidationInfo) -> Any:
        """`volume_low: {fail: 0.2}` keeps the default of warn, as sections do everywhere else."""
        default = cls.model_fields[str(info.field_name)].default
        return {**default.model_dump(), **given} if isinstance(given, dict) else given


class ItemChecksConfig(FeedChecksConfig):
    """Limits for every run of the item feed; all off by default."""

    @model_validator(mode="after")
    def _no_duplicates(self) -> ItemChecksConfig:
        if self.duplicate_share.is_on:
            raise ValueError("duplicate_share is for events: a full item feed holds the same items every day")
        return self


class ChecksConfig(BaseConfig):
    """What an ingest run must look like, else it warns or stops."""

    events: EventChecksConfig = EventChecksConfig()
    """The behaviour log."""
    items: ItemChecksConfig = ItemChecksConfig()
    """The item feed."""
