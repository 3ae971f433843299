"""Delimited lines and their headers: dialects, quotes, and headers that cannot be trusted."""

from __future__ import annotations

import pytest
from factories import event_source
from parsed_lines import OK, check_verdicts, parse, verdict

from recsys_spark.data.sources import header_names
from recsys_spark.errors import SchemaError

CSV_HEADER = "user_id,item_id,event_type,timestamp,event_id,note"
CSV_LINES = {
    "good": ("u1,i1,view,2024-03-05,e1,hello", OK),
    "quoted": ('u1,"i,1",view,2024-03-05,e1,"say ""hi"""', OK),
    "CRLF": ("u1,i1,view,2024-03-05,e1,hello\r", OK),
    "empty last field": ("u1,i1,view,2024-03-05,e1,", OK),
    "blank": ("", "filtered:blank_line"),
    "too few": ("u1,i1,view,2024-03-05,e1", "malformed"),
    "too many": ("u1,i1,view,2024-03-05,e1,hello,more", "malformed"),
    "an open quote": ('u1,i1,view,2024-03-05,e1,"hello', "malformed"),
    "empty user": (",i1,view,2024-03-05,e1,x", "missing_field:user_id"),
    "quoted empty user": ('"",i1,view,2024-03-05,e1,x', "missing_field:user_id"),
    "JSON text is text": ('{u1},i1,view,2024-03-05,e1,"[x]"', OK),
    "NUL": ("u\0,i1,view,2024-03-05,e1,x", "nul_byte"),
}


def test_csv_lines_have_the_header_s_number_of_fields(spark):
    lines = {name: line for name, (line, _) in CSV_LINES.items()} | {"the header": CSV_HEADER}
    found = parse(spark, lines, event_source(format="csv"), header=CSV_HEADER)
    check_verdicts(found, CSV_LINES)  # and the header line is no line
    assert (found["quoted"].item_id, found["quoted"].attributes) == ("i,1", {"note": 'say "hi"'})
    assert found["empty last field"].attributes == {}
    assert found["JSON text is text"].user_id == "{u1}"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"delimiter": "::"}, b"1::1193::view::978300760::e1"),
        ({"delimiter": "\t"}, b"1\t1193\tview\t978300760\te1"),
        ({"delimiter": "|", "quote": ""}, b"1|1193|view|978300760|e1"),
        ({"delimiter": ";", "quote": "'"}, b"1;'1193';view;978300760;'e1'"),
    ],
)
def test_csv_dialects_without_a_header_line(spark, settings, line):
    source = event_source(
        format="csv",
        header=["user_id", "item_id", "event_type", "timestamp", "event_id"],
        columns={"timestamp": {"column": "timestamp", "timestamp_format": "epoch_seconds"}},
        **settings,
    )
    row = parse(spark, {"line": line}, source)["line"]
    assert verdict(row) is None
    assert (row.user_id, row.item_id, row.event_id) == ("1", "1193", "e1")


def test_without_quoting_a_quote_is_a_letter(spark):
    source = event_source(format="csv", quote="", header=["user_id", "item_id", "event_type", "timestamp", "event_id"])
    row = parse(spark, {"line": '"u1,i"1,view,2024-03-05,"e1"'}, source)["line"]
    assert (verdict(row), row.user_id, row.item_id, row.event_id) == (None, '"u1', 'i"1', '"e1"')


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("user_id,item_id,user_id", r"repeats at fields \[3\]"),
        ("anna,kettle,view", "one of 3 fields that names none of them"),
        ("user_id;item_id;event_type", "check sources.*.columns and delimiter"),
    ],
)
def test_a_doubtful_header_stops_the_job_and_is_not_shown(header, problem):
    with pytest.raises(SchemaError, match=problem) as error:
        header_names(event_source(format="csv"), header)
    assert "anna" not in str(error.value)  # the first line of a file without a header is somebody's data


def test_header_names_are_unquoted_and_trimmed():
    names = header_names(event_source(format="csv"), '"user_id", item_id,"event,type",timestamp')
    assert names == ["user_id", "item_id", "event,type", "timestamp"]


def test_configured_names_are_distinct_too():
    with pytest.raises(SchemaError, match="repeats"):
        header_names(event_source(format="csv", header=["user_id", "item_id", "item_id"]), None)


def test_a_csv_without_a_header_line_needs_names():
    with pytest.raises(SchemaError, match="list of names"):
        header_names(event_source(format="csv", header=False), None)
