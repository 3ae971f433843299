"""Source lines as `data/sources.py` and `data/events.py` parse them, and what was decided about each."""

from __future__ import annotations

from factories import raw_lines

from recsys_spark.data.events import parse_events
from recsys_spark.data.sources import parse_lines

OK = None


def parse(spark, lines, source, header=None, delivery_date=None):
    """Give case name -> parsed event (a Row) for lines of one source."""
    parsed = parse_events(parse_lines(raw_lines(spark, lines, delivery_date), source, header), source)
    return {row["source_file"]: row for row in parsed.collect()}


def verdict(row):
    """`reason:detail`, `filtered:rule`, or None for an event."""
    if row["filter_rule"]:
        return f"filtered:{row['filter_rule']}"
    return row["reason"] and (row["reason"] if row["detail"] is None else f"{row['reason']}:{row['detail']}")


def check_verdicts(found, cases):
    assert {name: verdict(row) for name, row in found.items()} == {
        name: expected for name, (_, expected) in cases.items()
    }
