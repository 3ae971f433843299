"""Files of a delivery: which are read, with which bytes, and as of which day."""

from __future__ import annotations

import gzip
import logging
from datetime import date

import pytest
from factories import event_source, write_lines

from recsys_spark.errors import ConfigError, DataError, SchemaError
from recsys_spark.infra import files
from recsys_spark.infra.files import list_files


def read_deliveries(spark, source, run_date):
    """What a run of that date reads."""
    return files.read_deliveries(spark, source, files.find_deliveries(spark, source, run_date), run_date)


def read(spark, source, run_date=None):
    """Give (header, sorted lines as bytes, delivery dates by file name) per delivery."""
    found = []
    for delivery in read_deliveries(spark, source, run_date):
        rows = delivery.lines.collect()
        lines = sorted(bytes(row.raw_line) for row in rows)
        days = {row.source_file.rsplit("/", 1)[-1]: row.delivery_date for row in rows}
        found.append((delivery.header, lines, days))
    return found


def names(files):
    return [file.rsplit("/", 1)[-1] for file in files]


def test_folders_are_read_with_subfolders_and_without_hidden_files(spark, tmp_path):
    for name in ("b.jsonl", "a.jsonl", "2024/c.jsonl", "_SUCCESS", ".hidden", "_tmp/d.jsonl"):
        write_lines(tmp_path / name, "{}")
    assert names(list_files(spark, str(tmp_path))) == ["c.jsonl", "a.jsonl", "b.jsonl"]
    assert names(list_files(spark, f"{tmp_path}/*.jsonl")) == ["a.jsonl", "b.jsonl"]
    assert names(list_files(spark, f"{tmp_path}/*")) == ["c.jsonl", "a.jsonl", "b.jsonl"]
    assert names(list_files(spark, f"{tmp_path}/_tmp")) == ["d.jsonl"]
    assert names(list_files(spark, f"{tmp_path}/a.jsonl")) == ["a.jsonl"]
    assert list_files(spark, f"{tmp_path}/none") == []
    assert list_files(spark, f"{tmp_path}/none*") == []


def test_lines_keep_their_bytes(spark, tmp_path):
    lines = [b"\xff\xfe", b"a\rb", b"tail\r", b"", b"nul\0nul", "用户🙂".encode(), b"\xe2\x80\xa8"]
    write_lines(tmp_path / "raw.jsonl", *lines)
    (tmp_path / "without newline.jsonl").write_bytes(b"last")
    assert read(spark, event_source(path=str(tmp_path)))[0][1] == sorted([*lines, b"last"])


def test_names_with_glob_characters_and_spaces_are_plain_names(spark, tmp_path):
    for number, name in enumerate(
        ["a[1].jsonl", "b{2}.jsonl", "c d.jsonl", "e%20f.jsonl", "g+h,i.jsonl", "用户.jsonl"]
    ):
        write_lines(tmp_path / name, f"{number}")
    assert read(spark, event_source(path=str(tmp_path)))[0][1] == [b"0", b"1", b"2", b"3", b"4", b"5"]


def test_gzip_is_unpacked(spark, tmp_path):
    (tmp_path / "day.jsonl.gz").write_bytes(gzip.compress(b"one\ntwo\n"))
    (tmp_path / "day.csv.gz").write_bytes(gzip.compress(b"user_id,item_id\nu1,i1\n"))
    assert read(spark, event_source(path=f"{tmp_path}/*.jsonl.gz"))[0][1] == [b"one", b"two"]
    assert read(spark, event_source(path=f"{tmp_path}/*.csv.gz", format="csv"))[0][0] == "user_id,item_id"


def test_a_run_date_reads_that_day_s_files_only(spark, tmp_path):
    for day in ("2024-03-04", "2024-03-05"):
        write_lines(tmp_path / f"{day}.jsonl", day)
    write_lines(tmp_path / "9999-99-99.jsonl", "no date")
    source = event_source(path=str(tmp_path), date_pattern=r"(\d{4}-\d{2}-\d{2})\.jsonl$")
    assert read(spark, source, date(2024, 3, 5)) == [(None, [b"2024-03-05"], {"2024-03-05.jsonl": date(2024, 3, 5)})]
    assert read(spark, source)[0][2] == {
        "2024-03-04.jsonl": date(2024, 3, 4), "2024-03-05.jsonl": date(2024, 3, 5), "9999-99-99.jsonl": None,
    }  # fmt: skip


