"""Lines -> fields -> columns: every kind of dirty line, in a few jobs that hold many cases each."""

from __future__ import annotations

import json
from datetime import date

import pytest
from factories import as_bytes, event_fields, event_line, event_source, raw_lines
from parsed_lines import OK, check_verdicts, parse, verdict

from recsys_spark.data.events import parse_events
from recsys_spark.data.sources import parse_lines
from recsys_spark.errors import ConfigError

DIRTY_JSON = {
    # name: (line, verdict)
    "good": (event_line(), OK),
    "good with spaces around": ("  " + event_line() + " ", OK),
    "good with CRLF": (event_line() + "\r", OK),
    "good behind a BOM": (b"\xef\xbb\xbf" + event_line().encode(), OK),
    "blank": ("", "filtered:blank_line"),
    "blank with CRLF": ("  \r", "filtered:blank_line"),
    "only a BOM": (b"\xef\xbb\xbf", "filtered:blank_line"),
    "torn": (event_line()[:-10], "malformed"),
    "torn at the end": (event_line()[:-1], "malformed"),
    "torn at the start": (event_line()[10:], "malformed"),
    "two objects": (event_line() + event_line(event_id="e2"), "malformed"),
    "two objects with a comma": (event_line() + "," + event_line(event_id="e2"), "malformed"),
    "comma behind": (event_line() + ",", "malformed"),
    "text behind": (event_line() + " trailing", "malformed"),
    "bracket behind, the last line of a pretty-printed array": (event_line() + "]", "malformed"),
    "bracket and text behind": (event_line() + '] "rest"', "malformed"),
    "two arrays glued": (event_line() + "],[" + event_line(event_id="e2"), "malformed"),
    "array": ("[" + event_line() + "]", "malformed"),
    "empty array": ("[]", "malformed"),
    "number": ("17", "malformed"),
    "string": ('"text"', "malformed"),
    "null": ("null", "malformed"),
    "no JSON": ("GET /index.html 200", "malformed"),
    "single quotes": (event_line().replace('"', "'"), "malformed"),
    "empty object": ("{}", "missing_field:event_id"),
    "raw NUL": (event_line(user_id="u\0").replace("\\u0000", "\0"), "nul_byte"),
    "NUL as an escape": (event_line(user_id="u\0"), "nul_byte"),
    "NUL as an escape in a field that lands in attributes": (event_line(note="a\0b"), "nul_byte"),
    "NUL as an escape in a field's name": (event_line(**{"no\0te": "a"}), "nul_byte"),
    "a backslash before u0000 is text": (event_line(user_id="u\\u0000"), OK),
    "invalid UTF-8": (event_line(user_id="ZZ").encode().replace(b"ZZ", b"\xff\xfe"), "invalid_encoding"),
    "torn UTF-8": (event_line(user_id="ZZ").encode().replace(b"ZZ", b"\xe4\xb8"), "invalid_encoding"),
    "too long": (event_line(note="x" * 2000), "too_long"),
    "one field twice": ('{"user_id": "u9", ' + event_line()[1:], "malformed"),
    "one field twice in attributes": (event_line()[:-1] + ', "a": 1, "a": 2}', "malformed"),
    "user missing": (event_line(user_id=...), "missing_field:user_id"),
    "user null": (event_line(user_id=None), "missing_field:user_id"),
    "user blank": (event_line(user_id="  "), "missing_field:user_id"),
    "user of tabs and other scripts' blanks": (event_line(user_id="\t\u00a0\u3000"), "missing_field:user_id"),
    "event_id missing": (event_line(event_id=...), "missing_field:event_id"),
    "event_type empty": (event_line(event_type=""), "missing_field:event_type"),
    "timestamp null": (event_line(timestamp=None), "missing_field:timestamp"),
    "item missing": (event_line(item_id=...), "missing_field:item_id"),
    "item missing for a search": (event_line(item_id=..., event_type="search"), OK),
    "item blank for a search": (event_line(item_id=" ", event_type="search"), OK),
    "user an object": (event_line(user_id={"id": 1}), "nested_value:user_id"),
    "user a list": (event_line(user_id=["u1"]), "nested_value:user_id"),
    "user an object behind a BOM": (b"\xef\xbb\xbf" + event_line(user_id={"id": 1}).encode(), "nested_value:user_id"),
    "user an object and CRLF": (event_line(user_id={"id": 1}) + "\r", "nested_value:user_id"),
    "user text in braces": (event_line(user_id="{abc}"), OK),
    "user text that is JSON": (event_line(user_id='{"id": 1}'), OK),
    "user text in brackets": (event_line(user_id="[abc]"), OK),
    "an unused field may be nested": (event_line(cart=[{"sku": 1}]), OK),
    "value NaN": (event_line(value="NaN"), "wrong_type:value"),
    "value bare NaN": (event_line(value=float("nan")), "malformed"),
    "value too large for a double": (event_line(value=0).replace('"value": 0', '"value": 1e999'), "wrong_type:value"),
    "value no number": (event_line(value="n/a"), "wrong_type:value"),
    "value a duration, not a double with a suffix": (event_line(value="3d"), "wrong_type:value"),
    "value blank is no value": (event_line(value=""), OK),
    "value null": (event_line(value=None), OK),
    "value as text": (event_line(value=" 3.5 "), OK),
    "value negative": (event_line(value=-2), OK),
    "value an object": (event_line(value={"amount": 3}), "nested_value:value"),
    "unknown type": (event_line(event_type="explode"), "unknown_event_type:event_type"),
    "type in another case is another type": (event_line(event_type="View"), "unknown_event_type:event_type"),
    "emoji and Chinese ids": (event_line(user_id="用户🙂", item_id="商品"), OK),
    "numeric ids": (event_line(user_id=12345678901234567890, item_id=7), OK),
    "several faults: the first counts": (event_line(user_id=None, timestamp="?"), "missing_field:user_id"),
}  # fmt: skip


