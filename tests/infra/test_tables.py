"""Delta tables: repeatable writes, look-ups that read only the partitions they need, and writers that meet."""

from __future__ import annotations

import threading
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest
from delta.exceptions import ConcurrentAppendException, ConcurrentTransactionException
from factories import make_config, make_events, table_rows

from recsys_spark.data.vocabulary import number_new_ids
from recsys_spark.errors import DataError, RetryableError, SchemaError
from recsys_spark.infra import tables

DAY = date(2024, 3, 5)
BOUNDS = ("event_date", date(2024, 3, 1), date(2024, 3, 9))


@pytest.fixture
def catalog_config(spark, tmp_path):
    """A config whose tables are names in a database of its own."""
    spark.sql(f"CREATE DATABASE shop_tables LOCATION '{tmp_path / 'database'}'")
    yield make_config(tmp_path, tables={"catalog": "shop_tables"})
    spark.sql("DROP DATABASE shop_tables CASCADE")


def file_where_events_will_be(tmp_path):
    file = tmp_path / "database" / "events" / "first commit, not renamed yet"
    file.parent.mkdir(parents=True)
    file.touch()
    return file


def test_a_table_that_another_job_is_creating_is_waited_for(spark, catalog_config, tmp_path, monkeypatch):
    other, pauses = file_where_events_will_be(tmp_path), []
    monkeypatch.setattr(tables, "time", SimpleNamespace(sleep=lambda pause: (pauses.append(pause), other.unlink())))
    tables.ensure_table(spark, catalog_config, "events")
    assert len(pauses) == 1
    assert tables.table_exists(spark, catalog_config, "events")


def test_files_in_the_place_of_a_table_are_an_error_and_stay(spark, catalog_config, tmp_path, monkeypatch):
    stranger = file_where_events_will_be(tmp_path)
    monkeypatch.setattr(tables, "time", SimpleNamespace(sleep=lambda pause: None))
    with pytest.raises(DataError, match=r"expected a Delta table or an empty place.*move them away"):
        tables.ensure_table(spark, catalog_config, "events")
    assert stranger.exists()


@pytest.mark.parametrize("kind", ["folder", "catalog"])
def test_a_table_is_made_merged_read_and_replaced_by_folder_and_by_name(spark, config, kind, request):
    if kind == "catalog":
        config = request.getfixturevalue("catalog_config")
    assert not tables.table_exists(spark, config, "events")
    events = make_events(spark, [{"event_id": "a", "attributes": {"k": "v"}}, {"event_id": "b"}])
    assert tables.merge_new(spark, config, "events", events, BOUNDS) == 2
    assert tables.table_exists(spark, config, "events")
    more = make_events(
        spark, [{"event_id": "b", "user_id": "other"}, {"event_id": "c", "timestamp": "2024-03-06 10:00:00"}]
    )
    assert tables.merge_new(spark, config, "events", more, BOUNDS) == 1
    stored = tables.read_table(spark, config, "events", made_by="ingest_events")
    assert table_rows(stored, "event_id", "user_id") == [("a", "u1"), ("b", "u1"), ("c", "u1")]
    replacement = make_events(spark, [{"event_id": "d"}])
    for _ in range(2):
        tables.replace_partition(spark, config, "events", replacement, {"event_date": DAY})
        stored = tables.read_table(spark, config, "events", made_by="ingest_events")
        assert table_rows(stored, "event_id") == [("c",), ("d",)]
    properties = spark.sql(f"SHOW TBLPROPERTIES {tables.table_address(config, 'events')}").collect()
    assert {row.key: row.value for row in properties}[tables.VERSION_PROPERTY] == str(tables.TABLES["events"].version)
    detail = spark.sql(f"DESCRIBE DETAIL {tables.table_address(config, 'events')}").head()
    assert detail.partitionColumns == ["event_date"]


def test_a_merge_with_bounds_reads_no_file_outside_of_them(spark, config):
    tables.merge_new(
        spark, config, "events", make_events(spark, [{"event_id": "old", "timestamp": "2023-01-01 10:00:00"}])
    )
    for file in Path(config.data_root).glob("tables/events/event_date=2023-01-01/*.parquet"):
        file.unlink()  # whoever reads it now fails
    today = make_events(spark, [{"event_id": "new"}])
    assert tables.merge_new(spark, config, "events", today, BOUNDS) == 1
    assert tables.merge_new(spark, config, "events", today, BOUNDS) == 0
    with pytest.raises(Exception, match=r"(?i)does not exist|not[ _]found|FAILED_READ_FILE"):
        tables.merge_new(spark, config, "events", make_events(spark, [{"event_id": "newer"}]))


def test_upsert_replaces_what_the_rule_allows_only(spark, config):
    def items(*rows):
        full = [(i, title, None, None, None, price, {}, None, "hash", "shop", "run") for i, title, price in rows]
        return spark.createDataFrame(full, tables.TABLES["items"].schema)

    rule = "s.price > t.price"
    assert tables.upsert(spark, config, "items", items(("i1", "one", 1.0), ("i2", "two", 2.0)), rule) == (2, 0)
    assert tables.upsert(
        spark, config, "items", items(("i1", "One", 1.5), ("i2", "Two", 1.0), ("i3", "three", 3.0)), rule
    ) == (1, 1)
    stored = tables.read_table(spark, config, "items", made_by="ingest_items")
    assert table_rows(stored, "item_id", "title") == [("i1", "One"), ("i2", "two"), ("i3", "three")]


