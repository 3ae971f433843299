"""The part of the configuration that says how events are cleaned before models learn from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from recsys_spark.columns import (
    ATTRIBUTES,
    EVENT_DATE,
    EVENT_ID,
    EVENT_TYPE,
    INGEST_RUN,
    ITEM_ID,
    QUERY,
    SESSION_ID,
    SOURCE,
    TIMESTAMP,
    USER_ID,
    VALUE,
)
from recsys_spark.config_base import BaseConfig

_NO_NUMBERS = {
    EVENT_ID, USER_ID, ITEM_ID, EVENT_TYPE, TIMESTAMP, SESSION_ID, QUERY, ATTRIBUTES, EVENT_DATE, SOURCE, INGEST_RUN,
}  # fmt: skip


def _number_name(name: str) -> str:
    if not name.strip() or name in _NO_NUMBERS:
        raise ValueError(f"expected {VALUE} or the name of an attribute that holds numbers, found {name!r}")
    return name


NumberName = Annotated[str, AfterValidator(_number_name)]
GroupColumn = Literal["user_id", "item_id", "event_type"]


class MissingConfig(BaseConfig):
    """What is done with events that lack a number."""

    method: Literal["drop", "default", "mean", "median"]
    """drop leaves the event out; default fills in `default`, mean and median that of the group."""
    by: tuple[GroupColumn, ...] = ()
    """Columns that name the group of mean and median; empty: all events are one group."""
    default: float | None = None
    """Filled in by method default, and by mean and median in groups without any number; null leaves those missing."""

    @model_validator(mode="after")
    def _fits_its_method(self) -> MissingConfig:
        if self.method == "default" and self.default is None:
            raise ValueError("method default expects `default`, the number to fill in")
        if self.method == "drop" and self.default is not None:
            raise ValueError("method drop fills nothing in; expected no `default`")
        if self.method in ("drop", "default") and self.by:
            raise ValueError(f"method {self.method} looks at one event only; expected no `by`, found {list(self.by)}")
        return self


class OutliersConfig(BaseConfig):
    """Where numbers are clipped."""

    method: Literal["quantile", "z_score"]
    """quantile clips to `low` and `high`, z_score to the mean plus and minus `limit` standard deviations of the group."""
    by: tuple[GroupColumn, ...] = ()
    """Columns that name the group; empty: all events are one group."""
    low: float | None = Field(None, gt=0, lt=1)
    """quantile: at most this share of the group's numbers lies below the lower bound; null: no lower bound."""
    high: float | None = Field(None, gt=0, lt=1)
    """quantile: at most 1 - high of the group's numbers lies above the upper bound; null: no upper bound."""
    limit: float | None = Field(None, gt=0)
    """z_score: standard deviations from the mean."""

    @model_validator(mode="after")
    def _fits_its_method(self) -> OutliersConfig:
        if self.method == "z_score" and (self.limit is None or self.low is not None or self.high is not None):
            raise ValueError("method z_score expects `limit`, and neither `low` nor `high`")
        if self.method == "quantile" and (self.limit is not None or (self.low is None and self.high is None)):
            raise ValueError("method quantile expects `low`, `high` or both, and no `limit`")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        return self


class RobotsConfig(BaseConfig):
    """Users who are no people."""

    max_events_per_hour: int | None = Field(None, ge=1)
    """A user with more events than this in any one clock hour (UTC) is left out of training; null: nobody is."""


class RatingsConfig(BaseConfig):
    """Ratings on one scale for generous and for harsh users."""

    column: NumberName | None = None
    """`value` or an attribute: becomes (rating - the user's mean) / the user's standard deviation + offset; null: nothing does."""
    offset: float = 0.0
    """What the user's mean rating becomes."""


class CleaningConfig(BaseConfig):
    """How the events before the cutoff are cleaned before models learn from them; the events table keeps what was ingested."""

    robots: RobotsConfig = RobotsConfig()
    """Users who are no people."""
    missing: dict[NumberName, MissingConfig] = {}
    """`value` or an attribute -> what is done where it is missing or no number."""
    outliers: dict[NumberName, OutliersConfig] = {}
    """`value` or an attribute -> where it is clipped."""
    ratings: RatingsConfig = RatingsConfig()
    """Ratings on one scale for generous and for harsh users."""

    def changed_numbers(self) -> set[str]:
        """Give the names of the numbers that cleaning changes; events that are only dropped change none."""
        filled = {name for name, rule in self.missing.items() if rule.method != "drop"}
        rated = {self.ratings.column} if self.ratings.column is not None else set()
        return filled | set(self.outliers) | rated
