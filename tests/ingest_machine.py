"""Random histories of ingest over real Delta tables, compared with `ingest_model` after every step."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from functools import wraps
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

from factories import EVENT_COLUMNS, make_config, table_rows, write_lines
from hypothesis import HealthCheck, Phase, assume, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from ingest_model import DAYS_AHEAD, HORIZON_DAYS, QUARANTINE_LIMIT, TYPES, Lake, QuarantineLimitError, shown

from recsys_spark.data.outcome import BUCKETS
from recsys_spark.errors import DataError
from recsys_spark.infra import table_files, tables
from recsys_spark.pipelines.erase_user import erase_user
from recsys_spark.pipelines.ingest_events import ingest_events
from recsys_spark.pipelines.maintain_tables import maintain_tables
from recsys_spark.pipelines.merge_late_events import merge_late_events
from recsys_spark.pipelines.replay_quarantine import replay_quarantine

MORE_TYPES = (*TYPES, "hover")
FIRST_DAY = date(2024, 3, 4)
CLOCKS = ("00:00:00", "10:00:00", "23:59:59.999999")
OFFSETS = (0, -HORIZON_DAYS, -1, DAYS_AHEAD, -HORIZON_DAYS - 1, 0, -4, DAYS_AHEAD + 1)  # late and ahead, and both edges
TABLES = ("events", "events_late", "events_quarantine")
RULES: Counter[str] = Counter()
"""Rules executed since the start; SECONDS are theirs. For the report of a long run."""
SECONDS: Counter[str] = Counter()
OUTCOMES: Counter[str] = Counter()
"""Lines by bucket, and conflicts, over all runs."""

Batch = dict[date, list[bytes]]
days = st.integers(0, 5).map(lambda number: FIRST_DAY + timedelta(days=number))
users = st.sampled_from(("u1", "u2", "u3"))
crashes = st.tuples(st.integers(1, 4), st.booleans())


class KilledError(Exception):
    """The process was killed here."""


def counted(step: Callable[..., Any]) -> Callable[..., Any]:
    """Count a rule and its seconds."""

    @wraps(step)
    def counted_step(*args: Any, **drawn: Any) -> Any:
        start = perf_counter()
        try:
            return step(*args, **drawn)
        finally:
            RULES[step.__name__] += 1
            SECONDS[step.__name__] += perf_counter() - start

    return counted_step


@st.composite
def source_lines(draw: st.DrawFn, day: date) -> bytes:
    """One line of a delivery of that day; most are events, out of so few values that copies and conflicts are common."""
    at = day + timedelta(days=draw(st.sampled_from(OFFSETS)))
    fields = {
        "event_id": f"e{draw(st.integers(1, 4))}", "user_id": draw(users), "item_id": draw(st.sampled_from(("i1", "i2"))),
        "event_type": draw(st.sampled_from(TYPES)), "timestamp": f"{at}T{draw(st.sampled_from(CLOCKS))}",
    }  # fmt: skip
    kind = draw(
        st.sampled_from(("event",) * 10 + ("coloured", "robot", "hover", "no time", "lacks", "torn", "bytes", "blank"))
    )
    if kind == "torn":
        return json.dumps(fields)[:40].encode()
    if kind == "bytes":
        return b"\xff " + fields["user_id"].encode()
    if kind == "blank":
        return b""
    if kind == "lacks":
        del fields[draw(st.sampled_from(sorted(fields)))]
    changes = {
        "coloured": {"colour": "red"},
        "robot": {"agent": "bot"},
        "hover": {"event_type": "hover"},
        "no time": {"timestamp": "soon"},
    }
    return json.dumps(fields | changes.get(kind, {})).encode()


@st.composite
def batches(draw: st.DrawFn, num_days: int | None = None) -> Batch:
    """A delivery of one or two days; some of its lines stand there twice."""
    num_days = num_days or draw(st.integers(1, 2))
    there = draw(st.lists(days, min_size=num_days, max_size=num_days, unique=True))
    batch: Batch = {}
    for day in there:
        lines = draw(st.lists(source_lines(day), min_size=2, max_size=7))
        batch[day] = lines + draw(st.lists(st.sampled_from(lines), max_size=2))
    return batch


@contextmanager
def crashing(at: int, is_after: bool) -> Iterator[list[str]]:
    """Kill the write number `at`, before or after its effect; gives the tables whose write took effect, one after the other."""
    done: list[str] = []
    calls = 0

    def wrapped(write: Callable[..., Any]) -> Callable[..., Any]:
        def write_or_crash(spark: Any, config: Any, name: str, *rest: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at and not is_after:
                raise KilledError
            result = write(spark, config, name, *rest)
            done.append(name)
            if calls == at:
                raise KilledError
            return result

        return write_or_crash

    with (
        patch.object(tables, "merge_new", wrapped(tables.merge_new)),
        patch.object(tables, "append_rows", wrapped(tables.append_rows)),
        patch.object(tables, "upsert", wrapped(tables.upsert)),
        patch.object(tables, "delete_matching", wrapped(tables.delete_matching)),
    ):
        yield done


class IngestMachine(RuleBasedStateMachine):
    """Deliveries, repeats, crashes, upkeep and erasures in any order; the tables and the counts are those of the model."""

    delivered = Bundle("delivered")

    def __init__(self, spark: Any, folder: Path) -> None:
        super().__init__()
        self.spark = spark
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self.lake = Lake()
        self.num_folders = 0
        self.is_checked = True
        self.finished: dict[str, float] = {}

    @initialize(first=st.integers(0, 2**16), second=st.integers(0, 2**16))
    def start(self, first: int, second: int) -> None:
        # Hypothesis begins with examples of the simplest choices only; minutes of Spark would tell nothing
        assume(first and second)

    def config(self, path: Path | None = None, types: tuple[str, ...] = TYPES) -> Any:
        """The config of a source in that folder; all of them write to the same tables."""
        source = {
            "name": "shop", "path": str(path or self.folder / "raw"), "date_pattern": r"(\d{4}-\d{2}-\d{2})[^/]*$",
            "columns": EVENT_COLUMNS, "event_types": list(types), "max_days_ahead": DAYS_AHEAD,
            "filters": {"robots": "agent = 'bot'"},
        }  # fmt: skip
        return make_config(
            self.folder / "lake",
            sources={"events": source},
            ingest={"horizon_days": HORIZON_DAYS, "max_quarantined_share": QUARANTINE_LIMIT},
            maintain={"vacuum_hours": 0, "allow_short_retention": True},
            erase={"users_file": str(self.folder / "users.txt")},
        )

    def write(self, batch: Batch, cut: int, is_reversed: bool) -> Path:
        """Write a batch to a new folder, every day's lines in two files; one of them may be empty."""
        self.num_folders += 1
        path = self.folder / "raw" / f"b{self.num_folders}"
        for day, lines in batch.items():
            ordered = lines[::-1] if is_reversed else lines
            write_lines(path / f"{day}-a.jsonl", *ordered[:cut])
            write_lines(path / f"{day}-b.jsonl", *ordered[cut:])
        return path

    def files(self, path: Path, day: date | None) -> dict[str, list[bytes]]:
        """Read a folder as the model wants it."""
        there = sorted(path.glob(f"{day or ''}*.jsonl"))
        return {f"{path.name}/{file.name}": file.read_bytes().split(b"\n")[:-1] for file in there}

    def ingest(self, path: Path, day: date | None = None, crash: tuple[int, bool] | None = None) -> None:
        """Ingest a folder, killed on the way when a crash is given, and compare the counts."""
        self.is_checked = False
        run = f"shop-{day or 'all'}-"
        with crashing(*(crash or (0, False))) as written:
            try:
                counts = ingest_events(self.spark, self.config(path), day)
            except KilledError:
                counts = None
            except DataError as error:
                if "lines are quarantined" not in str(error):
                    raise
                counts = {}
        done = [name for name in written if name != "ingest_runs"]
        try:
            expected = self.lake.ingest(self.files(path, day), run, written=done if counts is None else None)
        except QuarantineLimitError:
            expected = {}
        if counts is None:
            return
        assert shown(counts) == expected
        OUTCOMES.update({name: int(value) for name, value in expected.items()})
        assert counts.get("read", 0) == sum(counts.get(bucket, 0) for bucket in BUCKETS)

    @rule(target=delivered, batch=batches(), cut=st.integers(0, 4), is_dated=st.booleans())
    @counted
    def deliver(self, batch: Batch, cut: int, is_dated: bool) -> tuple[Batch, Path]:
        path = self.write(batch, cut, is_reversed=False)
        self.ingest(path, next(iter(batch)) if is_dated and len(batch) == 1 else None)
        return batch, path

    @rule(target=delivered, batch=batches(num_days=2), cut=st.integers(0, 4))
    @counted
    def deliver_days_one_by_one(self, batch: Batch, cut: int) -> tuple[Batch, Path]:
        """The days stand in any order, so later ones often come first."""
        path = self.write(batch, cut, is_reversed=False)
        for day in batch:
            self.ingest(path, day)
            self.tables_are_the_models()
        return batch, path

    @rule(target=delivered, batch=batches(), cut=st.integers(0, 4), crash=crashes)
    @counted
    def deliver_crash_and_rerun(self, batch: Batch, cut: int, crash: tuple[int, bool]) -> tuple[Batch, Path]:
        path = self.write(batch, cut, is_reversed=False)
        self.ingest(path, crash=crash)
        self.tables_are_the_models()
        self.ingest(path)
        return batch, path

    @rule(old=delivered)
    @counted
    def repeat(self, old: tuple[Batch, Path]) -> None:
        self.ingest(old[1])

    @rule(old=delivered, cut=st.integers(0, 4), is_reversed=st.booleans())
    @counted
    def repeat_in_other_files(self, old: tuple[Batch, Path], cut: int, is_reversed: bool) -> None:
        self.ingest(self.write(old[0], cut, is_reversed))

    @precondition(lambda self: self.lake.late)
    @rule(before=st.none() | days, crash=st.none() | crashes)
    @counted
    def merge_late(self, before: date | None, crash: tuple[int, bool] | None) -> None:
        self.is_checked = False
        with crashing(*(crash or (0, False))) as written:
            try:
                counts = merge_late_events(self.spark, self.config(), before)
            except KilledError:
                self.lake.merge_late(before, written)
            else:
                assert shown(counts) == self.lake.merge_late(before)

    @precondition(lambda self: self.lake.events)
    @rule(name=st.sampled_from(TABLES))
    @counted
    def optimise_and_vacuum(self, name: str) -> None:
        self.is_checked = False
        if tables.table_exists(self.spark, self.config(), name):
            table_files.compact(self.spark, self.config(), name)
            table_files.vacuum(self.spark, self.config(), name, 0)

    @precondition(lambda self: self.lake.quarantine)
    @rule(types=st.sampled_from((MORE_TYPES, TYPES)), crash=st.none() | crashes)
    @counted
    def replay(self, types: tuple[str, ...], crash: tuple[int, bool] | None) -> None:
        """A killed one is repeated: what it had inserted is a duplicate then, so only the tables can be compared."""
        self.is_checked = False
        was_killed = self.killed(crash, lambda: replay_quarantine(self.spark, self.config(types=types)))
        counts = replay_quarantine(self.spark, self.config(types=types)) if was_killed else self.finished
        expected = self.lake.replay(types)
        assert was_killed or shown(counts) == expected

    def killed(self, crash: tuple[int, bool] | None, job: Callable[[], dict[str, float]]) -> bool:
        """Run a job, killed on the way when a crash is given; say whether it was, and keep the counts of one that ended."""
        with crashing(*(crash or (0, False))):
            try:
                self.finished = job()
            except KilledError:
                return True
        return False

    @invariant()
    @counted
    def tables_are_the_models(self) -> None:
        if self.is_checked:
            return
        self.is_checked = True
        found = [self.rows("events"), self.rows("events_late")]
        stored = [[event for rows in self.lake.events.values() for event in rows], list(self.lake.late.values())]
        for rows, expected in zip(found, stored, strict=True):
            assert Counter(rows) == Counter(event.columns for event in expected)
        quarantine = self.rows("events_quarantine", "source_file", "line_hash", "occurrence", "reason", "delivery_date")
        named = [("/".join(str(row[0]).rsplit("/", 2)[1:]), *row[1:]) for row in quarantine]
        assert Counter(named) == Counter(
            (*key[:2], str(key[2]), line.reason, str(line.delivered)) for key, line in self.lake.quarantine.items()
        )
        for rows in self.lake.events.values():
            ordered = sorted(event.day for event in rows)
            apart = [later - earlier for earlier, later in pairwise(ordered)]
            assert all(gap > timedelta(days=HORIZON_DAYS) for gap in apart), "an event_id twice within the horizon"

    def rows(self, name: str, *columns: str) -> list[tuple[Any, ...]]:
        """The rows of a table as text; none when it was never written."""
        if not tables.table_exists(self.spark, self.config(), name):
            return []
        return table_rows(tables.read_table(self.spark, self.config(), name, made_by="ingest_events"), *columns)

    def teardown(self) -> None:
        shutil.rmtree(self.folder)