def test_files_without_a_date_are_told_of_since_no_dated_run_reads_them(spark, tmp_path, caplog):
    for name in ("export 2024-03-05", "export 20240305", "export 2024-3-5", "notes"):
        write_lines(tmp_path / f"{name}.jsonl", name)
    source = event_source(path=str(tmp_path), date_pattern=r"export (\d.*)\.jsonl$")
    with caplog.at_level(logging.WARNING):
        found = read(spark, source, date(2024, 3, 5))
    assert found == [(None, [b"export 2024-03-05"], {"export 2024-03-05.jsonl": date(2024, 3, 5)})]
    assert "files_without_date source=shop files=3 first=" in caplog.text
    assert read(spark, source)[0][2] == {
        "export 2024-03-05.jsonl": date(2024, 3, 5), "export 20240305.jsonl": None, "export 2024-3-5.jsonl": None, "notes.jsonl": None,
    }  # fmt: skip


def test_a_date_in_the_path_and_the_run_date_as_delivery_date(spark, tmp_path):
    write_lines(tmp_path / "2024-03-05" / "part.jsonl", "x")
    source = event_source(path=f"{tmp_path}/{{date}}")
    assert read(spark, source, date(2024, 3, 5))[0][2] == {"part.jsonl": date(2024, 3, 5)}
    with pytest.raises(DataError, match="2024-03-06"):
        read(spark, source, date(2024, 3, 6))


def test_no_files_are_an_error_that_names_the_path_and_the_day(spark, tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path}/none"):
        read(spark, event_source(path=f"{tmp_path}/none"))
    write_lines(tmp_path / "2024-03-04.jsonl", "x")
    source = event_source(path=str(tmp_path), date_pattern=r"(\d{4}-\d{2}-\d{2})")
    with pytest.raises(DataError, match="2024-03-05"):
        read(spark, source, date(2024, 3, 5))


def test_a_source_without_a_path_is_a_config_error(spark):
    with pytest.raises(ConfigError, match=r"sources\.events\.path"):
        read(spark, event_source())


def test_csv_files_are_grouped_by_their_header(spark, tmp_path):
    write_lines(tmp_path / "a.csv", "user_id,item_id", "u1,i1")
    write_lines(tmp_path / "b.csv", "item_id,user_id", "i2,u2")
    write_lines(tmp_path / "c.csv", b"\xef\xbb\xbfuser_id,item_id\r", "u3,i3\r")
    write_lines(tmp_path / "empty.csv")
    found = read(spark, event_source(path=str(tmp_path), format="csv"))
    assert [(header, sorted(days)) for header, _, days in found] == [
        ("item_id,user_id", ["b.csv"]), ("user_id,item_id", ["a.csv", "c.csv"]),
    ]  # fmt: skip


def test_csv_files_without_any_line_give_no_lines(spark, tmp_path):
    write_lines(tmp_path / "empty.csv")
    assert [lines for _, lines, _ in read(spark, event_source(path=str(tmp_path), format="csv"))] == [[]]


def test_a_csv_whose_first_line_is_blank_is_not_passed_over(spark, tmp_path):
    write_lines(tmp_path / "a.csv", "user_id,item_id", "u1,i1")
    write_lines(tmp_path / "b.csv", "", "user_id,item_id", "u2,i2")
    with pytest.raises(SchemaError, match=r"b\.csv.*first line is blank"):
        read(spark, event_source(path=str(tmp_path), format="csv"))


def test_parquet_rows_become_json_lines_that_lose_nothing_but_nulls(spark, tmp_path):
    rows = spark.sql(
        "SELECT timestamp'2024-03-05 10:00:00.123456' t, timestamp_ntz'2024-03-05 10:00:00.123456' n, 12345678901234567890 i, "
        "double('NaN') d, 1.10 c, CAST(NULL AS string) x, named_struct('id', 1) s, '用\"户' AS `a.b`"
    )
    rows.write.parquet(str(tmp_path / "rows"))
    ((_, (line,), _),) = read(spark, event_source(path=str(tmp_path / "rows"), format="parquet"))
    assert line.decode() == (
        '{"a.b":"用\\"户","c":1.10,"d":"NaN","i":12345678901234567890,"n":"2024-03-05T10:00:00.123456","s":{"id":1},'
        '"t":"2024-03-05T10:00:00.123456Z"}'
    )


def test_a_parquet_row_is_the_same_line_whatever_files_are_read_with_it(spark, tmp_path):
    for day, row in (("04", "SELECT 1 b, 'x' a"), ("05", "SELECT 2 b, 'y' c, 'z' a")):
        spark.sql(row).write.parquet(str(tmp_path / f"2024-03-{day}.parquet"))
    alone = read(spark, event_source(path=f"{tmp_path}/2024-03-04.parquet", format="parquet"))
    together = read(spark, event_source(path=str(tmp_path), format="parquet"))
    assert [lines for _, lines, _ in alone] == [[b'{"a":"x","b":1}']]
    assert [lines for _, lines, _ in together] == [[b'{"a":"x","b":1}', b'{"a":"z","b":2,"c":"y"}']]