@pytest.fixture(scope="module")
def dirty(spark_session):
    source = event_source(columns={"value": "value"}, event_types=["view", "search"], max_line_bytes=1000)
    return parse(spark_session, {name: line for name, (line, _) in DIRTY_JSON.items()}, source)


@pytest.mark.parametrize("case", DIRTY_JSON)
def test_each_dirty_json_line_has_its_verdict(dirty, case):
    assert verdict(dirty[case]) == DIRTY_JSON[case][1]


def test_quarantined_lines_keep_their_bytes_and_events_do_not_carry_theirs(dirty):
    for name, (line, expected) in DIRTY_JSON.items():
        if expected == "filtered:blank_line":
            continue
        raw = None if expected is OK else as_bytes(line)
        kept = dirty[name]["raw_line"]
        assert (kept if kept is None else bytes(kept)) == raw, name


def test_ids_and_values_keep_their_text(dirty):
    assert (dirty["emoji and Chinese ids"].user_id, dirty["emoji and Chinese ids"].item_id) == ("用户🙂", "商品")
    assert (dirty["numeric ids"].user_id, dirty["numeric ids"].item_id) == ("12345678901234567890", "7")
    assert dirty["user text in braces"].user_id == "{abc}"
    assert dirty["value as text"].value == 3.5
    assert dirty["value blank is no value"].value is None
    assert dirty["item blank for a search"].item_id is None
    assert dirty["good behind a BOM"].user_id == "u1"


def test_fields_that_no_column_uses_land_in_attributes(dirty):
    assert dirty["an unused field may be nested"].attributes == {"cart": '[{"sku":1}]'}
    assert dirty["good"].attributes == {}


