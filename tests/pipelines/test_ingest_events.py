"""Ingest end to end on small files: every line is accounted for, and a repeated run changes nothing."""

from __future__ import annotations

from datetime import date

import pytest
from factories import EVENT_COLUMNS, event_line, make_config, table_rows, write_lines

from recsys_spark.config_upkeep import EraseConfig
from recsys_spark.data.outcome import BUCKETS
from recsys_spark.errors import ConfigError, DataError, SchemaError
from recsys_spark.infra import tables
from recsys_spark.pipelines.erase_user import erase_user
from recsys_spark.pipelines.ingest_events import ingest_events
from recsys_spark.pipelines.maintain_tables import maintain_tables
from recsys_spark.pipelines.replay_quarantine import replay_quarantine

DATED = r"(\d{4}-\d{2}-\d{2})[^/]*$"


def shop_config(tmp_path, root="lake", ingest=None, table_settings=None, **source):
    source = {"name": "shop", "path": str(tmp_path / "raw"), "date_pattern": DATED, "columns": EVENT_COLUMNS, **source}
    return make_config(tmp_path / root, sources={"events": source}, ingest=ingest or {}, tables=table_settings or {})


def stored(spark, config, name="events", *columns):
    return table_rows(tables.read_table(spark, config, name, made_by="ingest_events"), *columns)


def shown(counts):
    """The counts that are not zero."""
    return {name: value for name, value in counts.items() if value}


def check_sum(counts):
    assert counts["read"] == sum(counts[bucket] for bucket in BUCKETS)


def test_every_line_ends_in_one_bucket_and_a_rerun_adds_nothing(spark, tmp_path):
    write_lines(
        tmp_path / "raw" / "2024-03-05.jsonl",
        event_line(event_id="e1"),
        event_line(event_id="e1"),  # delivered twice
        event_line(event_id="e1", user_id="u2"),  # ... and saying something else
        event_line(event_id="e2", colour="red", note="用户🙂"),
        event_line(event_id="e3", timestamp="2024-03-05T10:00:01"),  # e2 again, one second later
        event_line(event_id="e4", timestamp="2024-01-01T10:00:00"),
        event_line(event_id="e5", customer=""),
        "",
        event_line(event_id="e6", user_id=None),
        "torn",
        "torn",
        b"\xff torn",
    )
    config = shop_config(
        tmp_path,
        ingest={"near_duplicate_seconds": 2, "max_quarantined_share": 0.5},
        filters={"no_customer": "customer = ''"},
    )
    counts = ingest_events(spark, config, date(2024, 3, 5))
    check_sum(counts)
    # e2 says the same as e1 at the same second, and e3 follows both
    assert shown(counts) == {
        "read": 12, "inserted": 1, "duplicate": 2, "near_duplicate": 2, "late": 1, "filtered": 2, "quarantined": 4, "conflicts": 1,
        "filtered.no_customer": 1, "filtered.blank_line": 1,
        "quarantined.missing_field": 1, "quarantined.malformed": 2, "quarantined.invalid_encoding": 1,
    }  # fmt: skip
    assert stored(spark, config, "events_late", "event_id") == [("e4",)]
    quarantine = tables.read_table(spark, config, "events_quarantine", made_by="ingest_events").collect()
    assert sorted((bytes(row.raw_line), row.occurrence, row.reason, row.detail) for row in quarantine if b"torn" in row.raw_line) == [
        (b"torn", 1, "malformed", None), (b"torn", 2, "malformed", None), (b"\xff torn", 1, "invalid_encoding", None),
    ]  # fmt: skip

    names = ("events", "events_late", "events_quarantine")
    before = {name: stored(spark, config, name) for name in names}
    again = ingest_events(spark, config, date(2024, 3, 5))
    check_sum(again)
    assert {name: stored(spark, config, name) for name in names} == before
    assert (again["inserted"], again["duplicate"], again["conflicts"]) == (0, 3, 1)


