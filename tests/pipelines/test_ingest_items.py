"""The item feed: new items are inserted, newer ones replace, older ones do not."""

from __future__ import annotations

import json
from datetime import date

import pytest
from factories import make_config, table_rows, write_lines

from recsys_spark.data.outcome import BUCKETS
from recsys_spark.errors import DataError
from recsys_spark.infra import tables
from recsys_spark.pipelines.ingest_items import ingest_items

COLUMNS = {name: name for name in ("item_id", "title", "category", "brand", "price", "updated_at")}


def item_line(item_id, title, updated_at=None, **fields):
    return json.dumps({"item_id": item_id, "title": title, "updated_at": updated_at, **fields}, ensure_ascii=False)


def feed_config(tmp_path, **source):
    source = {"name": "products", "path": str(tmp_path / "raw"), "columns": COLUMNS, **source}
    return make_config(tmp_path / "lake", sources={"items": source}, ingest={"max_quarantined_share": 0.5})


def stored(spark, config, *columns):
    return table_rows(tables.read_table(spark, config, "items", made_by="ingest_items"), *columns)


def shown(counts):
    assert counts["read"] == sum(counts[bucket] for bucket in BUCKETS)
    return {name: value for name, value in counts.items() if value}


def test_new_items_are_inserted_newer_ones_replace_and_older_ones_do_not(spark, tmp_path):
    config = feed_config(tmp_path)
    day = tmp_path / "raw" / "items.jsonl"
    write_lines(
        day,
        item_line("i1", "first", "2024-03-01"),
        item_line("i2", "first", "2024-03-01"),
        item_line("i3", "first", "2024-03-01"),
        item_line("i3", "newest in the batch", "2024-03-02"),
        item_line("i4", "same", "2024-03-01", colour="red", size=1),
    )
    assert shown(ingest_items(spark, config)) == {"read": 5, "inserted": 4, "duplicate": 1}
    write_lines(
        day,
        item_line("i1", "newer", "2024-03-05"),
        item_line("i2", "older", "2024-02-01"),
        item_line("i3", "corrected at the same time", "2024-03-02"),
        item_line("i4", "same", "2024-03-05", size=1, colour="red"),
        item_line("i5", "new"),
        "torn",
        item_line("i6", "price", price="cheap"),
        item_line("i7", "time", "yesterday"),
        item_line("", "no id"),
    )
    assert shown(ingest_items(spark, config)) == {
        "read": 9, "inserted": 1, "updated": 2, "duplicate": 2, "quarantined": 4,
        "quarantined.malformed": 1, "quarantined.wrong_type": 1, "quarantined.bad_timestamp": 1, "quarantined.missing_field": 1,
    }  # fmt: skip
    after = [
        ("i1", "newer", "2024-03-05 00:00:00"),
        ("i2", "first", "2024-03-01 00:00:00"),
        ("i3", "corrected at the same time", "2024-03-02 00:00:00"),
        ("i4", "same", "2024-03-01 00:00:00"),
        ("i5", "new", None),
    ]
    assert stored(spark, config, "item_id", "title", "updated_at") == after

    again = shown(ingest_items(spark, config))
    assert (again["read"], again["duplicate"], again["quarantined"]) == (9, 5, 4)
    assert stored(spark, config, "item_id", "title", "updated_at") == after
    assert tables.read_table(spark, config, "items_quarantine", made_by="ingest_items").count() == 4


def test_the_text_of_an_item_is_its_own_or_made_of_its_names_and_its_hash_follows_the_text_only(spark, tmp_path):
    write_lines(
        tmp_path / "raw" / "items.jsonl",
        item_line("own", "lamp", text="a warm light"),
        item_line("made", " lamp ", category="home", brand=""),
        item_line("same text", "lamp", category="home", price=7.5, colour="red"),
        item_line("nothing", None),
    )
    config = feed_config(tmp_path, columns={**COLUMNS, "text": "text"})
    ingest_items(spark, config, date(2024, 3, 5))
    rows = {
        row[0]: row[1:]
        for row in stored(spark, config, "item_id", "text", "title", "brand", "price", "updated_at", "text_hash")
    }
    assert rows["own"][:4] == ("a warm light", "lamp", None, None)
    assert rows["made"][:3] == ("lamp. home", "lamp", None)
    assert rows["nothing"][:2] == ("", None)
    assert rows["made"][-1] == rows["same text"][-1] != rows["own"][-1]
    assert rows["own"][4] == "2024-03-05 00:00:00"  # without a time of its own an item is as old as its delivery
    assert stored(spark, config, "item_id", "attributes")[-1] == ("same text", "{colour -> red}")


def test_too_many_torn_lines_leave_the_items_alone(spark, tmp_path):
    write_lines(tmp_path / "raw" / "items.jsonl", "torn", "torn too", item_line("i1", "good"))
    config = feed_config(tmp_path)
    with pytest.raises(DataError, match="items_quarantine"):
        ingest_items(spark, config)
    assert not tables.table_exists(spark, config, "items")