TIMES = {
    # format: {text: UTC time or verdict}
    None: {
        "2024-03-05T10:00:00": "2024-03-05 10:00:00",
        "2024-03-05 10:00": "2024-03-05 10:00:00",
        "2024-03-05": "2024-03-05 00:00:00",
        "2024-03-05T10:00:00Z": "2024-03-05 10:00:00",
        "2024-03-05T10:00:00+02:00": "2024-03-05 08:00:00",
        "2024-03-05T10:00:00.123456Z": "2024-03-05 10:00:00.123456",
        " 2024-03-05T10:00:00 ": "2024-03-05 10:00:00",
        "12:30": "bad_timestamp:timestamp",
        "T12:30": "bad_timestamp:timestamp",
        "2024": "bad_timestamp:timestamp",
        "yesterday": "bad_timestamp:timestamp",
        "2024-02-30": "bad_timestamp:timestamp",
        "2024-03-05T25:00:00": "bad_timestamp:timestamp",
        "1709632800": "bad_timestamp:timestamp",
        "0001-01-01": "timestamp_out_of_range:timestamp",
        "1989-12-31T23:59:59": "timestamp_out_of_range:timestamp",
        "1990-01-01": "1990-01-01 00:00:00",
        "2100-01-01": "timestamp_out_of_range:timestamp",
    },
    "epoch_seconds": {
        "1709632800": "2024-03-05 10:00:00",
        "1709632800.25": "2024-03-05 10:00:00.25",
        "-1": "timestamp_out_of_range:timestamp",
        "0": "timestamp_out_of_range:timestamp",
        "1709632800000": "bad_timestamp:timestamp",
        "1e300": "bad_timestamp:timestamp",
        "NaN": "bad_timestamp:timestamp",
        "Infinity": "bad_timestamp:timestamp",
        "2024-03-05": "bad_timestamp:timestamp",
    },
    "epoch_millis": {
        "1709632800123": "2024-03-05 10:00:00.123",
        "1709632800": "timestamp_out_of_range:timestamp",
        "soon": "bad_timestamp:timestamp",
    },
    "d.M.yyyy HH:mm": {
        "5.3.2024 10:00": "2024-03-05 10:00:00",
        "05.03.2024 10:00": "2024-03-05 10:00:00",
        "2024-03-05T10:00:00": "bad_timestamp:timestamp",
        "31.2.2024 10:00": "bad_timestamp:timestamp",
    },
}


@pytest.mark.parametrize("timestamp_format", TIMES)
def test_timestamps_are_read_in_the_configured_format_only(spark, timestamp_format):
    source = event_source(columns={"timestamp": {"column": "timestamp", "timestamp_format": timestamp_format}})
    cases = TIMES[timestamp_format]
    lines = raw_lines(spark, {text: event_line(timestamp=text) for text in cases})
    parsed = parse_events(parse_lines(lines, source, None), source)
    found = {}
    for row in parsed.selectExpr(
        "source_file", "filter_rule", "reason", "detail", "cast(timestamp as string) t"
    ).collect():
        found[row["source_file"]] = verdict(row) or row["t"]
    assert found == cases


def test_events_later_than_their_delivery_are_out_of_range(spark):
    source = event_source(max_days_ahead=2)
    cases = {
        "same day": ("2024-03-05T23:59:59", OK),
        "two days ahead": ("2024-03-07T23:59:59", OK),
        "three days ahead": ("2024-03-08T00:00:00", "timestamp_out_of_range:later than its delivery"),
    }
    lines = {name: event_line(timestamp=text) for name, (text, _) in cases.items()}
    check_verdicts(parse(spark, lines, source, delivery_date=date(2024, 3, 5)), cases)


INTEGERS = {
    "17850": "17850", "17850.0": "17850", "017850": "17850", " 17850 ": "17850", "1.785e4": "17850", "-3": "-3",
    "12345678901234567890": "12345678901234567890",
    "17850.5": "wrong_type:user_id", "17850.0000001": "wrong_type:user_id", "abc": "wrong_type:user_id",
    "NaN": "wrong_type:user_id", "1e60": "wrong_type:user_id",
}  # fmt: skip


def test_integer_ids_lose_their_spelling_and_nothing_else(spark):
    source = event_source(columns={"user_id": {"column": "user_id", "type": "integer"}})
    found = parse(spark, {text: event_line(user_id=text) for text in INTEGERS}, source)
    assert {text: verdict(row) or row["user_id"] for text, row in found.items()} == INTEGERS