class UpkeepMachine(IngestMachine):
    """The same with the two slow jobs that come between deliveries."""

    @precondition(lambda self: self.lake.events)
    @rule(day=days)
    @counted
    def maintain(self, day: date) -> None:
        self.is_checked = False
        maintain_tables(self.spark, self.config(), day)

    @precondition(lambda self: self.lake.events)
    @rule(gone=st.lists(users, min_size=1, max_size=2, unique=True), day=days, crash=st.none() | crashes)
    @counted
    def erase(self, gone: list[str], day: date, crash: tuple[int, bool] | None) -> None:
        self.is_checked = False
        write_lines(self.folder / "users.txt", *gone)
        was_killed = self.killed(crash, lambda: erase_user(self.spark, self.config(), day))
        counts = erase_user(self.spark, self.config(), day) if was_killed else self.finished
        rows = {name: value for name, value in counts.items() if name.startswith("rows.events")}
        expected = self.lake.erase(gone, day)
        assert was_killed or shown(rows) == expected


def run_machine(
    spark: Any, folder: Path, number: int, steps: int, machine: type[IngestMachine] = UpkeepMachine
) -> None:
    """Run one random history, named by its number; the error says all its steps. Nothing is shrunk: that would take hours."""

    def new_machine() -> IngestMachine:
        return machine(spark, folder)

    limits = settings(
        max_examples=1, stateful_step_count=steps, deadline=None, database=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    run_state_machine_as_test(seed(number)(new_machine), settings=limits)
