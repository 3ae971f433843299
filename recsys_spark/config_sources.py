"""The part of the configuration that says what is ingested: the feeds, and how their fields become our columns."""

from __future__ import annotations

import re
from datetime import date
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from recsys_spark.config_base import BaseConfig


class ColumnConfig(BaseConfig):
    """Where one of our columns comes from. A plain string in the YAML is short for `column: that string`."""

    column: str | None = None
    """Field of the source."""
    expression: str | None = None
    """Spark SQL over the source's fields (all of them strings), for example `concat('m', movieId)`."""
    value: str | None = None
    """A constant."""
    type: Literal["string", "integer", "double"] | None = None
    """What the field must hold; null takes our column's own type. `integer` makes the ids 17850, "17850.0" and "017850" one."""
    timestamp_format: str | None = None
    """Spark datetime pattern, `epoch_seconds` or `epoch_millis`; null reads ISO 8601, without an offset as UTC."""

    @model_validator(mode="after")
    def _one_origin(self) -> ColumnConfig:
        origins = [name for name in ("column", "expression", "value") if getattr(self, name) is not None]
        if len(origins) != 1:
            raise ValueError(f"expected exactly one of column, expression, value; found {origins or 'none'}")
        return self


class EventIdConfig(BaseConfig):
    """How event_id is made when the source has none: a stable hash of named fields."""

    hash_of: tuple[str, ...] = Field(min_length=1)
    """Fields of the source whose values together name an event."""
    numbered: bool = False
    """Number equal lines of one file, where they are real repeats and not double deliveries."""


class SourceConfig(BaseConfig):
    """One feed of files and how its fields become our columns."""

    name: str = Field("default", pattern=r"^[A-Za-z0-9_.-]+$")
    """Kept with every row; choose one per feed."""
    path: str | None = None
    """File, folder or glob, local or any Hadoop URI; `{date}` stands for the run date, or for any when there is none."""
    format: Literal["json", "csv", "parquet"] = "json"
    """json is one object a line."""
    delimiter: str = Field(",", min_length=1, max_length=8)
    """csv: what separates fields; several characters are allowed."""
    header: bool | tuple[str, ...] = True
    """csv: true reads the names from each file's first line; a list names the fields of files without such a line."""
    quote: str = Field('"', max_length=1)
    """csv: quote character; empty switches quoting off."""
    encoding: str = "UTF-8"
    """Character set of text files."""
    max_line_bytes: int = Field(1_000_000, ge=100)
    """Longer lines are quarantined."""
    date_pattern: str | None = None
    """Regular expression with one group that finds the delivery date (YYYY-MM-DD) in a file's path.

    With it `--date` reads that day's files only."""
    columns: dict[str, ColumnConfig] = {}
    """Our column -> where it comes from. Fields that no column uses are kept in attributes."""
    filters: dict[str, str] = {}
    """Rule name -> Spark SQL over the source's fields; lines where it holds are dropped and counted under that name."""

    @field_validator("encoding")
    @classmethod
    def _splits_at_newlines(cls, encoding: str) -> str:
        if encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32", "utf16", "utf32")):
            raise ValueError(
                "lines are split at the byte of a newline, which this encoding does not have; convert the files to UTF-8"
            )
        return encoding

    @field_validator("date_pattern")
    @classmethod
    def _has_one_group(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        if "(?P" in pattern:  # Spark reads dates with Java's regular expressions
            raise ValueError("expected a plain group around the date, as (\\d{4}-\\d{2}-\\d{2}), found (?P of Python")
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from None
        if groups < 1:
            raise ValueError("expected a group (in parentheses) around the date, found none")
        return pattern

    @field_validator("columns", mode="before")
    @classmethod
    def _short_form(cls, columns: Any) -> Any:
        if not isinstance(columns, dict):
            return columns
        return {name: {"column": origin} if isinstance(origin, str) else origin for name, origin in columns.items()}


class EventSourceConfig(SourceConfig):
    """The behaviour log."""

    columns: dict[str, ColumnConfig] = {
        name: ColumnConfig(column=name) for name in ("event_id", "user_id", "item_id", "event_type", "timestamp")
    }
    """Our column -> where it comes from. Required are user_id, item_id, event_type, timestamp, and event_id unless it is made below."""
    event_id: EventIdConfig | None = None
    """How event_id is made when the source has none."""
    event_types: tuple[str, ...] | None = None
    """Accepted event types; null accepts any."""
    item_optional_for: tuple[str, ...] = ("search",)
    """Event types that may come without an item."""
    timestamp_min: date = date(1990, 1, 1)
    """Earlier events are quarantined."""
    timestamp_max: date = date(2100, 1, 1)
    """Later events are quarantined."""
    max_days_ahead: int = Field(2, ge=0)
    """Events more than this many days after their delivery date are quarantined (a collector's clock is wrong)."""

    @model_validator(mode="after")
    def _required_columns(self) -> EventSourceConfig:
        known = {"event_id", "user_id", "item_id", "event_type", "timestamp", "session_id", "query", "value"}
        required = {"user_id", "item_id", "event_type", "timestamp"} | (set() if self.event_id else {"event_id"})
        return _check_columns(self, known, required)


class ItemSourceConfig(SourceConfig):
    """The item feed; without a path the line runs without item texts."""

    columns: dict[str, ColumnConfig] = {name: ColumnConfig(column=name) for name in ("item_id", "title")}
    """Our column -> where it comes from. item_id is required."""

    @model_validator(mode="after")
    def _required_columns(self) -> ItemSourceConfig:
        known = {"item_id", "title", "text", "category", "brand", "price", "updated_at"}
        return _check_columns(self, known, {"item_id"})


def _check_columns(source: Any, known: set[str], required: set[str]) -> Any:
    unknown, missing = sorted(set(source.columns) - known), sorted(required - set(source.columns))
    if unknown:
        raise ValueError(f"columns {unknown} are not ours; ours are {sorted(known)} (other fields land in attributes)")
    if missing:
        raise ValueError(f"columns {missing} are required; say where each comes from")
    return source


class SourcesConfig(BaseConfig):
    """What is ingested."""

    events: EventSourceConfig = EventSourceConfig()
    """The behaviour log."""
    items: ItemSourceConfig = ItemSourceConfig()
    """The item feed."""
