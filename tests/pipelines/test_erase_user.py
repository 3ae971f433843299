"""Erasure, proven by the bytes of every file that is left."""

from __future__ import annotations

import json
import logging
from datetime import date, datetime
from pathlib import Path

import pytest
from factories import make_config, make_events, table_rows
from personal_bytes import files_that_hold

from recsys_spark.errors import ConfigError, DataError, RetryableError
from recsys_spark.infra import erased, table_files, tables, tracking
from recsys_spark.infra.erasure_guard import erasures_respected
from recsys_spark.pipelines import erase_user as pipeline
from recsys_spark.pipelines.erase_user import erase_user, read_user_ids

GONE = "erase-me-Ünïque-77"
ESCAPED = json.dumps(GONE)
DAY = date(2024, 3, 9)


def make_table(spark, config, name, has_vectors=False):
    tables.ensure_table(spark, config, name)
    if has_vectors:
        address = tables.table_address(config, name)
        spark.sql(f"ALTER TABLE {address} SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")


def add_index(spark, config, **numbers):
    rows = [(name.replace("GONE", GONE), number) for name, number in numbers.items()]
    tables.merge_new(spark, config, "user_index", spark.createDataFrame(rows, tables.TABLES["user_index"].schema))


def add_quarantine(spark, config, *lines):
    given = {"source_file": "file", "occurrence": 1, "reason": "malformed", "source": "shop", "ingest_run": "run"}
    schema = tables.TABLES["events_quarantine"].schema
    rows = [{**given, "line_hash": f"hash{number}", "raw_line": bytearray(line)} for number, line in enumerate(lines)]
    rows = [tuple(row.get(name) for name in schema.fieldNames()) for row in rows]
    tables.merge_new(spark, config, "events_quarantine", spark.createDataFrame(rows, schema))


def write_reports(config):
    """Two local reports, and an MLflow run with the first of them."""
    folder = Path(config.data_root) / "reports"
    folder.mkdir()
    shown = f"<h2>One user: {GONE}</h2>"
    (folder / "2024-03-08.html").write_text(shown, encoding="utf-8")
    (folder / "2024-03-09.html").write_text("<h2>One user: u2</h2>", encoding="utf-8")
    run_id = tracking.start_run(config, "evaluate", {"als.rank": "8"}, {})
    config_yaml = f"evaluation:\n  example_user: {GONE}\n  k: [10]\n"
    tracking.finish_run(config, run_id, {}, {"report.html": shown, "config.yaml": config_yaml})


@pytest.fixture
def erase_config(tmp_path):
    """A config whose users file names the user, blank lines and a stranger."""
    (tmp_path / "users.txt").write_text(f"{GONE}\r\n\nnobody\n", encoding="utf-8")
    return make_config(tmp_path / "lake", erase={"users_file": str(tmp_path / "users.txt")})


@pytest.fixture
def erase_catalog_config(spark, erase_config):
    """The same with its tables in a database of Spark's catalog, whose files are below the same folder."""
    root = Path(erase_config.data_root)
    spark.sql(f"CREATE DATABASE shop_erase LOCATION '{root / 'tables'}'")
    yield make_config(root, erase=erase_config.erase.model_dump(), tables={"catalog": "spark_catalog.shop_erase"})
    spark.sql("DROP DATABASE shop_erase CASCADE")


def stored(spark, config, name, *columns):
    return table_rows(tables.read_table(spark, config, name, made_by="x"), *columns)


