"""Judge a batch by its profile and by the runs before it. Knows no Spark: numbers in, verdicts out.

Messages name fields, reasons and figures, never a value that a line held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from math import inf
from statistics import median
from typing import Literal

from recsys_spark.columns import Bucket
from recsys_spark.config_checks import FeedChecksConfig, LimitConfig

Level = Literal["ok", "warn", "fail"]
LEVELS: tuple[Level, ...] = ("ok", "warn", "fail")

# Of the duplicates: events that a run of another date had stored. Copies of what the same date's runs stored are left out,
# because a rerun would be nothing else.
KNOWN_ELSEWHERE = "known_elsewhere"

_EVENT_BUCKETS = (Bucket.INSERTED, Bucket.DUPLICATE, Bucket.NEAR_DUPLICATE, Bucket.LATE)
_MAX_NAMES = 10  # in a message
_MAX_NAME = 60  # characters; a feed of broken JSON may have whole texts for names


@dataclass(frozen=True)
class BatchProfile:
    """What the checks know of one batch.

    counts are lines by bucket, with `filtered.RULE` and `quarantined.REASON`; their sum over the buckets is read. readable are
    the lines whose fields could be split and that no filter took; columns (ours) and fields (the source's) say how many of
    those have a value there, and are empty when nobody asked. Timestamps are UTC and those of events (items: updated_at), null
    without any; newest is the last one before the end of the run date's day, so that a clock which is ahead hides nothing.
    new_days are the first and last day of the lines in the bucket inserted, faults the quarantined lines by reason and detail.
    """

    read: float
    counts: Mapping[str, float]
    readable: float = 0
    columns: Mapping[str, float] | None = None
    fields: Mapping[str, float] | None = None
    first: datetime | None = None
    last: datetime | None = None
    newest: datetime | None = None
    new_days: tuple[date, date] | None = None
    faults: Mapping[tuple[str, str | None], float] = field(default_factory=dict)

    def field_shares(self) -> dict[str, float]:
        """Give each field's share of the readable lines; empty when fields were not looked at or there are no such lines."""
        return {name: lines / self.readable for name, lines in (self.fields or {}).items()} if self.readable else {}


@dataclass(frozen=True)
class PastRun:
    """An earlier run of the same feed that wrote its lines; fields are shares of its readable lines, empty when unknown."""

    run_date: date | None
    started_at: datetime
    read: float
    fields: Mapping[str, float]


@dataclass(frozen=True)
class CheckResult:
    """The verdict of one check; limit is the one that is broken, or the nearest that holds. message says what to do."""

    name: str
    level: Level
    found: float
    limit: float
    message: str


def check_batch(
    profile: BatchProfile, history: Sequence[PastRun], run_date: date | None, config: FeedChecksConfig, feed: str
) -> list[CheckResult]:
    """Give the verdicts that need nothing but the batch and the history; a check without a limit or a basis gives none."""
    results = [
        _freshness(profile, run_date, config.freshness_hours, feed),
        *_volume(profile, history, run_date, config, feed),
        *[_null_share(profile, name, limit, feed) for name, limit in config.null_share.items()],
        *[_quarantined_share(profile, reason, limit, feed) for reason, limit in config.quarantined_share.items()],
        *_drift(profile, history, run_date, config, feed),
    ]
    return [result for result in results if result is not None]


def check_written(
    profile: BatchProfile, counts: Mapping[str, float], config: FeedChecksConfig, feed: str
) -> list[CheckResult]:
    """Give the verdict on duplicates, which only the table can tell; counts are those after the write.

    A duplicate is a copy inside the batch, or one of KNOWN_ELSEWHERE: so a rerun is judged as the first run was. The share is
    that of the lines that are events.
    """
    total = sum(counts.get(bucket, 0) for bucket in _EVENT_BUCKETS)
    if not total:
        return []
    within = sum(profile.counts.get(bucket, 0) for bucket in (Bucket.DUPLICATE, Bucket.NEAR_DUPLICATE))
    elsewhere = counts.get(KNOWN_ELSEWHERE, 0)
    result = _judge(
        "duplicate_share", (within + elsewhere) / total, config.duplicate_share, f"checks.{feed}.duplicate_share",
        f"{within + elsewhere:.0f} of {total:.0f} event lines hold an event that was there before ({within:.0f} in this batch, "
        f"{elsewhere:.0f} from runs of other dates)",
        "ask the feed's owner why they are sent again",
    )  # fmt: skip
    return [result] if result else []


def worst_level(results: Sequence[CheckResult]) -> Level:
    """Give the worst level of all verdicts; ok without any."""
    return max((result.level for result in results), key=LEVELS.index, default="ok")


def same_weekdays(history: Sequence[PastRun], run_date: date, weeks: int) -> list[PastRun]:
    """Give for each of the weeks before the newest run of the same weekday; weeks without a run are left out."""
    days = {run_date - timedelta(weeks=week) for week in range(1, weeks + 1)}
    newest: dict[date, PastRun] = {}
    for run in sorted(history, key=lambda run: run.started_at):
        if run.run_date is not None and run.run_date in days:
            newest[run.run_date] = run
    return [newest[day] for day in sorted(newest)]


def last_runs(history: Sequence[PastRun], run_date: date | None, runs: int) -> list[PastRun]:
    """Give the last runs whose fields are known, one per run date before this one (without a run date: one per start)."""
    known = [run for run in history if run.fields and (run.run_date is None) == (run_date is None)]
    if run_date is None:
        return sorted(known, key=lambda run: run.started_at)[-runs:]
    newest: dict[date, PastRun] = {}
    for run in sorted(known, key=lambda run: run.started_at):
        if run.run_date is not None and run.run_date < run_date:
            newest[run.run_date] = run
    return [newest[day] for day in sorted(newest)][-runs:]


def _freshness(profile: BatchProfile, run_date: date | None, limit: LimitConfig, feed: str) -> CheckResult | None:
    """Hours from the newest timestamp to midnight after the run date; the wall clock plays no part, so a backfill is judged alike."""
    if run_date is None:
        return None
    end = datetime.combine(run_date + timedelta(days=1), datetime.min.time(), UTC)
    hours = inf if profile.newest is None else (end - profile.newest).total_seconds() / 3600
    found = (
        f"the newest timestamp lies {hours:.1f} hours before" if profile.newest else "no line has a timestamp before"
    )
    return _judge(
        "freshness_hours", hours, limit, f"checks.{feed}.freshness_hours", f"{found} the end of {run_date}",
        "the newest lines are missing: ask for them, or see whether the path fits the date",
    )  # fmt: skip


def _volume(
    profile: BatchProfile, history: Sequence[PastRun], run_date: date | None, config: FeedChecksConfig, feed: str
) -> list[CheckResult | None]:
    if run_date is None:
        return []
    past = [run.read for run in same_weekdays(history, run_date, config.volume_weeks)]
    if len(past) < config.volume_min_weeks or not median(past):
        return []
    usual = median(past)
    facts = (
        f"{profile.read:.0f} lines, {profile.read / usual:.2f} of the {usual:.0f} that are usual on this weekday "
        f"(median of {len(past)} weeks)"
    )
    few, many = "files may be missing: ask for them", "files may be there twice, or robots at work: look at the files"
    return [
        _judge("volume_low", profile.read / usual, config.volume_low, f"checks.{feed}.volume_low", facts, few),
        _judge("volume_high", profile.read / usual, config.volume_high, f"checks.{feed}.volume_high", facts, many),
    ]


def _null_share(profile: BatchProfile, name: str, limit: LimitConfig, feed: str) -> CheckResult | None:
    if not profile.readable or profile.columns is None or profile.fields is None:
        return None
    present = profile.columns.get(name, profile.fields.get(name, 0))
    missing = profile.readable - present
    return _judge(
        f"null_share.{name}", missing / profile.readable, limit, f"checks.{feed}.null_share.{name}",
        f"{missing:.0f} of {profile.readable:.0f} readable lines have no {name}",
        "look whether the source renamed or dropped the field",
    )  # fmt: skip


def _quarantined_share(profile: BatchProfile, reason: str, limit: LimitConfig, feed: str) -> CheckResult | None:
    if not profile.read:
        return None
    lines = profile.counts.get(f"{Bucket.QUARANTINED}.{reason}", 0)
    return _judge(
        f"quarantined_share.{reason}", lines / profile.read, limit, f"checks.{feed}.quarantined_share.{reason}",
        f"{lines:.0f} of {profile.read:.0f} lines are quarantined as {reason}",
        f"look at the table {feed}_quarantine",
    )  # fmt: skip


def _drift(
    profile: BatchProfile, history: Sequence[PastRun], run_date: date | None, config: FeedChecksConfig, feed: str
) -> list[CheckResult | None]:
    """A new field is in none of the last runs, a vanished one was in each of them and is in no line of this one."""
    past = last_runs(history, run_date, config.drift_runs)
    shares = profile.field_shares()
    if not past or not shares:
        return []
    seen = set().union(*[run.fields for run in past])
    always = set(past[0].fields).intersection(*[run.fields for run in past])
    new = {name: share for name, share in shares.items() if name not in seen}
    vanished = {name: min(run.fields[name] for run in past) for name in always - set(shares)}
    runs = f"the last {len(past)} runs" if len(past) > 1 else "the last run"
    return [
        _judge(
            "new_field", max(new.values(), default=0.0), config.new_field, f"checks.{feed}.new_field",
            f"fields that {runs} did not have: {_names(new)}",
            f"map them in sources.{feed}.columns, or leave them in attributes and run with this limit off once",
        ),
        _judge(
            "vanished_field", max(vanished.values(), default=0.0), config.vanished_field, f"checks.{feed}.vanished_field",
            f"fields that {runs} had and no line has now: {_names(vanished)}",
            f"ask the feed's owner; if they are gone for good, mend sources.{feed}.columns and run with this limit off once",
        ),
    ]  # fmt: skip


def _judge(name: str, found: float, limit: LimitConfig, key: str, facts: str, advice: str) -> CheckResult | None:
    """Compare a figure with its limits; null when there are none."""
    level: Level = "ok"
    bound = limit.warn if limit.warn is not None else limit.fail
    if bound is None:
        return None
    if limit.fail is not None and limit.is_beyond(found, limit.fail):
        level, bound = "fail", limit.fail
    elif limit.warn is not None and limit.is_beyond(found, limit.warn):
        level = "warn"
    advised = "" if level == "ok" else f"; expected {key}.{level} = {bound:g} to hold; {advice}, or change that limit"
    return CheckResult(name, level, found, bound, f"{name}: {facts}{advised}")


def _names(shares: Mapping[str, float]) -> str:
    """The most frequent fields with their share, ties by name."""
    ordered = sorted(shares, key=lambda name: (-shares[name], name))
    shown = [f"{_shortened(name)} ({shares[name]:.1%})" for name in ordered[:_MAX_NAMES]]
    more = len(ordered) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "") if shown else "none"


def _shortened(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 3]}..."
