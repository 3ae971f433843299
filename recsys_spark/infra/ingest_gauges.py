"""The figures of an ingest run as gauges; docs/guide/monitoring.md lists them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from recsys_spark.columns import READ, Bucket
from recsys_spark.data.checks import LEVELS
from recsys_spark.infra.prometheus import Gauge

Status = Literal["ok", "warned", "failed"]
STATUSES: tuple[Status, ...] = ("ok", "warned", "failed")

_BUCKETS = {value for name, value in vars(Bucket).items() if not name.startswith("_")}
_PARTS = {"filtered": "rule", "quarantined": "reason"}


def run_gauges(
    labels: Mapping[str, str], counts: Mapping[str, float], levels: Mapping[str, str], status: Status, seconds: float,
    finished_at: datetime, newest: datetime | None,
) -> list[Gauge]:  # fmt: skip
    """Give the gauges of the last run, whatever its end. labels name the feed and the source; levels are those of the checks."""
    buckets = {name: value for name, value in counts.items() if name in _BUCKETS}
    others = {name: value for name, value in counts.items() if "." not in name and name not in {*_BUCKETS, READ}}
    gauges = [
        Gauge(
            "recsys_ingest_lines",
            "Lines of the last run by the bucket they ended in.",
            _each(labels, "bucket", buckets),
        ),
        Gauge("recsys_ingest_read_lines", "Lines that the last run read.", _one(labels, counts.get(READ))),
        Gauge(
            "recsys_ingest_other", "Other counts of the last run, such as conflicts.", _each(labels, "count", others)
        ),
    ]
    for bucket, label in _PARTS.items():
        parts = {name.split(".", 1)[1]: value for name, value in counts.items() if name.startswith(f"{bucket}.")}
        text = f"Lines of the last run that were {bucket}, by {label}."
        gauges.append(Gauge(f"recsys_ingest_{bucket}_lines", text, _each(labels, label, parts)))
    states = [({**labels, "status": name}, float(name == status)) for name in STATUSES]
    verdicts = [
        ({**labels, "check": check, "level": level}, float(level == found))
        for check, found in levels.items()
        for level in LEVELS
    ]
    return [
        *gauges,
        Gauge("recsys_ingest_seconds", "Seconds that the last run took.", _one(labels, seconds)),
        Gauge("recsys_ingest_status", "1 for how the last run ended, 0 for the others.", states),
        Gauge("recsys_ingest_check", "1 for the level of each check of the last run, 0 for the others.", verdicts),
        Gauge(
            "recsys_ingest_newest_event_timestamp_seconds",
            "Newest timestamp of the last run's lines, not after its run date.",
            _one(labels, newest.timestamp() if newest else None),
        ),
        Gauge(
            "recsys_ingest_last_run_timestamp_seconds",
            "When the last run ended, whatever its end.",
            _one(labels, finished_at.timestamp()),
        ),
    ]


def success_gauges(labels: Mapping[str, str], finished_at: datetime) -> list[Gauge]:
    """Give what only a run that did not fail may change; it stands in a file of its own, which a failed run leaves alone."""
    text = "When the last run that did not fail ended."
    return [Gauge("recsys_ingest_last_success_timestamp_seconds", text, _one(labels, finished_at.timestamp()))]


def _one(labels: Mapping[str, str], value: float | None) -> list[tuple[Mapping[str, str], float]]:
    return [] if value is None else [(labels, value)]


def _each(labels: Mapping[str, str], label: str, values: Mapping[str, float]) -> list[tuple[Mapping[str, str], float]]:
    return [({**labels, label: name}, value) for name, value in values.items()]
