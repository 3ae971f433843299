"""What docs/guide/ingest.md promises, in plain Python: dictionaries instead of tables, and not a line of the package's code."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta

HORIZON_DAYS = 2
DAYS_AHEAD = 1
QUARANTINE_LIMIT = 0.6
SOURCE = "shop"
REPLAY = "shop-replay-all-"
TYPES = ("view", "cart")

Files = Mapping[str, Iterable[bytes]]
"""`folder/2024-03-05-a.jsonl` -> its lines."""


class QuarantineLimitError(Exception):
    """The share of quarantined lines is above the limit: nothing else may be written."""


@dataclass(frozen=True)
class Line:
    """A physical line, what can be read in it, and the first reason why it is no event."""

    raw: bytes
    file: str
    delivered: date
    fields: Mapping[str, str] = field(default_factory=dict)
    at: datetime | None = None
    rule: str | None = None
    reason: str | None = None

    @property
    def line_hash(self) -> str:
        return hashlib.sha256(self.raw).hexdigest()[:32]

    @property
    def is_late(self) -> bool:
        return self.at is not None and self.at.date() < self.delivered - timedelta(days=HORIZON_DAYS)


@dataclass(frozen=True)
class Event:
    """A stored event: its columns as text, what it says besides its id, its day, and whose run wrote it."""

    event_id: str
    user_id: str
    day: date
    columns: tuple[str | None, ...]
    written_by: str = ""

    @property
    def payload(self) -> tuple[str | None, ...]:
        return self.columns[1:]


Key = tuple[str, str, int]


def read_line(raw: bytes, file: str, types: tuple[str, ...] = TYPES) -> Line:
    """Read one line as the guide says."""
    found = re.search(r"(\d{4}-\d{2}-\d{2})[^/]*$", file)
    assert found
    line = Line(raw, file, date.fromisoformat(found[1]))
    if not raw.strip():
        return replace(line, rule="blank_line")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return replace(line, reason="invalid_encoding")
    try:
        fields = {name: value for name, value in json.loads(text).items() if value is not None}
    except ValueError:
        return replace(line, reason="malformed")
    try:
        at = datetime.fromisoformat(fields.get("timestamp", "")).replace(tzinfo=UTC)
    except ValueError:
        at = None
    line = replace(line, fields=fields, at=at)
    return replace(line, rule="robots" if fields.get("agent") == "bot" else None, reason=_fault(line, types))


def _fault(line: Line, types: tuple[str, ...]) -> str | None:
    if any(name not in line.fields for name in ("event_id", "user_id", "event_type", "timestamp", "item_id")):
        return "missing_field"
    if line.fields["event_type"] not in types:
        return "unknown_event_type"
    if line.at is None:
        return "bad_timestamp"
    first_moment_ahead = datetime.combine(line.delivered + timedelta(days=DAYS_AHEAD + 1), time(), UTC)
    return "timestamp_out_of_range" if line.at >= first_moment_ahead else None


def as_event(line: Line) -> Event:
    """Give the row of the events table that a good line becomes, as Spark writes its columns as text."""
    assert line.at is not None
    known = ("event_id", "user_id", "item_id", "event_type", "timestamp")
    rest = ", ".join(f"{name} -> {value}" for name, value in line.fields.items() if name not in known)
    event_id, user_id, item_id, event_type = (line.fields[name] for name in known[:4])
    at = line.at.replace(tzinfo=None).isoformat(sep=" ")
    columns = (event_id, user_id, item_id, event_type, at, None, None, None, f"{{{rest}}}", str(line.at.date()), SOURCE)
    return Event(event_id, user_id, line.at.date(), columns)


@dataclass
class Lake:
    """The tables as the guide promises them."""

    events: dict[str, list[Event]] = field(default_factory=dict)
    late: dict[str, Event] = field(default_factory=dict)
    quarantine: dict[Key, Line] = field(default_factory=dict)
    erased_users: dict[str, datetime] = field(default_factory=dict)
    erased_lines: set[str] = field(default_factory=set)

    def ingest(
        self, files: Files, run: str, types: tuple[str, ...] = TYPES, limit: float = QUARANTINE_LIMIT,
        written: list[str] | None = None,
    ) -> dict[str, float]:  # fmt: skip
        """Ingest the files' lines and give the counts that are not zero.

        written: the tables whose write took effect before the run was killed; it must be the first part of what the order
        "quarantine, late events, events" asks for, and nothing else is written.
        """
        lines = [self._left_out(read_line(raw, file, types)) for file, raws in files.items() for raw in raws]
        filtered = [line for line in lines if line.rule]
        bad = [line for line in lines if line.reason and not line.rule]
        winners, losers, conflicts = choose([line for line in lines if not line.reason and not line.rule])
        late, new = ([w for w in winners if w.is_late is is_late] for is_late in (True, False))
        over = len(bad) > limit * len(lines)
        order = (
            ["events_quarantine"] * bool(bad)
            + ["events_late"] * bool(late and not over)
            + ["events"] * bool(new and not over)
        )
        if written is not None:
            assert written == order[: len(written)], f"writes {written}, the contract says {order}"
            order = written
        if "events_quarantine" in order:
            self.quarantine |= {key: line for key, line in numbered(bad).items() if key not in self.quarantine}
        if over:
            raise QuarantineLimitError
        if "events_late" in order:
            named = [replace(as_event(line), written_by=run) for line in late]
            stored = [self.late.get(event.event_id, event) for event in named]
            conflicts += sum(event.payload != kept.payload for event, kept in zip(named, stored, strict=True))
            self.late |= {event.event_id: event for event in named if event.event_id not in self.late}
        counts = Counter(read=len(lines), filtered=len(filtered), quarantined=len(bad), late=len(late))
        counts.update(duplicate=losers, conflicts=conflicts)
        counts.update(f"filtered.{line.rule}" for line in filtered)
        counts.update(f"quarantined.{line.reason}" for line in bad)
        if "events" in order:
            counts.update(self._insert([replace(as_event(line), written_by=run) for line in new], run))
        return shown(counts)

    def merge_late(self, before: date | None, written: list[str] | None = None) -> dict[str, float]:
        """Move late events (of days before one, when it is given) into events."""
        moved = [event for event in self.late.values() if before is None or event.day < before]
        counts = Counter(read=len(moved), removed=len(moved))
        if moved and (written is None or "events" in written):
            counts.update(self._insert(moved, "late"))
        if written is None or "events_late" in written:
            self.late = {event.event_id: event for event in self.late.values() if event not in moved}
        del counts["known_elsewhere"]
        return shown(counts)

    def erase(self, users: Iterable[str], run_date: date) -> dict[str, float]:
        """Take users out, and remember them and the broken lines that name them. Gives the rows removed by table."""
        gone = set(users)
        until = datetime.combine(run_date + timedelta(days=1), time(), UTC)
        for user in gone:
            self.erased_users[user] = max(until, self.erased_users.get(user, until))
        named = {line.line_hash for line in self.quarantine.values() if names_one(line.raw, gone)}
        self.erased_lines |= named
        before = self.sizes()
        self.events = {name: [e for e in rows if e.user_id not in gone] for name, rows in self.events.items()}
        self.late = {name: event for name, event in self.late.items() if event.user_id not in gone}
        self.quarantine = {key: line for key, line in self.quarantine.items() if line.line_hash not in named}
        return shown({f"rows.{name}": before[name] - size for name, size in self.sizes().items()})

    def replay(self, types: tuple[str, ...]) -> dict[str, float]:
        """Read the quarantined lines again, with more event types."""
        files: dict[str, list[bytes]] = {}
        for line in self.quarantine.values():
            files.setdefault(line.file, []).append(line.raw)
        before = len(self.quarantine)
        counts = self.ingest(files, REPLAY, types, limit=1.0)
        self.quarantine = {
            k: line for k, line in self.quarantine.items() if read_line(line.raw, line.file, types).reason
        }
        return shown({**counts, "removed": before - len(self.quarantine)})

    def sizes(self) -> dict[str, int]:
        """Give the rows per table."""
        num_events = sum(len(rows) for rows in self.events.values())
        return {"events": num_events, "events_late": len(self.late), "events_quarantine": len(self.quarantine)}

    def _left_out(self, line: Line) -> Line:
        until = self.erased_users.get(line.fields.get("user_id", ""))
        is_before = until is not None and (line.at is None or line.at < until)
        is_erased_line = line.reason is not None and line.line_hash in self.erased_lines
        return replace(line, rule="erased_user") if not line.rule and (is_before or is_erased_line) else line

    def _insert(self, asked: list[Event], run: str) -> Counter[str]:
        """Insert what is not stored around the batch; a copy further away than the horizon is not found."""
        horizon = timedelta(days=HORIZON_DAYS)
        first, last = min(event.day for event in asked) - horizon, max(event.day for event in asked) + horizon
        counts: Counter[str] = Counter()
        for event in asked:
            near = [stored for stored in self.events.get(event.event_id, []) if first <= stored.day <= last]
            counts["duplicate" if near else "inserted"] += 1
            counts["conflicts"] += any(stored.payload != event.payload for stored in near)
            counts["known_elsewhere"] += any(stored.written_by not in (run, REPLAY) for stored in near)
            if not near:
                self.events.setdefault(event.event_id, []).append(event)
        return counts


def choose(good: list[Line]) -> tuple[list[Line], int, int]:
    """Give the winner per event_id (in time, then earliest, then the smaller line hash), the losers and those that differ."""
    copies: dict[str, list[Line]] = {}
    for line in good:
        copies.setdefault(line.fields["event_id"], []).append(line)
    winners, conflicts = [], 0
    for group in copies.values():
        assert all(line.at is not None for line in group)
        winners.append(min(group, key=lambda line: (line.is_late, line.at, line.line_hash)))
        conflicts += sum(as_event(line).payload != as_event(winners[-1]).payload for line in group)
    return winners, len(good) - len(winners), conflicts


def numbered(bad: Iterable[Line]) -> dict[Key, Line]:
    """Name physical lines: equal lines of one file are numbered from 1."""
    seen: Counter[tuple[str, str]] = Counter()
    keys: dict[Key, Line] = {}
    for line in bad:
        seen[line.file, line.line_hash] += 1
        keys[line.file, line.line_hash, seen[line.file, line.line_hash]] = line
    return keys


def names_one(raw: bytes, ids: Iterable[str]) -> bool:
    """Say whether an id stands in the bytes, not as part of a longer word."""
    word = rb"[0-9A-Za-z_\-\x80-\xff]"
    return any(re.search(rb"(?<!" + word + rb")" + re.escape(i.encode()) + rb"(?!" + word + rb")", raw) for i in ids)


def shown(counts: Mapping[str, float]) -> dict[str, float]:
    """Give the counts that are not zero."""
    return {name: value for name, value in counts.items() if value}
