"""Files that others wrote: which kind they are, and what is said of those that cannot be read."""

from __future__ import annotations

import gzip

import pytest

from recsys_spark.errors import DamagedFileError, DataError
from recsys_spark.infra.given_tables import is_there, read_given_table, unreadable_explained

ROWS = [("ann", "a"), ("bob", "b")]
TEXT = "user_id,item_id\nann,a\nbob,b\n"


def rows_of(spark, path, **options):
    return sorted(tuple(row) for row in read_given_table(spark, str(path), **options).collect())


def test_csv_parquet_and_delta_by_path(spark, tmp_path):
    frame = spark.createDataFrame(ROWS, "user_id string, item_id string").coalesce(1)
    frame.write.parquet(str(tmp_path / "parquet"))
    frame.write.format("delta").save(str(tmp_path / "delta"))
    spark.createDataFrame([("cat", "c")], frame.schema).write.format("delta").mode("overwrite").save(
        str(tmp_path / "delta")
    )
    (tmp_path / "plain.csv").write_text("\ufeff" + TEXT, encoding="utf-8")
    (tmp_path / "tabs [1].tsv").write_text(TEXT.replace(",", "\t"))
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress(TEXT.replace(",", ";").encode()))
    assert rows_of(spark, tmp_path / "parquet") == ROWS
    assert rows_of(spark, tmp_path / "delta") == [("cat", "c")]  # not what an older version of it held
    assert rows_of(spark, tmp_path / "plain.csv") == ROWS
    assert rows_of(spark, tmp_path / "tabs *.tsv") == ROWS
    assert rows_of(spark, tmp_path / "packed.csv.gz", delimiter=";") == ROWS
    assert is_there(spark, str(tmp_path / "delta"))
    assert not is_there(spark, str(tmp_path / "nothing"))


def test_quotes_hold_delimiters_and_numbers_stay_text(spark, tmp_path):
    (tmp_path / "t.csv").write_text('user_id,item_id\n007,"a, ""b"""\n')
    assert rows_of(spark, tmp_path / "t.csv") == [("007", 'a, "b"')]


def test_tables_of_the_catalog_by_name(spark):
    spark.createDataFrame(ROWS, "user_id string, item_id string").createOrReplaceTempView("given_truth")
    assert rows_of(spark, "given_truth") == ROWS


@pytest.mark.parametrize("address", ["no_such_table", "no.such.table", "a/folder that is not there", "t.parquet"])
def test_an_address_of_nothing_says_what_was_tried(spark, address):
    with pytest.raises(DataError, match=r"no such path|neither files at this path nor a table of this name"):
        read_given_table(spark, address)


def test_a_folder_of_both_kinds_is_refused(spark, tmp_path):
    (tmp_path / "a.csv").write_text(TEXT)
    (tmp_path / "b.parquet").write_bytes(b"")
    with pytest.raises(DataError, match="found 1 CSV of 2"):
        read_given_table(spark, str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", b"", "a.parquet"),
        ("b.parquet", b"no parquet", "b.parquet"),
        ("c.csv", b"user_id,item_id\nann,a\nbob-the-secret,b,7\n", "too many or too few fields"),
        ("d.csv", b"user_id,item_id\nbob-the-secret\n", "too many or too few fields"),
        ("e.csv.gz", gzip.compress(TEXT.encode() * 99, mtime=0)[:-20], "e.csv.gz"),
    ],
)
def test_unreadable_files_are_named_without_their_lines(spark, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DamagedFileError) as raised, unreadable_explained([str(tmp_path / name)]):
        read_given_table(spark, str(tmp_path / name)).collect()
    assert message in str(raised.value)
    assert "secret" not in str(raised.value)


def test_an_empty_csv_file_has_no_columns(spark, tmp_path):
    (tmp_path / "empty.csv").write_bytes(b"")
    assert read_given_table(spark, str(tmp_path / "empty.csv")).columns == []


def test_folders_named_column_equals_value_are_columns(spark, tmp_path):
    frame = spark.createDataFrame(
        [("ann", "a", "x"), ("bob", "b", "y")], "user_id string, item_id string, model string"
    )
    frame.write.partitionBy("model").parquet(str(tmp_path / "lists"))
    frame.write.partitionBy("model").option("header", True).csv(str(tmp_path / "text"))
    for folder in ("lists", "text"):
        assert rows_of(spark, tmp_path / folder) == [("ann", "a", "x"), ("bob", "b", "y")]
        assert rows_of(spark, tmp_path / folder / "*" / "*") == [("ann", "a", "x"), ("bob", "b", "y")]
        assert rows_of(spark, tmp_path / folder / "model=x") == [("ann", "a")]