def test_fields_called_like_ours_or_oddly_are_fields_of_the_source(spark):
    ours = {
        "fields": "f",
        "reason": "r",
        "bucket": "b",
        "raw_line": "l",
        "source_file": "s",
        "filter_rule": "x",
        "detail": "d",
    }
    odd = {
        "a.b": "dot",
        "a b": "space",
        "价格": "9",
        "it's": "quote",
        "back`tick": "tick",
        "Timestamp": "case",
        "_fault": "y",
    }
    source = event_source(
        columns={
            "user_id": "reason", "item_id": "a.b", "event_type": "a b", "session_id": "it's", "query": "back`tick",
            "value": "价格",
        },
        filters={"never": "detail = 'x' OR `a.b` = 'x' OR filter_rule = 'z'"},
    )  # fmt: skip
    row = parse(spark, {"line": event_line(**ours, **odd)}, source)["line"]
    assert verdict(row) is None
    assert (row.user_id, row.item_id, row.event_type) == ("r", "dot", "space")
    assert (row.session_id, row.query, row.value) == ("quote", "tick", 9.0)
    attributes = {name: value for name, value in ours.items() if name != "reason"}
    unused = {"user_id": "u1", "item_id": "i1", "event_type": "view"}
    assert row.attributes == {**attributes, **unused, "Timestamp": "case", "_fault": "y"}


def test_hashed_ids_may_use_fields_of_any_name_and_keep_values_apart(spark):
    fields = ["a.b", "fault", "raw_user_id", "x y", "it's"]
    source = event_source(columns={"event_id": None}, event_id={"hash_of": fields})
    base = dict.fromkeys(fields, "1")
    lines = {"first": base, "again": base, "glued": {**base, "a.b": "11", "fault": ""}}
    lines |= {name: {**base, name: "2"} for name in fields}
    cases = {case: event_line(event_id=..., **values) for case, values in lines.items()}
    cases["missing"] = event_line(event_id=..., **{**base, "x y": ...})
    found = parse(spark, cases, source)
    assert verdict(found["missing"]) == "missing_field:x y"
    assert {verdict(row) for name, row in found.items() if name != "missing"} == {None}
    assert found["first"].event_id == found["again"].event_id
    assert len({row.event_id for name, row in found.items() if name != "missing"}) == len(fields) + 2


def test_expressions_and_filters_see_fields_as_text_and_missing_ones_as_null(spark):
    source = event_source(
        columns={
            "item_id": {"expression": "concat('m', movieId)"},
            "event_type": {"value": "rating"},
            "query": {"expression": "cast(try_cast(Date AS date) AS string)"},
            "session_id": "Date",
        },
        filters={"returned": "try_cast(quantity AS double) < 0", "cancelled": "startswith(invoice, 'C')"},
    )
    cases = {
        "all fields": (event_line(movieId=7, quantity="2", invoice="5", Date="2024-01-02 10:00"), OK),
        "fields missing": (event_line(movieId=7), OK),
        "no number": (event_line(movieId=7, quantity="many"), OK),
        "item missing": (event_line(quantity="1"), "missing_field:item_id"),
        "returned": (event_line(movieId=7, quantity=-1), "filtered:returned"),
        "cancelled": (event_line(movieId=7, invoice="C7"), "filtered:cancelled"),
        "the first rule counts": (event_line(movieId=7, invoice="C7", quantity=-1), "filtered:returned"),
        "a filtered line may have faults": (event_line(movieId=7, invoice="C7", user_id=None), "filtered:cancelled"),
        "a malformed line meets no rule": ('{"invoice": "C7"', "malformed"),
    }
    found = parse(spark, {name: line for name, (line, _) in cases.items()}, source)
    check_verdicts(found, cases)
    row = found["all fields"]
    assert (row.item_id, row.event_type, row.query, row.session_id) == (
        "m7",
        "rating",
        "2024-01-02",
        "2024-01-02 10:00",
    )
    # fields that only an expression or a filter uses stay visible; the event's own item_id and type are such fields here
    assert set(row.attributes) == {"movieId", "quantity", "invoice", "item_id", "event_type"}


