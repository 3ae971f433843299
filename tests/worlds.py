"""Small literal worlds of events, written into Delta tables, on which models and metrics can be checked by thought.

`blocks_world` holds, all before the CUTOFF unless said otherwise:

- block A: users a0..a7 and items A0..A7; block B: b0..b11 and B0..B7. User i had every item of the own block but
  i, i+1 and i+2 (mod 8), and takes exactly those three after the cutoff. Block B has more users, so its items are the
  popular ones.
- repeaters c0..c3: each bought two items of their own three times, and buys them again after the cutoff.
- twins d0, d1: both had four items whose scores tie everywhere and whose ids order differently in UTF-8, UTF-16 and
  without regard to case.
- `all` had everything, `once` has one event only (left out by min_user_events), `new` comes after the cutoff,
  `glancer` bought A0..A3 and only glanced (weight 0, which is not having) at A4; `rare` is an item with one event (left out by
  min_item_events); a1 also searched for something (an event without an item).
"""

from __future__ import annotations

import fcntl
import os
import shutil
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from factories import make_config, make_events

from recsys_spark.config import Config
from recsys_spark.infra import tables

CUTOFF = date(2024, 3, 10)
TWIN_ITEMS = ["Zz", "zz", "\uff5e", "\U0001f600"]  # in the order of their UTF-8 bytes; UTF-16 would swap the last two
UNKNOWN_USERS = {"once", "new"}
BLOCK_USERS = [f"a{i}" for i in range(8)] + [f"b{i}" for i in range(12)]
REPEATERS = [f"c{i}" for i in range(4)]
MODELS = ("popular", "popular_recent", "again", "neighbours", "user_neighbours", "ease", "als", "feature_factors")


@dataclass(frozen=True)
class World:
    """What was done (as rows of `factories.make_events`) and under which config."""

    events: list[dict[str, Any]] = field(repr=False)
    config: Config = field(repr=False)

    def had(self, user_id: str) -> set[str]:
        """Every item of the user before the cutoff, also those that interactions leave out because they are rare."""
        mine = [row for row in self.events if row["user_id"] == user_id and row["event_type"] == "buy"]
        return {row["item_id"] for row in mine if is_past(row)}

    def users(self) -> set[str]:
        return {row["user_id"] for row in self.events}

    def truth(self, users: list[str]) -> dict[str, set[str]]:
        """What each of the users has from the cutoff on."""
        return {
            user_id: {row["item_id"] for row in self.events if row["user_id"] == user_id and not is_past(row)}
            for user_id in users
        }

    def copied_to(self, folder: Path, **sections: Any) -> World:
        """A copy of everything on disk, for tests that change it."""
        shutil.copytree(self.config.data_root, folder, dirs_exist_ok=True)
        return World(self.events, blocks_config(folder, **sections))


def is_past(row: dict[str, Any]) -> bool:
    return row["timestamp"] < str(CUTOFF)


def event(
    user_id: str, item_id: str | None, day: date, event_type: str = "buy", at: str = "12:00:00"
) -> dict[str, Any]:
    return {"user_id": user_id, "item_id": item_id, "event_type": event_type, "timestamp": f"{day} {at}"}


def blocks_events() -> list[dict[str, Any]]:
    rows = []
    for block, num_users in (("a", 8), ("b", 12)):
        for i in range(num_users):
            held_out = {(i + step) % 8 for step in range(3)}
            for j in range(8):
                day = CUTOFF + timedelta(days=1) if j in held_out else CUTOFF - timedelta(days=1 + (i + j) % 9)
                rows.append(event(f"{block}{i}", f"{block.upper()}{j}", day))
    for i in range(4):
        for item in (f"C{i}x", f"C{i}y"):
            rows += [event(f"c{i}", item, CUTOFF - timedelta(days=days)) for days in (20, 10, 5)]
            rows.append(event(f"c{i}", item, CUTOFF))
    rows += [event(user, item, CUTOFF - timedelta(days=4)) for user in ("d0", "d1") for item in TWIN_ITEMS]
    catalogue = sorted({row["item_id"] for row in rows}, key=str.encode)
    rows += [event("all", item, CUTOFF - timedelta(days=30)) for item in catalogue]
    rows += [event("glancer", f"A{j}", CUTOFF - timedelta(days=3)) for j in range(4)]
    rows += [event("glancer", "A4", CUTOFF - timedelta(days=2), "glance")]
    rows += [event("once", "B0", CUTOFF - timedelta(days=1)), event("new", "A0", CUTOFF)]
    rows += [event("a1", "rare", CUTOFF - timedelta(days=1)), event("a1", None, CUTOFF - timedelta(days=1), "search")]
    return [row | {"event_id": f"{row['user_id']}-{number}"} for number, row in enumerate(rows)]


