"""Builders of small frames, files and configs. Every name is invented; nobody's data is here."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from recsys_spark.config import Config
from recsys_spark.config_sources import EventSourceConfig, ItemSourceConfig

EVENT_COLUMNS = {name: name for name in ("event_id", "user_id", "item_id", "event_type", "timestamp")}


def make_config(folder: Path, **sections: Any) -> Config:
    """A config with data_root in the folder; sections are as in YAML: `make_config(tmp_path, ingest={"horizon_days": 7})`."""
    tables = {"merge_backoff_seconds": 0.05, **sections.pop("tables", {})}
    return Config.model_validate({"data_root": str(folder), "tables": tables, **sections})


def event_source(**settings: Any) -> EventSourceConfig:
    """An events source named "shop" whose `columns` add to (or, with null, take from) fields called as our columns are."""
    columns = {**EVENT_COLUMNS, **settings.pop("columns", {})}
    columns = {name: origin for name, origin in columns.items() if origin is not None}
    return EventSourceConfig.model_validate({"name": "shop", "columns": columns, **settings})


def item_source(**settings: Any) -> ItemSourceConfig:
    """An items source named "products" with every column under its own name."""
    columns = {name: name for name in ("item_id", "title", "category", "brand", "price", "updated_at")}
    return ItemSourceConfig.model_validate({"name": "products", "columns": columns, **settings})


def event_fields(**fields: Any) -> dict[str, Any]:
    """The fields of one good source line; given ones replace or add, `...` takes one away."""
    good = {
        "event_id": "e1",
        "user_id": "u1",
        "item_id": "i1",
        "event_type": "view",
        "timestamp": "2024-03-05T10:00:00",
    }
    return {name: value for name, value in {**good, **fields}.items() if value is not ...}


def event_line(**fields: Any) -> str:
    """One good JSON line, changed as in `event_fields`."""
    return json.dumps(event_fields(**fields), ensure_ascii=False)


def as_bytes(line: str | bytes) -> bytes:
    return line if isinstance(line, bytes) else line.encode()


def write_lines(path: Path, *lines: str | bytes) -> Path:
    """Write lines to a file, one newline behind each; bytes stay as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(as_bytes(line) + b"\n" for line in lines))
    return path


def raw_lines(spark: Any, lines: dict[str, str | bytes], delivery_date: date | None = None) -> Any:
    """Lines as `files.read_deliveries` gives them; the key of a line stands as its source_file, to find it again."""
    rows = [(bytearray(as_bytes(line)), name, delivery_date) for name, line in lines.items()]
    return spark.createDataFrame(rows, "raw_line binary, source_file string, delivery_date date")


def utc(text: str) -> datetime:
    """`2024-03-05 10:00` as a UTC time, whatever the machine's time zone."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def make_events(spark: Any, rows: list[dict[str, Any]]) -> Any:
    """A frame like the events table: each dict names what matters to the test, the rest is filled in.

    timestamp is text; event_date follows it; event_id is e0, e1 ... in the order of the rows.
    """
    from recsys_spark.schemas import EVENTS

    filled = []
    for number, row in enumerate(rows):
        timestamp = utc(row.get("timestamp", "2024-03-05 10:00:00"))
        defaults = {
            "event_id": f"e{number}", "user_id": "u1", "item_id": "i1", "event_type": "view", "session_id": None,
            "query": None, "value": None, "attributes": {}, "source": "shop", "ingest_run": "run",
        }  # fmt: skip
        full = {**defaults, **row, "timestamp": timestamp, "event_date": timestamp.date()}
        filled.append(tuple(full[name] for name in EVENTS.fieldNames()))
    return spark.createDataFrame(filled, EVENTS)


def make_items(spark: Any, categories: dict[str, str | None]) -> Any:
    """A frame like the items table: item ids with their category, all else empty."""
    from recsys_spark.schemas import ITEMS

    filled = {"attributes": {}, "text_hash": "", "source": "products", "ingest_run": "run"}
    rows = [
        tuple({**filled, "item_id": item_id, "category": category}.get(name) for name in ITEMS.fieldNames())
        for item_id, category in categories.items()
    ]
    return spark.createDataFrame(rows, ITEMS)


def table_rows(frame: Any, *columns: str) -> list[tuple[Any, ...]]:
    """The named columns (all but ingest_run when none is named) as sorted tuples of text, so that frames can be compared."""
    names = columns or tuple(name for name in frame.columns if name != "ingest_run")
    found = frame.selectExpr(*[f"cast(`{name}` as string) `{name}`" for name in names]).collect()
    return sorted((tuple(row) for row in found), key=lambda row: [(value is not None, value or "") for value in row])