@pytest.mark.parametrize("sql", ["quantity <", "no_such_function(quantity)"])
def test_a_filter_that_is_no_sql_is_a_config_error_that_names_it(spark, sql):
    source = event_source(filters={"returned": sql})
    with pytest.raises(ConfigError, match="returned"):
        parse(spark, {"line": event_line()}, source)


def test_an_expression_that_is_no_sql_is_a_config_error_that_names_its_column(spark):
    source = event_source(columns={"item_id": {"expression": "concat('m', "}})
    with pytest.raises(ConfigError, match="item_id"):
        parse(spark, {"line": event_line()}, source)


@pytest.mark.parametrize(
    ("encoding", "user_id", "undecodable"),
    [
        ("ISO-8859-1", "José", None),
        ("windows-1252", "José €", b"\x81"),
        ("GBK", "用户", b"\xff"),
        ("US-ASCII", "Jose", b"\xe9"),
    ],
)
def test_other_character_sets_are_decoded_and_what_they_cannot_hold_is_quarantined(
    spark, encoding, user_id, undecodable
):
    header = ["user_id", "item_id", "event_type", "timestamp", "event_id"]
    rest = b",i1,view,2024-03-05,e1"
    lines = {"good": user_id.encode(encoding) + rest, "bad": (undecodable or b"") + rest}
    found = parse(spark, lines, event_source(format="csv", header=header, encoding=encoding))
    assert (verdict(found["good"]), found["good"].user_id) == (None, user_id)
    assert verdict(found["bad"]) == ("invalid_encoding" if undecodable else "missing_field:user_id")


def test_json_in_another_character_set_is_read_too(spark):
    line = json.dumps(event_fields(user_id="José", item_id={"id": 1}), ensure_ascii=False).encode("latin-1")
    row = parse(spark, {"line": line}, event_source(encoding="ISO-8859-1"))["line"]
    assert (verdict(row), row.user_id) == ("nested_value:item_id", "José")


def test_half_of_a_character_is_no_text(spark):
    lines = {
        "high": r'{"user_id": "u\ud83d"}', "low": r'{"user_id": "u\uDE42"}', "turned": r'{"user_id": "\ude42\ud83d"}',
        "whole": r'{"user_id": "\ud83d\ude42"}', "text": r'{"user_id": "\\ud83d"}', "behind text": r'{"user_id": "\\\ud83d"}',
    }  # fmt: skip
    found = parse(spark, lines, event_source())
    assert {name for name, row in found.items() if row.reason == "invalid_encoding"} == {
        "high",
        "low",
        "turned",
        "behind text",
    }
    assert (found["whole"].user_id, found["text"].user_id) == ("🙂", r"\ud83d")


def test_a_line_of_white_space_is_blank_in_every_format(spark):
    lines = {"tabs": " \t ", "carriage return": "\r", "other script": "\u3000\u00a0"}
    for settings in ({}, {"format": "csv", "header": ["user_id", "item_id"]}):
        found = parse(spark, lines, event_source(**settings))
        assert {row.filter_rule for row in found.values()} == {"blank_line"}


POISON = {
    "70,000 columns": b"," * 70_000,
    "a million quotes": b'"' * 999_999,
    "a hundred thousand brackets": b'{"user_id": ' + b"[" * 100_000,
    "a number of 5,000 digits": b'{"user_id": ' + b"1" * 5_000 + b"}",
    "a megabyte of one letter": b"x" * 999_999,
    "beyond the limit": b"," * 10_000_000,
    "control characters": bytes(range(1, 32)).replace(b"\n", b""),
}


@pytest.mark.parametrize("settings", [{}, {"format": "csv", "header": ["user_id", "item_id"]}], ids=["json", "csv"])
def test_no_line_stops_the_job(spark, settings):
    found = parse(spark, POISON, event_source(**settings))
    assert [name for name, row in found.items() if verdict(row) is None] == []
    assert verdict(found["beyond the limit"]) == "too_long"
