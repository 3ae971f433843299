"""Tables that an older version of this package wrote are moved to today's layout in place, and nothing else changes them."""

from __future__ import annotations

import json
import shutil
import tarfile
from datetime import date
from pathlib import Path

import pytest
from factories import EVENT_COLUMNS, event_line, make_config, table_rows, write_lines
from personal_bytes import files_that_hold

from recsys_spark.config_upkeep import EraseConfig
from recsys_spark.errors import SchemaError
from recsys_spark.infra import tables
from recsys_spark.infra.migrate import migrate_tables
from recsys_spark.pipelines.erase_user import erase_user
from recsys_spark.pipelines.ingest_events import ingest_events
from recsys_spark.pipelines.replay_quarantine import replay_quarantine
from recsys_spark.schemas import TABLES

# Written by version 1 of every table: an ingest of five lines (e1, e2 of 2024-03-05; e3 late; e4 with value "many"; "torn") and
# of three items (i3 with price "cheap"); on 2024-03-06 the interactions, the models popular and als, and their lists.
WRITTEN_BY_VERSION_1 = Path(__file__).parents[1] / "fixtures" / "tables_v1.tar.gz"
OLD_USER = "user-of-version-1"  # of e1, e3 and e4
OLD_TABLES = {
    "events", "events_late", "events_quarantine", "items", "items_quarantine", "interactions", "item_index", "user_index",
    "user_vectors", "item_vectors", "recommendations",
}  # fmt: skip


@pytest.fixture
def old_lake(tmp_path):
    with tarfile.open(WRITTEN_BY_VERSION_1) as archive:
        archive.extractall(tmp_path, filter="data")
    source = {
        "name": "shop", "path": str(tmp_path / "raw"), "date_pattern": r"(\d{4}-\d{2}-\d{2})[^/]*$",
        "columns": {**EVENT_COLUMNS, "value": "value"},
    }  # fmt: skip
    return make_config(tmp_path, sources={"events": source}, ingest={"max_quarantined_share": 0.5})


def test_a_table_of_an_older_layout_stops_the_job_and_names_the_command(spark, old_lake, tmp_path):
    with pytest.raises(SchemaError, match=r"layout version 1, this package needs 2.*recsys migrate"):
        tables.read_table(spark, old_lake, "events", made_by="ingest_events")
    write_lines(tmp_path / "raw" / "2024-03-06.jsonl", event_line(event_id="e9"))
    with pytest.raises(SchemaError, match="recsys migrate"):
        ingest_events(spark, old_lake, date(2024, 3, 6))


def test_migrated_tables_keep_their_rows_and_take_part_in_every_job(spark, old_lake, tmp_path):
    addresses = {name: tables.table_address(old_lake, name) for name in OLD_TABLES}
    before = {
        name: table_rows(spark.table(address), *spark.table(address).columns) for name, address in addresses.items()
    }
    columns = {name: spark.table(address).columns for name, address in addresses.items()}

    moved = migrate_tables(spark, old_lake)
    assert moved == {name: (1, TABLES[name].version) for name in OLD_TABLES if TABLES[name].version > 1}
    assert migrate_tables(spark, old_lake) == {}
    for name in OLD_TABLES:
        found = tables.read_table(spark, old_lake, name, made_by="ingest_events")
        assert found.columns == TABLES[name].schema.fieldNames()
        assert table_rows(found, *columns[name]) == before[name]

    again, bad = event_line(event_id="e1", user_id=OLD_USER), event_line(event_id="e9", value="bad")
    write_lines(tmp_path / "raw" / "2024-03-06.jsonl", again, bad)
    counts = ingest_events(spark, old_lake, date(2024, 3, 6))
    assert (counts["duplicate"], counts["quarantined"]) == (1, 1)
    # a line quarantined by version 1 can be replayed: what was wrong was the type of value
    mended = old_lake.model_dump(mode="json")
    mended["sources"]["events"]["columns"].pop("value")
    counts = replay_quarantine(spark, type(old_lake).model_validate(mended))
    assert (counts["read"], counts["inserted"], counts["quarantined"], counts["removed"]) == (3, 2, 1, 2)


def test_a_user_is_erased_from_migrated_tables_and_the_statistics_in_their_log_are_told(spark, old_lake, tmp_path):
    for name in OLD_TABLES - {"recommendations"}:  # every table more costs ten seconds
        shutil.rmtree(tmp_path / "tables" / name)
    (tmp_path / "users.txt").write_text(f"{OLD_USER}\n", encoding="utf-8")
    config = old_lake.model_copy(update={"erase": EraseConfig(users_file=str(tmp_path / "users.txt"))})
    migrate_tables(spark, config)
    held = files_that_hold(tmp_path / "tables", OLD_USER)
    assert any("_delta_log" in name for name in held), "version 1 kept statistics of ids"

    counts = erase_user(spark, config, date(2024, 3, 7))

    assert counts["rows.recommendations"] == 6  # of popular and als: two lines of next and one of discovery each
    # Delta cuts a log behind a checkpoint of an earlier day only: infra/test_table_files.py lets that day pass
    assert [name for name in files_that_hold(tmp_path / "tables", OLD_USER) if "_delta_log" not in name] == []
    (receipt,) = (json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "receipts").iterdir())
    assert not receipt["tables"]["recommendations"]["log_is_clean"]
    assert "in the log of recommendations" in receipt["remains"][1]


def test_a_table_of_a_newer_layout_is_left_alone(spark, old_lake):
    migrate_tables(spark, old_lake)
    address = tables.table_address(old_lake, "events")
    spark.sql(f"ALTER TABLE {address} SET TBLPROPERTIES ('{tables.VERSION_PROPERTY}' = '99')")
    for job in (
        lambda: tables.read_table(spark, old_lake, "events", "ingest_events"),
        lambda: migrate_tables(spark, old_lake),
    ):
        with pytest.raises(SchemaError, match="version 99, this package knows 2"):
            job()