@pytest.mark.parametrize(
    ("tables_in", "has_vectors"), [("erase_catalog_config", False), ("erase_config", True)],
    ids=["plain, by name", "deletion vectors, by folder"],
)  # fmt: skip
def test_no_file_holds_an_erased_user(spark, request, tables_in, has_vectors, caplog, capfd):
    config = request.getfixturevalue(tables_in)
    root = Path(config.data_root)
    for name in ("events", "user_index"):
        make_table(spark, config, name, has_vectors)
    events = [{"user_id": user, "session_id": f"of {user}", "timestamp": f"2024-03-0{day} 10:00:00"}
              for day in (5, 6) for user in (GONE, "erase-me")]  # fmt: skip
    tables.merge_new(spark, config, "events", make_events(spark, events))
    add_quarantine(spark, config, f'{{"user_id": "{GONE}", "torn'.encode(), f"{{'u': {ESCAPED}".encode(), b"erase-me-")
    add_index(spark, config, u2=0, GONE=1)
    pending = root / "tables/events/event_date=2024-03-05/part-pending.parquet"
    pending.write_bytes(b"of a writer that has not committed yet")
    write_reports(config)
    held = files_that_hold(root, GONE)
    for part in ("events/", "user_index/", "reports/", "mlflow/"):
        assert any(part in name for name in held), held
    assert any("events_quarantine/" in name for name in files_that_hold(root, ESCAPED[1:-1]))
    assert not any("_delta_log" in name for name in held), held  # no statistics of personal columns

    caplog.set_level(logging.DEBUG, logger="recsys_spark")
    counts = erase_user(spark, config, DAY)

    assert files_that_hold(root, GONE) == []
    assert files_that_hold(root, ESCAPED[1:-1]) == []
    assert pending.exists()
    assert GONE not in caplog.text + "".join(capfd.readouterr())
    assert {name: value for name, value in counts.items() if value} == {
        "users_asked": 2, "users_found": 1, "reports": 3, "rows.events": 2, "rows.events_quarantine": 2, "rows.user_index": 1,
    }  # fmt: skip
    assert stored(spark, config, "events", "user_id") == [("erase-me",)] * 2
    assert stored(spark, config, "user_index", "user_id", "user_idx") == [("erased:1", "1"), ("u2", "0")]
    quarantine = tables.read_table(spark, config, "events_quarantine", made_by="x").collect()
    assert [bytes(row.raw_line) for row in quarantine] == [b"erase-me-"]
    kinds = stored(spark, config, "erased", "kind", "erased_at")
    assert kinds == [("line", "2024-03-10 00:00:00")] * 2 + [("user", "2024-03-10 00:00:00")] * 2
    receipt = json.loads(next((root / "receipts").iterdir()).read_text(encoding="utf-8"))
    assert receipt["tables"]["events"] == {
        "rows_removed": 2, "delta_version": tables.delta_version(spark, config, "events"), "vacuumed": True, "log_is_clean": True,
    }  # fmt: skip
    assert len(receipt["remains"]) == 1


def test_a_user_is_erased_as_the_neighbour_of_others_too(spark, erase_config):
    rows = [
        (user, other, 0.5, "user_neighbours", "v1", DAY) for user, other in ((GONE, "u2"), ("u2", GONE), ("u2", "u3"))
    ]
    neighbours = spark.createDataFrame(rows, tables.TABLES["user_neighbours"].schema)
    tables.replace_partition(spark, erase_config, "user_neighbours", neighbours, {"run_date": DAY})
    counts = erase_user(spark, erase_config, DAY)
    assert (counts["users_found"], counts["rows.user_neighbours"]) == (1, 2)
    assert stored(spark, erase_config, "user_neighbours", "user_id", "neighbour_user_id") == [("u2", "u3")]
    assert files_that_hold(Path(erase_config.data_root), GONE) == []


def test_an_interrupted_erasure_is_completed_by_the_next_run(spark, erase_config, monkeypatch):
    config, root = erase_config, Path(erase_config.data_root)
    make_table(spark, config, "user_index")
    add_index(spark, config, u2=0, GONE=1)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(table_files, "forget_removed_rows", stop)
        with pytest.raises(KeyboardInterrupt):
            erase_user(spark, config, DAY)
    assert files_that_hold(root, GONE)  # deleted, but its bytes are there
    known = erased.read_erased(spark, config)
    assert known is not None
    counts = erase_user(spark, config, date(2024, 3, 11))
    assert files_that_hold(root, GONE) == []
    assert (counts["users_found"], counts["rows.user_index"]) == (0, 0)
    again = erased.read_erased(spark, config)
    assert again.salt == known.salt
    assert {row.erased_at for row in again.rows.collect()} == {datetime(2024, 3, 12)}  # moved up, no second row
    assert again.rows.count() == 2


def test_rows_that_another_job_wrote_back_are_an_error_to_try_again(spark, erase_config, monkeypatch):
    make_table(spark, erase_config, "user_index")
    add_index(spark, erase_config, GONE=0)
    monkeypatch.setattr(pipeline, "remove_users", lambda *_: 0)
    monkeypatch.setattr(table_files, "forget_removed_rows", lambda *_: False)
    with pytest.raises(RetryableError, match=r"\['user_index'\]") as error:
        erase_user(spark, erase_config, DAY)
    assert GONE not in str(error.value)


