"""Verdicts on a batch: each check with its limits, and what it says when there is nothing to compare with."""

from __future__ import annotations

from datetime import date, timedelta
from math import inf

import pytest
from factories import utc
from pydantic import ValidationError

from recsys_spark.config_checks import EventChecksConfig, ItemChecksConfig, LimitConfig, LowLimitConfig
from recsys_spark.data.checks import (
    KNOWN_ELSEWHERE,
    BatchProfile,
    PastRun,
    check_batch,
    check_written,
    last_runs,
    same_weekdays,
    worst_level,
)

DAY = date(2024, 3, 5)
BOTH = {"warn": 0.1, "fail": 0.5}


def limits(**changed):
    """The feed's checks with every default off, except what is given."""
    off = {name: {"warn": None} for name in ("volume_low", "volume_high", "duplicate_share")}
    return EventChecksConfig.model_validate({**off, **changed})


def batch(read=100.0, **known):
    return BatchProfile(read, **{"counts": {"inserted": read}, "readable": read, "columns": {}, "fields": {}, **known})


def past(day, read=100.0, fields=None, started="02:00"):
    return PastRun(day, utc(f"{(day or DAY) + timedelta(days=1)} {started}"), read, fields or {})


def judge(profile, history=(), run_date=DAY, **changed):
    """Give {check: (level, found)}."""
    results = check_batch(profile, history, run_date, limits(**changed), "events")
    return {result.name: (result.level, round(result.found, 4)) for result in results}


def message(profile, history=(), **changed):
    (result,) = check_batch(profile, history, DAY, limits(**changed), "events")
    return result.message


def test_without_limits_there_are_no_verdicts():
    full = batch(fields={"a": 1}, newest=utc("2024-01-01 00:00"))
    history = [past(DAY - timedelta(weeks=week), 10_000) for week in range(1, 9)]
    assert judge(full, history) == {}
    assert worst_level([]) == "ok"


@pytest.mark.parametrize(
    ("newest", "expected"),
    [
        ("2024-03-05 23:00", ("ok", 1)),
        ("2024-03-05 00:00", ("ok", 24)),  # a limit that is just reached still holds
        ("2024-03-04 23:00", ("warn", 25)),
        ("2024-03-03 23:00", ("fail", 49)),
        (None, ("fail", inf)),
    ],
)
def test_freshness_is_measured_to_the_end_of_the_run_date(newest, expected):
    profile = batch(newest=newest and utc(newest))
    assert judge(profile, freshness_hours={"warn": 24, "fail": 48}) == {"freshness_hours": expected}
    assert judge(profile, run_date=None, freshness_hours={"warn": 24, "fail": 48}) == {}


@pytest.mark.parametrize(("read", "low", "high"), [
    (100, "ok", "ok"), (50, "ok", "ok"), (49, "warn", "ok"), (19, "fail", "ok"), (201, "ok", "warn"), (0, "fail", "ok"),
])  # fmt: skip
def test_volume_is_compared_with_the_median_of_the_weekday(read, low, high):
    history = [past(DAY - timedelta(weeks=week), lines) for week, lines in ((1, 100), (2, 10), (3, 5000))]
    history += [past(DAY - timedelta(days=1), 1), past(DAY - timedelta(weeks=20), 1), past(None, 1), past(DAY, 1)]
    found = judge(batch(read), history, volume_low={"warn": 0.5, "fail": 0.2}, volume_high={"warn": 2})
    assert {name: level for name, (level, _) in found.items()} == {"volume_low": low, "volume_high": high}


def test_too_few_weeks_and_no_run_date_give_no_verdict_on_the_volume():
    history = [past(DAY - timedelta(weeks=week)) for week in (1, 2)]
    assert judge(batch(1), history, volume_low=BOTH | {"warn": 0.9}) == {}
    assert judge(batch(1), history, volume_low={"fail": 0.5}, volume_min_weeks=2) == {"volume_low": ("fail", 0.01)}
    assert judge(batch(1), history, None, volume_low={"fail": 0.5}, volume_min_weeks=2) == {}
    nothing = [past(DAY - timedelta(weeks=week), 0) for week in (1, 2, 3)]
    assert judge(batch(1), nothing, volume_low={"fail": 0.5}) == {}


def test_of_several_runs_of_a_day_the_newest_counts():
    week = DAY - timedelta(weeks=1)
    runs = [past(week, 7, started="05:00"), past(week, 3, started="02:00")]
    assert [run.read for run in same_weekdays(runs, DAY, 8)] == [7]


def test_null_shares_of_columns_and_of_fields():
    profile = batch(columns={"item_id": 95.0, "session_id": 80.0}, fields={"colour": 20.0})
    names = ("item_id", "session_id", "colour", "nothing")
    assert judge(profile, null_share=dict.fromkeys(names, BOTH)) == {
        "null_share.item_id": ("ok", 0.05), "null_share.session_id": ("warn", 0.2),
        "null_share.colour": ("fail", 0.8), "null_share.nothing": ("fail", 1.0),
    }  # fmt: skip
    assert judge(batch(readable=0), null_share={"item_id": BOTH}) == {}
    assert judge(batch(columns=None, fields=None), null_share={"item_id": BOTH}) == {}