def test_days_give_the_same_table_in_any_order_and_all_at_once(spark, tmp_path):
    days = [date(2024, 3, 4), date(2024, 3, 5)]
    for number, day in enumerate(days):
        write_lines(
            tmp_path / "raw" / f"{day}.jsonl",
            *[
                event_line(event_id=f"e{number}{i}", user_id=f"u{i}", timestamp=f"{day}T0{i}:00:00", basket=i)
                for i in range(4)
            ],
            # each delivery repeats an event of its own and one of the other day
            *[
                event_line(event_id=f"e{other}0", user_id="u0", timestamp=f"{days[other]}T00:00:00", basket=0)
                for other in range(2)
            ],
        )
    forward, backward, at_once = (shop_config(tmp_path, root) for root in ("forward", "backward", "at once"))
    inserted = [ingest_events(spark, forward, day)["inserted"] for day in days]
    assert sum(inserted) == 8
    for day in reversed(days):
        ingest_events(spark, backward, day)
    assert ingest_events(spark, at_once)["duplicate"] == 4
    rows = stored(spark, at_once)
    assert len(rows) == 8
    assert stored(spark, forward) == rows
    assert stored(spark, backward) == rows


def test_a_run_date_reads_its_own_day(spark, tmp_path):
    write_lines(tmp_path / "raw" / "2024-03-04.jsonl", event_line(event_id="e4", timestamp="2024-03-04"))
    write_lines(tmp_path / "raw" / "2024-03-05.jsonl", event_line(event_id="e5", timestamp="2024-03-05"))
    config = shop_config(tmp_path)
    assert ingest_events(spark, config, date(2024, 3, 5))["read"] == 1
    assert stored(spark, config, "events", "event_id", "event_date") == [("e5", "2024-03-05")]


def test_a_duplicate_that_says_something_else_keeps_the_stored_row(spark, tmp_path):
    config = shop_config(tmp_path)
    write_lines(tmp_path / "raw" / "2024-03-05.jsonl", event_line(user_id="first", timestamp="2024-03-05T10:00:00"))
    ingest_events(spark, config, date(2024, 3, 5))
    write_lines(tmp_path / "raw" / "2024-03-06.jsonl", event_line(user_id="second", timestamp="2024-03-04T10:00:00"))
    counts = ingest_events(spark, config, date(2024, 3, 6))
    assert (counts["inserted"], counts["duplicate"], counts["conflicts"]) == (0, 1, 1)
    assert stored(spark, config, "events", "user_id") == [("first",)]


def test_a_line_is_one_conflict_however_many_copies_are_stored(spark, tmp_path):
    config = shop_config(tmp_path, ingest={"horizon_days": 2})
    for day, user in (("01", "u1"), ("04", "u1"), ("03", "u2")):  # the first two are too far apart to know each other
        line = event_line(user_id=user, timestamp=f"2024-03-{day}T10:00:00")
        write_lines(tmp_path / "raw" / f"2024-03-{day}.jsonl", line)
        counts = ingest_events(spark, config, date(2024, 3, int(day)))
    assert (counts["duplicate"], counts["conflicts"], counts["known_elsewhere"]) == (1, 1, 1)


def test_a_late_line_that_says_something_else_is_a_conflict_with_the_late_row_that_stays(spark, tmp_path):
    config = shop_config(tmp_path)
    for day, user in ((5, "u1"), (6, "u2"), (7, "u1")):
        late = event_line(event_id="e1", user_id=user, timestamp="2023-01-01")
        write_lines(tmp_path / "raw" / f"2024-03-0{day}.jsonl", late)
    found = [ingest_events(spark, config, date(2024, 3, day)) for day in (5, 6, 7)]
    assert [(counts["late"], counts["conflicts"]) for counts in found] == [(1, 0), (1, 1), (1, 0)]
    assert stored(spark, config, "events_late", "event_id", "user_id") == [("e1", "u1")]