def test_a_partition_is_addressed_by_plain_values_only(spark, config):
    with pytest.raises(ValueError, match="letters, digits"):
        tables.replace_partition(spark, config, "events", make_events(spark, []), {"source": "x' OR '1'='1"})


def test_a_table_that_is_not_there_names_the_job_to_run(spark, config):
    with pytest.raises(DataError, match=r"run jobs/ingest_events\.py first"):
        tables.read_table(spark, config, "events", made_by="ingest_events")


def test_a_table_that_lacks_columns_of_its_version_names_them(spark, config):
    folder = f"{config.data_root}/tables/user_index"
    spark.createDataFrame([("u1", 1)], "user_id string, number int").write.format("delta").save(folder)
    version = tables.TABLES["user_index"].version
    spark.sql(f"ALTER TABLE delta.`{folder}` SET TBLPROPERTIES ('{tables.VERSION_PROPERTY}' = '{version}')")
    with pytest.raises(SchemaError, match=r"misses columns \['user_idx'\]"):
        tables.read_table(spark, config, "user_index", made_by="build_interactions")


def test_only_tables_of_the_contract_have_an_address(config):
    with pytest.raises(ValueError, match="not one of"):
        tables.table_address(config, "evnets")


def test_a_uri_stays_as_it_is_and_a_folder_becomes_absolute(config):
    assert (
        tables.table_address(config.model_copy(update={"data_root": "s3a://b/x/"}), "events")
        == "delta.`s3a://b/x/tables/events`"
    )
    short = config.model_copy(update={"data_root": "hdfs:/lake"})
    assert tables.table_address(short, "events") == "delta.`hdfs:/lake/tables/events`"
    relative = tables.table_address(config.model_copy(update={"data_root": "data"}), "events")
    assert relative == f"delta.`{Path.cwd()}/data/tables/events`"


def user_frame(spark, *ids):
    return spark.createDataFrame([(name,) for name in ids], "user_id string")


def number_users(spark, *ids):
    return lambda index: number_new_ids(index, user_frame(spark, *ids), "user_id", "user_idx")


def stored_index(spark, config):
    rows = tables.read_table(spark, config, "user_index", made_by="build_interactions").collect()
    return {row.user_id: row.user_idx for row in rows}


def check_dense(index, num_ids):
    assert len(index) == num_ids
    assert sorted(index.values()) == list(range(num_ids))


def test_an_index_that_grew_between_numbering_and_writing_is_numbered_again(spark, config):
    tables.append_to_index(spark, config, "user_index", number_users(spark, "u0", "u1"))
    before = stored_index(spark, config)
    tries = []

    def slow_writer(index):
        rows = number_users(spark, "u2", "u3")(index)
        if not tries:  # another writer is done before this one begins its transaction
            tables.append_to_index(spark, config, "user_index", number_users(spark, "u3", "u4", "u5"))
        tries.append(1)
        return rows

    tables.append_to_index(spark, config, "user_index", slow_writer)
    index = stored_index(spark, config)
    check_dense(index, 6)
    assert {name: index[name] for name in before} == before


def test_two_threads_that_append_at_once_give_out_every_number_once(spark, tmp_path):
    config = make_config(tmp_path, tables={"merge_attempts": 20})
    tables.ensure_table(spark, config, "user_index")
    start, failures = threading.Barrier(2), []

    def work(name):
        try:
            for step in range(2):
                start.wait(timeout=60)
                ids = [f"{name}{step}{number}" for number in range(4)] + [f"both{step}"]
                tables.append_to_index(spark, config, "user_index", number_users(spark, *ids))
        except Exception as error:
            failures.append(error)
            start.abort()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    check_dense(stored_index(spark, config), 18)


@pytest.fixture
def patient(tmp_path):
    return make_config(tmp_path, tables={"merge_attempts": 3, "merge_backoff_seconds": 0})


def test_a_write_is_tried_again_when_another_was_faster(patient):
    outcomes = [ConcurrentAppendException("", "", None), ConcurrentAppendException("", "", None), 7]

    def write():
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert tables.retry_on_conflict(write, patient, "events") == 7
    assert outcomes == []


def test_a_write_that_never_gets_through_may_be_repeated_later(patient):
    calls = []

    def write():
        calls.append(1)
        raise ConcurrentAppendException("", "", None)

    with pytest.raises(RetryableError, match="3 times in a row") as error:
        tables.retry_on_conflict(write, patient, "events")
    assert (len(calls), error.value.exit_code) == (3, 75)


@pytest.mark.parametrize("error", [ConcurrentTransactionException("", "", None), ValueError("mine")])
def test_other_errors_are_not_tried_again(patient, error):
    calls = []

    def write():
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        tables.retry_on_conflict(write, patient, "events")
    assert len(calls) == 1


def test_every_table_of_the_contract_can_be_made(spark, config):
    for name, spec in tables.TABLES.items():
        tables.ensure_table(spark, config, name)
        made = tables.read_table(spark, config, name, made_by="x").schema
        assert [(field.name, field.dataType) for field in made] == [
            (field.name, field.dataType) for field in spec.schema
        ]
