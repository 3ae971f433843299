"""The global time split: dates, their order, and no truth from before a cutoff (or learning from after it)."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from factories import make_events, table_rows

from recsys_spark.config import SplitConfig
from recsys_spark.data.split import SplitDates, events_before, events_between, split_dates
from recsys_spark.errors import DataError


def days(*counts):
    return {date(2024, 3, 1) + timedelta(days=number): count for number, count in enumerate(counts)}


def test_test_and_validation_get_the_last_days_that_hold_their_share():
    # 100 events: the last day holds 4, the last two 10, so test starts on the ninth day; the two before it hold 14
    per_day = days(20, 20, 15, 10, 6, 5, 8, 6, 6, 4)
    dates = split_dates(per_day, SplitConfig(test_share=0.1, validation_share=0.1))
    assert dates == SplitDates(date(2024, 3, 7), date(2024, 3, 9), date(2024, 3, 11))


def test_configured_dates_are_kept():
    config = SplitConfig.model_validate({"validation_start": "2024-03-02", "test_start": "2024-03-04"})
    assert split_dates(days(1, 1, 1, 1, 1), config) == SplitDates(date(2024, 3, 2), date(2024, 3, 4), date(2024, 3, 6))


def test_days_without_events_may_lie_between():
    per_day = {date(2024, 1, 1): 80, date(2024, 2, 1): 10, date(2024, 3, 1): 10}
    assert split_dates(per_day, SplitConfig()) == SplitDates(date(2024, 2, 1), date(2024, 3, 1), date(2024, 3, 2))


@pytest.mark.parametrize(
    ("per_day", "config", "problem"),
    [
        ({}, {}, "the events table is empty"),
        (days(5), {}, "1 days"),
        (days(5, 5), {}, "2 days"),
        (days(1, 1, 1), {"test_start": "2024-04-01"}, "test_start=2024-04-01"),
        (days(1, 1, 1), {"validation_start": "2024-03-01"}, "validation_start=2024-03-01"),
        (days(1, 1, 98), {"validation_start": "2024-03-03"}, "split.validation_start and split.test_start"),
    ],
)
def test_a_part_without_events_is_an_error_that_names_the_days(per_day, config, problem):
    with pytest.raises(DataError) as error:
        split_dates(per_day, SplitConfig.model_validate(config))
    assert problem in str(error.value)


def test_the_truth_of_validation_ends_where_test_starts():
    dates = SplitDates(date(2024, 3, 7), date(2024, 3, 9), date(2024, 3, 11))
    assert dates.truth_end(dates.validation_start) == dates.test_start
    assert dates.truth_end(dates.test_start) == dates.end


def test_midnight_belongs_to_the_truth_and_the_second_before_to_what_is_learned(spark):
    events = make_events(
        spark,
        [
            {"event_id": "second before", "timestamp": "2024-03-06 23:59:59.999999"},
            {"event_id": "midnight", "timestamp": "2024-03-07 00:00:00"},
            {"event_id": "last of truth", "timestamp": "2024-03-08 23:59:59.999999"},
            {"event_id": "behind truth", "timestamp": "2024-03-09 00:00:00"},
        ],
    )
    cutoff, end = date(2024, 3, 7), date(2024, 3, 9)
    assert table_rows(events_before(events, cutoff), "event_id") == [("second before",)]
    assert table_rows(events_between(events, cutoff, end), "event_id") == [("last of truth",), ("midnight",)]


def test_every_event_is_in_exactly_one_part(spark):
    events = make_events(
        spark, [{"timestamp": f"2024-03-{day:02} {hour:02}:00:00"} for day in range(1, 11) for hour in (0, 23)]
    )
    dates = split_dates(days(*[2] * 10), SplitConfig())
    parts = [
        events_before(events, dates.validation_start),
        events_between(events, dates.validation_start, dates.test_start),
        events_between(events, dates.test_start, dates.end),
    ]
    assert sorted(row for part in parts for row in table_rows(part, "event_id")) == table_rows(events, "event_id")