def test_numbered_ids_keep_repeats_of_one_file_and_know_a_second_delivery(spark, tmp_path):
    lines = [event_line(event_id=...)] * 3 + [event_line(event_id=..., user_id="u2")]
    write_lines(tmp_path / "raw" / "2024-03-05.jsonl", *lines)
    columns = {name: origin for name, origin in EVENT_COLUMNS.items() if name != "event_id"}
    event_id = {"hash_of": ["user_id", "item_id", "timestamp"], "numbered": True}
    config = shop_config(tmp_path, columns=columns, event_id=event_id)
    assert ingest_events(spark, config, date(2024, 3, 5))["inserted"] == 4
    write_lines(tmp_path / "raw" / "2024-03-05-resent.jsonl", *reversed(lines))
    counts = ingest_events(spark, config, date(2024, 3, 5))
    assert (counts["inserted"], counts["duplicate"], counts["conflicts"]) == (0, 8, 0)
    assert len(stored(spark, config)) == 4


def test_too_large_a_quarantined_share_writes_the_quarantine_only(spark, tmp_path):
    lines = [event_line(event_id=f"e{i}") for i in range(8)] + [
        "torn",
        event_line(event_id="late", timestamp="2023-01-01"),
    ]
    write_lines(tmp_path / "raw" / "2024-03-05.jsonl", *lines)
    config = shop_config(tmp_path, ingest={"max_quarantined_share": 0.09})
    for _ in range(2):
        with pytest.raises(DataError, match=r"1 of 10 lines are quarantined \(malformed: 1\)") as error:
            ingest_events(spark, config, date(2024, 3, 5))
        assert error.value.exit_code == 3
        assert len(stored(spark, config, "events_quarantine")) == 1
        assert not tables.table_exists(spark, config, "events")
        assert not tables.table_exists(spark, config, "events_late")
    exactly = shop_config(tmp_path, ingest={"max_quarantined_share": 0.1})
    assert ingest_events(spark, exactly, date(2024, 3, 5))["inserted"] == 8


def test_no_files_name_the_path(spark, tmp_path):
    with pytest.raises(DataError, match="raw"):
        ingest_events(spark, shop_config(tmp_path), date(2024, 3, 5))


def test_an_empty_delivery_writes_nothing_and_is_no_error(spark, tmp_path):
    write_lines(tmp_path / "raw" / "2024-03-05.jsonl")
    assert shown(ingest_events(spark, shop_config(tmp_path), date(2024, 3, 5))) == {}
    write_lines(tmp_path / "raw" / "2024-03-06.csv")
    assert shown(ingest_events(spark, shop_config(tmp_path, format="csv"), date(2024, 3, 6))) == {}


def test_a_filter_that_is_no_sql_stops_the_job_before_anything_is_written(spark, tmp_path):
    write_lines(tmp_path / "raw" / "2024-03-05.jsonl", event_line())
    config = shop_config(tmp_path, filters={"returned": "quantity <"})
    with pytest.raises(ConfigError, match="returned"):
        ingest_events(spark, config)
    assert not tables.table_exists(spark, config, "events")


@pytest.mark.parametrize(
    ("adaptive", "condition", "name"),
    [
        ("true", "cast(quantity AS double) < 0", "CAST_INVALID_INPUT"),
        ("false", "cast(quantity AS double) < 0", "CAST_INVALID_INPUT"),
        ("false", "split(quantity, '/')[3] = 'x'", "INVALID_ARRAY_INDEX"),
        ("false", "parse_json(quantity) IS NULL", "MALFORMED_RECORD_IN_PARSING"),
    ],
)
def test_a_filter_that_fails_on_a_line_says_what_to_use(spark, tmp_path, adaptive, condition, name):
    write_lines(tmp_path / "raw" / "2024-03-05.jsonl", event_line(quantity="many"))
    config = shop_config(tmp_path, filters={"returned": condition})
    spark.conf.set("spark.sql.adaptive.enabled", adaptive)
    try:
        with pytest.raises(DataError, match=rf"{name}.*try_cast.*get\(array, index\)") as error:
            ingest_events(spark, config)
        assert "many" not in str(error.value)
    finally:
        spark.conf.set("spark.sql.adaptive.enabled", "false")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timestamp": "no pattern"}, "timestamp_format.*datetime pattern"),
        ({"timestamp": "YYYY-QQ"}, "timestamp_format.*datetime pattern"),
        ({"encoding": "KLINGON"}, r"sources\.\*\.encoding: expected a character set that Java knows"),
        ({"filters": {"bad": "agent"}}, "filter 'bad' is no condition: .*found one of type string"),
    ],
    ids=str,
)
def test_what_no_line_can_fit_is_a_matter_of_the_config(spark, tmp_path, settings, message):
    write_lines(tmp_path / "raw" / "2024-03-05.jsonl", event_line())
    source = dict(settings)
    if "timestamp" in source:
        timestamp = {"column": "timestamp", "timestamp_format": source.pop("timestamp")}
        source["columns"] = {**EVENT_COLUMNS, "timestamp": timestamp}
    with pytest.raises(ConfigError, match=f"shop.*{message}"):
        ingest_events(spark, shop_config(tmp_path, **source))