def test_a_broken_line_that_an_ingest_wrote_back_is_an_error_to_try_again(spark, erase_config, monkeypatch):
    tables.ensure_table(spark, erase_config, "events_quarantine")
    forget = table_files.forget_removed_rows

    def written_back(*arguments):
        result = forget(*arguments)
        add_quarantine(spark, erase_config, f'{{"user": "{GONE}", torn'.encode())
        return result

    with monkeypatch.context() as patched:
        patched.setattr(table_files, "forget_removed_rows", written_back)
        with pytest.raises(RetryableError, match=r"\['events_quarantine'\]"):
            erase_user(spark, erase_config, DAY)
    assert erase_user(spark, erase_config, DAY)["rows.events_quarantine"] == 1
    assert files_that_hold(Path(erase_config.data_root), GONE) == []


def test_rows_that_a_job_writes_after_the_erasure_ended_go_out_again(spark, erase_config):
    make_table(spark, erase_config, "user_index")
    add_index(spark, erase_config, GONE=0, u2=1)
    events = make_events(spark, [{"user_id": GONE}, {"user_id": "u2"}])  # as a job read them before

    def job_beside_an_erasure():
        with erasures_respected(spark, erase_config):
            erase_user(spark, erase_config, DAY)
            tables.merge_new(spark, erase_config, "events", events)

    with pytest.raises(RetryableError, match="users were erased while this job ran; 1 rows of theirs") as error:
        job_beside_an_erasure()
    assert GONE not in str(error.value)
    assert stored(spark, erase_config, "events", "user_id") == [("u2",)]
    assert files_that_hold(Path(erase_config.data_root), GONE) == []


def test_a_job_beside_no_erasure_and_one_that_brings_nobody_back_just_end(spark, erase_config):
    make_table(spark, erase_config, "user_index")
    add_index(spark, erase_config, GONE=0, u2=1)
    for beside in (lambda: None, lambda: erase_user(spark, erase_config, DAY)):
        with erasures_respected(spark, erase_config):
            beside()
    # who comes back after the erasure stays
    with erasures_respected(spark, erase_config):
        tables.merge_new(spark, erase_config, "events", make_events(spark, [{"user_id": GONE}]))
    assert stored(spark, erase_config, "events", "user_id") == [(GONE,)]


def test_a_run_that_names_the_user_in_a_parameter_is_left_to_delete(erase_config):
    run_id = tracking.start_run(erase_config, "evaluate", {"evaluation.example_user": GONE}, {})
    tracking.start_run(erase_config, "another", {"evaluation.example_user": "u2"}, {})
    replaced, runs = tracking.replace_artifacts(
        erase_config,
        ("report.html",),
        lambda *_: None,
        lambda name, value: (name, value) == (pipeline.EXAMPLE_USER, GONE),
    )
    assert (replaced, runs) == (0, [run_id])


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, DataError, "found blank lines only"),
        (b" \n\n", DataError, "found blank lines only"),
        (b"caf\xe9\n", DataError, "expected UTF-8, found another encoding at byte 3"),
        (b"u1\n--\n", DataError, "line 2 holds no letter or digit"),
    ],
    ids=["empty", "blank", "encoding", "no word"],
)
def test_a_file_that_holds_no_ids_says_what_was_expected(tmp_path, content, error, message):
    (tmp_path / "users").write_bytes(content or b"")
    with pytest.raises(error, match=message):
        read_user_ids(make_config(tmp_path, erase={"users_file": str(tmp_path / "users")}))


def test_a_file_that_is_missing_or_not_named_is_a_matter_of_the_config(tmp_path):
    with pytest.raises(ConfigError, match="not set"):
        read_user_ids(make_config(tmp_path))
    with pytest.raises(ConfigError, match="check the path"):
        read_user_ids(make_config(tmp_path, erase={"users_file": str(tmp_path / "missing")}))
    with pytest.raises(ConfigError, match="--date"):
        erase_user(None, make_config(tmp_path))


def test_ids_keep_their_blanks_and_lose_line_ends_and_the_byte_order_mark(tmp_path):
    (tmp_path / "users").write_bytes("\ufeffa\r\n b \n\na\n".encode())
    assert read_user_ids(make_config(tmp_path, erase={"users_file": str(tmp_path / "users")})) == ["a", " b "]
