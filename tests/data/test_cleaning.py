"""Robots, missing numbers, outliers and ratings: each step on a table that can be checked by thought."""

from __future__ import annotations

import math
import statistics

import pytest
from factories import make_events, table_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_spark.config_cleaning import CleaningConfig
from recsys_spark.data.cleaning import (
    clean_events,
    cleaning_steps,
    count_cleaned,
    kept_events,
    mark_events,
    without_robots,
)

HUGE = 1e308


def rows_of(column, groups):
    """`{"a": [1, None]}` -> one event for each number, whose column says its group; ids in this order."""
    return [
        {column: group, "value": None if value is None else float(value)}
        for group, values in groups.items()
        for value in values
    ]


def cleaned(spark, rows, **config):
    """The cleaned events by id."""
    kept = clean_events(make_events(spark, rows), CleaningConfig.model_validate(config)).collect()
    return {row.event_id: row for row in sorted(kept, key=lambda row: int(row.event_id[1:]))}


def values(spark, rows, **rule):
    """The numbers after cleaning `value`, in the order of the rows."""
    return [row.value for row in cleaned(spark, rows, **rule).values()]


def values_by_group(spark, column, groups, **config):
    found = iter(values(spark, rows_of(column, groups), **config))
    return {group: [next(found) for _ in numbers] for group, numbers in groups.items()}


def counts(spark, rows, **config):
    return (
        count_cleaned(mark_events(make_events(spark, rows), CleaningConfig.model_validate(config)))
        .collect()[0]
        .asDict()
    )


def test_without_a_step_the_frame_is_given_back(spark):
    events = make_events(spark, [{"value": math.nan}])
    assert cleaning_steps(CleaningConfig()) == []
    assert clean_events(events, CleaningConfig()) is events
    assert without_robots(events, CleaningConfig.model_validate({"missing": {"value": {"method": "drop"}}})) is events


def test_a_user_over_the_limit_in_one_hour_loses_all_events(spark):
    rows = [
        *[{"user_id": "robot", "timestamp": f"2024-03-05 10:{minute}"} for minute in ("00", "30", "59:59.999999")],
        {"user_id": "robot", "timestamp": "2024-01-01 10:00", "event_type": "search", "item_id": None},
        *[{"user_id": "at the limit", "timestamp": "2024-03-05 10:00"}] * 2,
        *[
            {"user_id": "over the full hour", "timestamp": f"2024-03-05 {at}"}
            for at in ("10:58", "10:59", "11:00", "11:01")
        ],
    ]
    events = make_events(spark, rows)
    kept = without_robots(events, CleaningConfig.model_validate({"robots": {"max_events_per_hour": 2}}))
    assert kept.columns == events.columns
    assert {row.user_id for row in kept.collect()} == {"at the limit", "over the full hour"}
    assert counts(spark, rows, robots={"max_events_per_hour": 2}) == {
        "cleaning.dropped": 4, "cleaning.robots.users": 1, "cleaning.robots.events": 4,
    }  # fmt: skip


def test_an_hour_is_one_of_utc_whatever_the_sessions_time_zone(spark):
    rows = [{"timestamp": "2024-03-05 10:20"}, {"timestamp": "2024-03-05 10:40"}]  # in India 15:50 and 16:10
    spark.conf.set("spark.sql.session.timeZone", "Asia/Kolkata")
    try:
        assert cleaned(spark, rows, robots={"max_events_per_hour": 1}) == {}
    finally:
        spark.conf.set("spark.sql.session.timeZone", "UTC")


def test_texts_that_are_no_finite_number_are_missing(spark):
    texts = ["12", "-1e2", "n/a", "", "3d", "NaN", "Infinity"]
    rows = [
        *[{"attributes": {"dwell (s)": text}} for text in texts],
        {"attributes": {"other": "1"}},
        {"attributes": {"dwell (s)": None}},
        {"attributes": None},
    ]
    assert list(cleaned(spark, rows, missing={"dwell (s)": {"method": "drop"}})) == ["e0", "e1"]
    numbers = [{"value": number} for number in (0.0, -1.0, math.nan, math.inf, -math.inf, None)]
    assert values(spark, numbers, missing={"value": {"method": "drop"}}) == [0.0, -1.0]


def test_an_attribute_changes_alone_and_only_where_it_is_missing(spark):
    rows = [
        {"attributes": {"dwell": "07", "page": "a"}},
        {"attributes": {"dwell": "n/a", "page": "b"}},
        {"attributes": None},
    ]
    found = cleaned(spark, rows, missing={"dwell": {"method": "default", "default": 2.5}})
    assert [row.attributes for row in found.values()] == [
        {"dwell": "07", "page": "a"}, {"dwell": "2.5", "page": "b"}, {"dwell": "2.5"},
    ]  # fmt: skip


