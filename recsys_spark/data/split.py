"""The global time split: train before validation_start, validation before test_start, test from there on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.columns import EVENT_DATE
from recsys_spark.config import SplitConfig
from recsys_spark.errors import DataError


@dataclass(frozen=True)
class SplitDates:
    """First days of validation and of test, and the first day after the last event. All midnight UTC."""

    validation_start: date
    test_start: date
    end: date

    def truth_end(self, cutoff: date) -> date:
        """Give the first day that is no longer truth for lists made at the cutoff: validation never looks into test."""
        return self.test_start if cutoff < self.test_start else self.end


def split_dates(events_per_day: Mapping[date, int], config: SplitConfig) -> SplitDates:
    """Choose the dates that the config leaves open: test gets about test_share of the events (whole days), validation likewise.

    Raises DataError when a part would be empty, naming the dates that there are.
    """
    if not events_per_day:
        raise DataError("the events table is empty, so it cannot be split; run jobs/ingest_events.py first")
    days = sorted(events_per_day)
    total = sum(events_per_day.values())
    test_start = config.test_start or _latest_start(events_per_day, days, config.test_share * total)
    before_test = [day for day in days if day < test_start]
    validation_start = config.validation_start or _latest_start(
        events_per_day, before_test, config.validation_share * total
    )
    dates = SplitDates(validation_start, test_start, days[-1] + timedelta(days=1))
    is_ordered = days[0] < dates.validation_start < dates.test_start < dates.end
    if not is_ordered:
        raise DataError(
            f"split dates must cut the events ({days[0]} to {days[-1]}, {len(days)} days) into train, validation and test; found "
            f"validation_start={validation_start}, test_start={test_start}; set split.validation_start and split.test_start"
        )
    return dates


def count_events_per_day(events: DataFrame) -> dict[date, int]:
    """Count the events of each day. Runs a Spark job."""
    return {row[EVENT_DATE]: row["count"] for row in events.groupBy(EVENT_DATE).count().collect()}


def events_before(events: DataFrame, cutoff: date) -> DataFrame:
    """Give the events before midnight UTC of the cutoff: all that may be learned from."""
    return events.where(F.col(EVENT_DATE) < F.lit(cutoff))


def events_between(events: DataFrame, first: date, end: date) -> DataFrame:
    """Give the events from first (included) to end (left out): the truth of lists made at `first`."""
    return events.where((F.col(EVENT_DATE) >= F.lit(first)) & (F.col(EVENT_DATE) < F.lit(end)))


def _latest_start(events_per_day: Mapping[date, int], days: list[date], wanted: float) -> date:
    """Give the latest of the days from which on at least `wanted` events remain; the day after them when there are no days."""
    remaining = 0
    for day in reversed(days):
        remaining += events_per_day[day]
        if remaining >= wanted:
            return day
    return days[0] if days else min(events_per_day)