def test_headers_that_cannot_be_used_are_all_named_with_their_files(spark, tmp_path):
    good = "event_id,user_id,item_id,event_type,timestamp"
    write_lines(tmp_path / "raw" / "2024-03-05-a.csv", good, "e1,u1,i1,view,2024-03-05T10:00:00")
    write_lines(tmp_path / "raw" / "2024-03-05-b.csv", good.replace(",", ";"))
    for name in "cd":
        write_lines(tmp_path / "raw" / f"2024-03-05-{name}.csv", f"{good},user_id")
    config = shop_config(tmp_path, format="csv", header=True)
    expected = r"05-c\.csv and 1 more files: .*repeats at fields \[6\].* \| .*05-b\.csv: .*names none of them.*mend these files"
    with pytest.raises(SchemaError, match=expected):
        ingest_events(spark, config)


def test_a_name_that_hadoop_cannot_write_is_one_quarantined_line_and_the_others_are_read(spark, tmp_path):
    for name in ("2024-03-05T10:00.jsonl", "2024-03-05.jsonl"):
        write_lines(tmp_path / "raw" / name, event_line(event_id=name))
    config = shop_config(tmp_path, ingest={"max_quarantined_share": 0.5})
    counts = ingest_events(spark, config)
    assert (counts["read"], counts["inserted"], counts["quarantined.damaged_file"]) == (2, 1, 1)


def test_csv_files_with_fields_in_another_order_give_the_same_events(spark, tmp_path):
    names, turned = (
        "event_id,user_id,item_id,event_type,timestamp,note",
        "note,timestamp,event_type,item_id,user_id,event_id",
    )
    write_lines(tmp_path / "raw" / "2024-03-05-a.csv", names, "e1,u1,i1,view,2024-03-05,x")
    write_lines(tmp_path / "raw" / "2024-03-05-b.csv", turned, "x,2024-03-05,view,i2,u2,e2", "torn")
    config = shop_config(tmp_path, format="csv", ingest={"max_quarantined_share": 0.5})
    counts = ingest_events(spark, config, date(2024, 3, 5))
    check_sum(counts)
    assert shown(counts) == {"read": 3, "inserted": 2, "quarantined": 1, "quarantined.malformed": 1}
    assert stored(spark, config, "events", "event_id", "user_id", "item_id", "source") == [
        ("e1", "u1", "i1", "shop"), ("e2", "u2", "i2", "shop"),
    ]  # fmt: skip


def test_parquet_is_a_source_too(spark, tmp_path):
    spark.sql(
        "SELECT 7L event_id, 12345678901L user_id, 'i1' item_id, 'view' event_type, timestamp'2024-03-05 10:00:00.123456' timestamp, "
        "2.5D price, named_struct('a', 1) nested UNION ALL SELECT 8L, NULL, 'i1', 'view', timestamp'2024-03-05', 1D, NULL"
    ).coalesce(1).write.parquet(str(tmp_path / "raw" / "2024-03-05"))
    config = shop_config(
        tmp_path, format="parquet", date_pattern=r"raw/(\d{4}-\d{2}-\d{2})/", ingest={"max_quarantined_share": 0.5}
    )
    counts = ingest_events(spark, config, date(2024, 3, 5))
    assert shown(counts) == {"read": 2, "inserted": 1, "quarantined": 1, "quarantined.missing_field": 1}
    rows = stored(spark, config, "events", "event_id", "user_id", "timestamp", "attributes")
    assert rows == [("7", "12345678901", "2024-03-05 10:00:00.123456", '{nested -> {"a":1}, price -> 2.5}')]