FILLED = {"even": [1, 2, 6, 7, None], "one": [3, None, None], "none": [None], None: [100, None]}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"method": "mean"}, {"even": 4, "one": 3, "none": None, None: None}),
        ({"method": "median"}, {"even": 4, "one": 3, "none": None, None: None}),
        ({"method": "median", "default": 0}, {"even": 4, "one": 3, "none": 0, None: 0}),
    ],
    ids=str,
)
def test_groups_are_filled_in_from_their_own_numbers(spark, rule, expected):
    found = values_by_group(spark, "item_id", FILLED, missing={"value": {"by": ["item_id"], **rule}})
    assert found == {
        group: [expected[group] if value is None else value for value in numbers] for group, numbers in FILLED.items()
    }


def test_mean_and_median_differ_and_without_a_group_are_those_of_all_events(spark):
    rows = rows_of("item_id", {"a": [1, 2], "b": [9], None: [None]})
    assert values(spark, rows, missing={"value": {"method": "mean"}})[-1] == 4
    assert values(spark, rows, missing={"value": {"method": "median"}})[-1] == 2


@pytest.mark.parametrize("step", ["fill", "quantile", "z_score", "ratings"])
def test_nothing_but_missing_numbers_stays_missing(spark, step):
    config = {
        "fill": {"missing": {"value": {"method": "mean"}}},
        "quantile": {"outliers": {"value": {"method": "quantile", "high": 0.5}}},
        "z_score": {"outliers": {"value": {"method": "z_score", "limit": 1}}},
        "ratings": {"ratings": {"column": "value"}},
    }[step]
    assert values(spark, [{"value": math.nan}, {"value": None}], **config) == [None, None]


def test_quantiles_clip_to_numbers_that_are_there(spark):
    groups = {"ten": range(1, 11), "one": [1000], "ties": [5, 5, 5, 5, 100, 100], None: [0, -1000]}
    rule = {"method": "quantile", "low": 0.1, "high": 0.8, "by": ["item_id"]}
    assert values_by_group(spark, "item_id", groups, outliers={"value": rule}) == {
        "ten": [2, 2, 3, 4, 5, 6, 7, 8, 8, 8],  # one of ten lies below 2, two of ten above 8
        "one": [1000],
        "ties": [5, 5, 5, 5, 100, 100],  # a third is above 5, which is more than a fifth
        None: [0, -1000],
    }


def test_a_quantile_without_a_lower_bound_clips_above_only(spark):
    rows = rows_of("item_id", {"a": [-1000, 1, 2, 3, 1000]})
    assert values(spark, rows, outliers={"value": {"method": "quantile", "high": 0.8}}) == [-1000, 1, 2, 3, 3]


def test_z_scores_clip_to_the_mean_and_so_many_deviations(spark):
    # mean 2, population deviation 4; 0.1 three times sums to 0.30000000000000004, and has no deviation all the same
    groups = {"spread": [0, 0, 0, 0, 10], "mirrored": [0, 0, 0, 0, -10], "equal": [0.1] * 3, "one": [1000]}
    rule = {"method": "z_score", "limit": 1, "by": ["event_type"]}
    assert values_by_group(spark, "event_type", groups, outliers={"value": rule}) == {
        "spread": [0, 0, 0, 0, 6], "mirrored": [0, 0, 0, 0, -6], "equal": [0.1] * 3, "one": [1000],
    }  # fmt: skip


def test_ratings_lose_the_users_mean_and_deviation(spark):
    groups = {"harsh": [1, 2, 3], "generous": [3, 4, 5, None], "equal": [0.1] * 3, "one": [5]}
    high = 1 / statistics.pstdev([1, 2, 3])
    found = values_by_group(spark, "user_id", groups, ratings={"column": "value", "offset": 2})
    assert found == {"harsh": [2 - high, 2, 2 + high], "generous": [2 - high, 2, 2 + high, None],
                     "equal": [2] * 3, "one": [2]}  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [
        {"outliers": {"value": {"method": "z_score", "limit": 1}}, "missing": {"value": {"method": "mean"}}},
        {"outliers": {"value": {"method": "quantile", "low": 0.3}}, "missing": {"value": {"method": "median"}}},
        {"ratings": {"column": "value"}},
    ],
    ids=str,
)
def test_numbers_at_the_ends_of_double_stay_finite(spark, config):
    found = values(spark, rows_of("item_id", {"a": [HUGE, HUGE, -HUGE, -HUGE, 5e-324, 0, None]}), **config)
    assert all(value is None or math.isfinite(value) for value in found)
    assert found[:-1].count(None) == 0