def test_quarantined_shares_by_reason():
    profile = batch(counts={"inserted": 80, "quarantined": 20, "quarantined.malformed": 20})
    expected = {"quarantined_share.malformed": ("warn", 0.2), "quarantined_share.nul_byte": ("ok", 0)}
    assert judge(profile, quarantined_share={"malformed": BOTH, "nul_byte": BOTH}) == expected
    assert judge(batch(0), quarantined_share={"malformed": BOTH}) == {}


def test_drift_names_new_and_vanished_fields():
    history = [
        past(DAY - timedelta(days=3), fields={"a": 1.0, "long_gone": 1.0}),
        past(DAY - timedelta(days=2), fields={"a": 1.0, "b": 0.6, "rare": 0.1}),
        past(DAY - timedelta(days=1), fields={"a": 1.0, "b": 0.4}),
    ]
    profile = batch(fields={"a": 100.0, "x": 20.0, "rare": 1.0})
    on = {"new_field": {"warn": 0.1, "fail": 0.5}, "vanished_field": {"warn": 0, "fail": 0.3}, "drift_runs": 2}
    assert judge(profile, history, **on) == {"new_field": ("warn", 0.2), "vanished_field": ("fail", 0.4)}
    # compared with three runs, b was not in each of them
    assert judge(profile, history, **{**on, "drift_runs": 3})["vanished_field"] == ("ok", 0)
    assert judge(profile, [], **on) == {}
    assert judge(profile, [past(DAY - timedelta(days=1))], **on) == {}  # a run whose fields nobody asked for
    text = message(profile, history, new_field={"warn": 0.1}, drift_runs=2)
    assert "the last 2 runs did not have: x (20.0%)" in text
    assert "expected checks.events.new_field.warn = 0.1 to hold" in text


def test_drift_is_compared_with_days_before_the_run_date_not_with_later_ones_or_other_tries():
    days = [DAY - timedelta(days=2), DAY - timedelta(days=1), DAY, DAY + timedelta(days=1)]
    runs = [past(day, fields={str(day): 1.0}) for day in days]
    retried = past(days[1], fields={"retried": 1.0}, started="09:00")
    without_date = past(None, fields={"all": 1.0})
    assert last_runs([retried, *runs, without_date], DAY, 2) == [runs[0], retried]
    assert last_runs([*runs, without_date], None, 2) == [without_date]


def test_messages_shorten_names_and_lists_of_names():
    fields = {f"f{number:02}": 1.0 for number in range(12)} | {"x" * 200: 100.0}
    text = message(batch(fields=fields), [past(DAY - timedelta(days=1), fields={"a": 1.0})], new_field={"warn": 0.1})
    assert f"{'x' * 57}... (100.0%), f00 (1.0%)" in text
    assert "f08 (1.0%) and 3 more" in text
    assert "f09" not in text


def test_duplicates_in_the_batch_and_from_other_dates_count_but_not_those_of_a_rerun():
    config = limits(duplicate_share=BOTH)

    def share(counts, in_batch=0):
        profile = batch(counts={"inserted": 100 - in_batch, "duplicate": in_batch})
        return [(result.level, result.found) for result in check_written(profile, counts, config, "events")]

    assert share({"inserted": 95, "duplicate": 5}, in_batch=5) == [("ok", 0.05)]
    assert share({"inserted": 0, "duplicate": 100, KNOWN_ELSEWHERE: 0}) == [("ok", 0)]
    assert share({"inserted": 70, "duplicate": 30, KNOWN_ELSEWHERE: 20}, in_batch=10) == [("warn", 0.3)]
    assert share({"inserted": 40, "duplicate": 60, KNOWN_ELSEWHERE: 60, "quarantined": 900}) == [("fail", 0.6)]
    assert share({"inserted": 0, "quarantined": 10}) == []


def test_limits_are_in_order_and_a_section_keeps_the_defaults_of_other_keys():
    with pytest.raises(ValidationError, match="nobody would ever be warned"):
        LimitConfig(warn=2, fail=1)
    with pytest.raises(ValidationError, match="nobody would ever be warned"):
        LowLimitConfig(warn=1, fail=2)
    config = EventChecksConfig.model_validate({"volume_low": {"fail": 0.2}})
    assert (config.volume_low.warn, config.volume_low.fail) == (0.5, 0.2)
    with pytest.raises(ValidationError, match="can never be reached"):
        EventChecksConfig(volume_weeks=2)
    with pytest.raises(ValidationError, match="duplicate_share is for events"):
        ItemChecksConfig(duplicate_share=LimitConfig(warn=1))


def test_nothing_fails_and_no_field_is_counted_by_default():
    config = EventChecksConfig()
    assert not config.needs_fields
    assert config.needs_history
    assert not ItemChecksConfig().needs_history
    assert not any(limit.fail for limit in vars(config).values() if isinstance(limit, LimitConfig))
    assert EventChecksConfig.model_validate({"null_share": {"item_id": {"warn": 0.1}}}).needs_fields