def test_tables_may_have_names_in_a_catalog(spark, tmp_path):
    write_lines(
        tmp_path / "raw" / "2024-03-05.jsonl", event_line(), event_line(event_id="old", timestamp="2023-01-01"), "torn"
    )
    spark.sql(f"CREATE DATABASE shop_ingest LOCATION '{tmp_path / 'database'}'")
    try:
        config = shop_config(
            tmp_path, table_settings={"catalog": "spark_catalog.shop_ingest"}, ingest={"max_quarantined_share": 0.5}
        )
        for _ in range(2):
            counts = ingest_events(spark, config, date(2024, 3, 5))
        assert (counts["duplicate"], counts["late"], counts["quarantined"]) == (1, 1, 1)
        tables_there = {row.tableName for row in spark.sql("SHOW TABLES IN shop_ingest").collect()}
        assert tables_there == {"events", "events_late", "events_quarantine", "ingest_runs"}
        assert [spark.table(f"shop_ingest.{name}").count() for name in sorted(tables_there)] == [1, 1, 1, 2]
        assert not (tmp_path / "lake").exists()
    finally:
        spark.sql("DROP DATABASE shop_ingest CASCADE")


def test_near_duplicates_are_known_across_deliveries_and_a_rerun_decides_the_same(spark, tmp_path):
    config = shop_config(tmp_path, ingest={"near_duplicate_seconds": 5})
    raw = tmp_path / "raw"
    write_lines(raw / "2024-03-05.jsonl", event_line(event_id="e1", timestamp="2024-03-05T23:59:58"))
    write_lines(
        raw / "2024-03-06.jsonl",
        event_line(event_id="e2", timestamp="2024-03-06T00:00:03"),
        event_line(event_id="e3", timestamp="2024-03-06T00:00:04"),
        event_line(event_id="e4", timestamp="2024-03-06T00:00:02", item_id="i2"),
        event_line(event_id="e5", timestamp="2024-03-06T00:00:02", event_type="search", item_id=None),
    )
    assert ingest_events(spark, config, date(2024, 3, 5))["inserted"] == 1
    first, again = (ingest_events(spark, config, date(2024, 3, 6)) for _ in range(2))
    # e2 follows e1 by 5 seconds and e3 follows e2 by one
    assert (first["inserted"], first["near_duplicate"], first["duplicate"]) == (2, 2, 0)
    assert (again["inserted"], again["near_duplicate"], again["duplicate"]) == (0, 2, 2)
    check_sum(first)
    assert stored(spark, config, "events", "event_id") == [("e1",), ("e4",), ("e5",)]


def test_ids_are_cleaned_as_configured(spark, tmp_path):
    config = shop_config(tmp_path, ingest={"trim_ids": True, "unicode_form": "NFC", "max_quarantined_share": 1})
    decomposed = "Cafe\u0301"
    write_lines(
        tmp_path / "raw" / "2024-03-05.jsonl",
        event_line(user_id=f"  {decomposed} ", item_id="i1\t"),
        event_line(event_id="e2", user_id="   "),
        event_line(event_id="e3", user_id="Caf\u00e9", item_id="i1"),
    )
    counts = ingest_events(spark, config, date(2024, 3, 5))
    assert (counts["inserted"], counts["quarantined.missing_field"], counts["cleaned_ids"]) == (2, 1, 2)
    assert stored(spark, config, "events", "user_id", "item_id") == [("Caf\u00e9", "i1")] * 2