def test_robots_and_incomplete_events_count_in_no_statistic_and_outliers_in_no_mean(spark):
    rows = [
        *[{"user_id": "robot", "value": 0.0, "attributes": {"dwell": "1"}}] * 4,
        {"value": 0.0, "attributes": {}},
        *[{"value": value, "attributes": {"dwell": "1"}, "timestamp": "2024-03-04"} for value in (1.0, 3.0, 1000.0)],
        {"value": None, "attributes": {"dwell": "1"}},
    ]
    config = {
        "robots": {"max_events_per_hour": 3},
        "outliers": {"value": {"method": "quantile", "high": 0.6}},
        "missing": {"value": {"method": "mean"}, "dwell": {"method": "drop"}},
    }
    assert values(spark, rows, **config) == pytest.approx([1, 3, 3, 7 / 3])


def test_every_step_counts_what_it_did(spark):
    rows = rows_of("user_id", {"a": [1, 2, None], "b": [40]})
    config = {
        "missing": {"value": {"method": "drop"}, "dwell": {"method": "default", "default": 0}},
        "outliers": {"value": {"method": "quantile", "high": 0.5}},
        "ratings": {"column": "value"},
    }
    assert counts(spark, rows, **config) == {
        "cleaning.dropped": 1, "cleaning.missing.value": 1, "cleaning.missing.dwell": 3, "cleaning.outliers.value": 1,
        "cleaning.ratings.value": 3,
    }  # fmt: skip


def test_names_with_every_sign_work(spark):
    name = "a.b`c'd\"e\\f"
    rows = [{"attributes": {name: text, "a": "1"}} for text in ("1", "x")]
    found = cleaned(
        spark, rows, missing={name: {"method": "mean"}}, outliers={name: {"method": "quantile", "high": 0.5}}
    )
    assert [row.attributes for row in found.values()] == [{name: "1", "a": "1"}, {name: "1.0", "a": "1"}]


def test_no_bit_depends_on_the_order_or_the_partitions(spark):
    numbers = [(number * 0.1) ** 5 for number in range(60)]
    rows = [{"event_id": f"e{n}", "user_id": f"u{n % 3}", "value": x if n % 7 else None} for n, x in enumerate(numbers)]
    config = CleaningConfig.model_validate(
        {
            "outliers": {"value": {"method": "z_score", "limit": 1.5}},
            "missing": {"value": {"method": "mean", "by": ["user_id"]}},
        }
    )
    frames = [make_events(spark, rows).coalesce(1), make_events(spark, rows[::-1]).repartition(3)]
    first, second = (table_rows(clean_events(frame, config), "event_id", "value") for frame in frames)
    assert first == second


numbers = st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda number: round(number, 3))


@settings(max_examples=2, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(numbers, min_size=1, max_size=9), min_size=1, max_size=12), st.floats(0.05, 0.4))
def test_every_group_has_the_properties_that_the_steps_promise(spark, groups, share):
    users = {f"u{number}": group for number, group in enumerate(groups)}
    events = make_events(spark, rows_of("user_id", users))
    rule = {"method": "quantile", "low": share, "high": 1 - share, "by": ["user_id"]}
    clip = CleaningConfig.model_validate({"outliers": {"value": rule}})
    once = mark_events(events, clip)
    twice = mark_events(kept_events(once).select(*events.columns), clip)
    rated = clean_events(events, CleaningConfig.model_validate({"ratings": {"column": "value"}}))
    assert count_cleaned(twice).collect()[0]["cleaning.outliers.value"] == 0
    clipped, scores = by_user(once), by_user(rated)
    for user, group in users.items():
        bounds = min(clipped[user]), max(clipped[user])
        assert set(clipped[user]) <= set(group)
        assert clipped[user] == sorted(min(max(x, bounds[0]), bounds[1]) for x in group)
        assert sum(x < bounds[0] for x in group) <= share * len(group) + 1e-9
        assert sum(x > bounds[1] for x in group) <= share * len(group) + 1e-9
        assert statistics.fmean(scores[user]) == pytest.approx(0, abs=1e-6)
        assert statistics.pstdev(scores[user]) == pytest.approx(1 if len(set(group)) > 1 else 0, abs=1e-6)


def by_user(frame):
    found = {}
    for row in frame.collect():
        found.setdefault(row.user_id, []).append(row.value)
    return {user: sorted(group) for user, group in found.items()}