def blocks_config(folder: Path, **sections: Any) -> Config:
    settings: dict[str, Any] = {
        "split": {"validation_start": CUTOFF - timedelta(days=5), "test_start": CUTOFF},
        "interactions": {"event_weights": {"glance": 0}, "min_item_events": 2, "min_user_events": 2},
        "als": {"rank": 6, "max_iter": 4, "alpha": 5.0, "num_blocks": 2},
        "neighbours": {"shrink": 1.0},
        "user_neighbours": {"shrink": 1.0},
        "ease": {"regularization": 5.0},
        "feature_factors": {"embedding_size": 8, "epochs": 20, "batch_size": 16},
        "recommend": {"k": 5, "models": list(MODELS)},
        "evaluation": {"k": [3, 5]},
    }
    return make_config(folder, **settings | sections)


def write_events(spark: Any, config: Config, events: Any) -> None:
    """Replace the events table by the rows; a frame or dicts as in `factories.make_events`."""
    frame = make_events(spark, events) if isinstance(events, list) else events
    tables.replace_partition(spark, config, "events", frame, {"source": "shop"})


_TRAINED: dict[str, World] = {}


def trained_blocks_world(spark: Any, tmp_path_factory: Any) -> World:
    """The blocks world after every pipeline up to recommend, made once for all test processes: read it, change only copies."""
    if "blocks" not in _TRAINED:
        base = tmp_path_factory.getbasetemp()
        shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
        folder, complete = shared / "blocks", shared / "blocks.complete"
        with open(shared / "blocks.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if complete.exists():
                _TRAINED["blocks"] = World(blocks_events(), blocks_config(folder))
            else:
                shutil.rmtree(folder, ignore_errors=True)  # another process failed halfway
                _TRAINED["blocks"] = blocks_world(spark, folder)
                run_line(spark, _TRAINED["blocks"].config)
                complete.touch()
    return _TRAINED["blocks"]


def run_line(spark: Any, config: Config) -> None:
    """Every pipeline between ingest and evaluate."""
    from recsys_spark.pipelines.build_interactions import build_interactions
    from recsys_spark.pipelines.recommend import recommend
    from recsys_spark.pipelines.train_als import train_als
    from recsys_spark.pipelines.train_ease import train_ease
    from recsys_spark.pipelines.train_feature_factors import train_feature_factors
    from recsys_spark.pipelines.train_neighbours import train_neighbours
    from recsys_spark.pipelines.train_popular import train_popular
    from recsys_spark.pipelines.train_user_neighbours import train_user_neighbours

    trainers = (train_popular, train_neighbours, train_user_neighbours, train_ease, train_als, train_feature_factors)
    for step in (build_interactions, *trainers, recommend):
        step(spark, config, CUTOFF)


def table_pdf(spark: Any, config: Config, name: str) -> Any:
    """A whole table as pandas."""
    return tables.read_table(spark, config, name, made_by="this test").toPandas()


def add_events(spark: Any, config: Config, rows: list[dict[str, Any]]) -> None:
    tables.merge_new(spark, config, "events", make_events(spark, rows))


def blocks_world(spark: Any, folder: Path, partitions: int = 1, **sections: Any) -> World:
    """Write the events table; partitions > 1 turns the rows round and spreads them over so many files."""
    world = World(blocks_events(), blocks_config(folder, **sections))
    rows = world.events if partitions == 1 else world.events[::-1]
    write_events(spark, world.config, make_events(spark, rows).repartition(partitions))
    return world