def test_a_column_that_changes_its_type_between_parquet_files_is_quarantined_with_a_warning_that_names_it(
    spark, tmp_path, caplog
):
    good = "SELECT 'e1' event_id, 'u1' user_id, 'i1' item_id, 'view' event_type, '2024-03-05T10:00:00' timestamp, 1.5D price"
    other = "SELECT 'e2' event_id, 'u1' user_id, 'i1' item_id, 'view' event_type, '2024-03-05T10:00:00' timestamp, 'free' price"
    for number, query in enumerate((good, other)):
        spark.sql(query).coalesce(1).write.parquet(str(tmp_path / "raw" / f"2024-03-05-{number}"))
    config = shop_config(
        tmp_path, format="parquet", date_pattern=r"(\d{4}-\d{2}-\d{2})", columns={**EVENT_COLUMNS, "value": "price"},
        ingest={"max_quarantined_share": 0.5},
    )  # fmt: skip
    with caplog.at_level("WARNING", logger="recsys_spark"):
        counts = ingest_events(spark, config, date(2024, 3, 5))
    assert (counts["inserted"], counts["quarantined.wrong_type"]) == (1, 1)
    assert "field_type source=shop column=value reason=wrong_type lines=1" in caplog.text
    assert "free" not in caplog.text


def test_a_damaged_parquet_file_is_one_quarantined_line_and_the_others_are_read(spark, tmp_path):
    query = "SELECT 'e1' event_id, 'u1' user_id, 'i1' item_id, 'view' event_type, '2024-03-05T10:00:00' timestamp"
    spark.sql(query).coalesce(1).write.parquet(str(tmp_path / "raw" / "2024-03-05"))
    (tmp_path / "raw" / "2024-03-05" / "torn.parquet").write_bytes(b"PAR1 and then nothing")
    config = shop_config(
        tmp_path, format="parquet", ingest={"max_quarantined_share": 0.5}, date_pattern=r"(\d{4}-\d{2}-\d{2})/"
    )
    counts = ingest_events(spark, config, date(2024, 3, 5))
    assert (counts["read"], counts["inserted"], counts["quarantined.damaged_file"]) == (2, 1, 1)


def test_tables_may_live_on_another_file_system_through_every_job_of_ingest(spark, tmp_path):
    """viewfs stands for an object store: another scheme, reached through Hadoop's own classes."""
    (tmp_path / "store").mkdir()
    hadoop = spark._jsc.hadoopConfiguration()
    hadoop.set("fs.viewfs.mounttable.shop.link./lake", (tmp_path / "store").as_uri())
    write_lines(tmp_path / "store" / "raw" / "2024-03-05.jsonl", event_line(), event_line(), "torn")
    source = {"name": "shop", "path": "viewfs://shop/lake/raw", "date_pattern": DATED, "columns": EVENT_COLUMNS}
    tracking = {"uri": f"sqlite:///{tmp_path}/mlflow.db"}
    config = make_config(
        tmp_path, sources={"events": source}, ingest={"max_quarantined_share": 0.5}, tracking=tracking
    ).model_copy(update={"data_root": "viewfs://shop/lake"})
    for inserted, duplicate in ((1, 1), (0, 2)):
        counts = ingest_events(spark, config, date(2024, 3, 5))
        assert (counts["inserted"], counts["duplicate"], counts["quarantined"]) == (inserted, duplicate, 1)
    assert (tmp_path / "store" / "tables" / "events" / "_delta_log").is_dir()
    assert stored(spark, config, "events", "event_id") == [("e1",)]
    assert replay_quarantine(spark, config)["quarantined"] == 1
    maintain_tables(spark, config, date(2024, 3, 6))
    (tmp_path / "users.txt").write_text("u1\n", encoding="utf-8")
    erasing = config.model_copy(update={"erase": EraseConfig(users_file=str(tmp_path / "users.txt"))})
    assert erase_user(spark, erasing, date(2024, 3, 6))["rows.events"] == 1
    assert stored(spark, config, "events", "event_id") == []
    assert list((tmp_path / "store" / "tables" / "events").glob("event_date=*/*.parquet")) == []
