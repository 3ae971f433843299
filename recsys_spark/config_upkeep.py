"""The part of the configuration that says how tables are kept in shape and how users are erased."""

from __future__ import annotations

from pydantic import Field, model_validator

from recsys_spark.config_base import BaseConfig

SAFE_VACUUM_HOURS = 168
"""Delta's own bound: readers and writers that started later still find their files."""


class MaintainConfig(BaseConfig):
    """Upkeep of the tables' files."""

    vacuum_hours: int = Field(SAFE_VACUUM_HOURS, ge=0)
    """Files that a table no longer uses are deleted after this many hours; no older version of it can be read then."""
    allow_short_retention: bool = False
    """Allow vacuum_hours below 168; only while nothing else reads or writes, since it deletes files that others are writing."""
    keep_dates: int | None = Field(None, ge=2)
    """Newest dates of interactions, models (each apart) and recommendations that are kept; null keeps all."""
    whole_table_bytes: int = Field(10 * 2**30, ge=0)
    """Tables without a partition by date are compacted as a whole up to this size; larger ones are left as they are."""

    @model_validator(mode="after")
    def _retention_is_safe(self) -> MaintainConfig:
        if self.vacuum_hours < SAFE_VACUUM_HOURS and not self.allow_short_retention:
            raise ValueError(
                f"vacuum_hours {self.vacuum_hours} is below {SAFE_VACUUM_HOURS}, which deletes files under running jobs; "
                "raise it, or set maintain.allow_short_retention when nothing else runs"
            )
        return self


class EraseConfig(BaseConfig):
    """Erasure of users."""

    users_file: str | None = None
    """Local text file with one raw user id per line (UTF-8); ids never stand in a config or on a command line."""
