"""What the checks need of a batch, in the pass over the lines that counts them anyway."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recsys_spark.columns import (
    ATTRIBUTES,
    BUCKET,
    DETAIL,
    FIELD,
    FIRST_TIMESTAMP,
    LAST_TIMESTAMP,
    LINES,
    NEWEST_TIMESTAMP,
    REASON,
    Bucket,
    Reason,
)
from recsys_spark.config_sources import SourceConfig
from recsys_spark.data.checks import BatchProfile
from recsys_spark.data.ids import IS_CLEANED
from recsys_spark.data.outcome import BUCKETS, bucket_counts
from recsys_spark.data.sources import FILTER_RULE

COLUMN = "column"
CLEANED = "cleaned_ids"
"""Count of the lines in which cleaning changed an id; in no bucket's way, and there only where it is not 0."""
MAX_FIELDS = 1000  # a JSON feed with ids for names must not fill the driver

_PARTS = (BUCKET, REASON, DETAIL, FILTER_RULE)
_UNREADABLE = (Reason.MALFORMED, Reason.INVALID_ENCODING, Reason.NUL_BYTE, Reason.TOO_LONG)
_PRESENT = "_present"
_KEYS = "_keys"
_NAME = "_name"


def profile_lines(
    lines: DataFrame, timestamp: str, run_date: date | None, columns: tuple[str, ...] | None = None
) -> DataFrame:
    """Count the lines of a batch, and with columns given the values in each of these columns and in each attribute.

    Needs: bucket, reason, detail, filter_rule and the timestamp column; with columns given, those and attributes. Gives one
    row per bucket, reason, detail and filter_rule with column and field null; after them one row per column or field, where
    lines says how many readable lines have a value there: at most MAX_FIELDS, the most frequent, ties by name; cleaned_ids is the
    number of lines with is_cleaned (see `ids.clean_ids`), 0 without that column. Readable are
    lines whose fields could be split and that no filter took. A blank text is no value in a column; in an attribute only an
    empty one is none. Timestamps are microseconds since 1970, of lines that are events or items; newest_timestamp is the last one
    before the end of the run date's day.
    """
    aggregates = _aggregates(lines, timestamp, run_date)
    if columns is None:
        names = [F.lit(None).cast("string").alias(name) for name in (COLUMN, FIELD)]
        return lines.groupBy(*_PARTS).agg(*aggregates).select(*names, "*")
    # Lines with the same fields are counted as one first: a feed has few such shapes, so that few rows are exploded.
    shaped = lines.withColumns({_PRESENT: _present_mask(lines, columns), _KEYS: _keys_with_values()})
    shapes = shaped.groupBy(*_PARTS, _PRESENT, _KEYS).agg(*aggregates)
    named = shapes.withColumn(_NAME, F.explode(_names(columns))).select(
        F.col(_NAME)[COLUMN].alias(COLUMN), F.col(_NAME)[FIELD].alias(FIELD), LINES, CLEANED,
        FIRST_TIMESTAMP, LAST_TIMESTAMP, NEWEST_TIMESTAMP,
        *[F.when(F.col(_NAME)[COLUMN].isNull() & F.col(_NAME)[FIELD].isNull(), F.col(part)).alias(part) for part in _PARTS],
    )  # fmt: skip
    counted = named.groupBy(COLUMN, FIELD, *_PARTS).agg(
        F.sum(LINES).alias(LINES), F.sum(CLEANED).alias(CLEANED), F.min(FIRST_TIMESTAMP).alias(FIRST_TIMESTAMP),
        F.max(LAST_TIMESTAMP).alias(LAST_TIMESTAMP), F.max(NEWEST_TIMESTAMP).alias(NEWEST_TIMESTAMP),
    )  # fmt: skip
    parts_first = F.col(FIELD).isNotNull()
    return counted.orderBy(parts_first, F.col(LINES).desc(), FIELD).limit(MAX_FIELDS)


def to_profile(rows: Iterable[Row], source: SourceConfig, has_fields: bool) -> BatchProfile:
    """Give the collected rows of `profile_lines` as numbers; a source field that a column uses counts as that column does."""
    rows = list(rows)
    parts = [row for row in rows if row[COLUMN] is None and row[FIELD] is None]
    counts = bucket_counts(parts)
    if cleaned := sum(row[CLEANED] for row in parts):
        counts[CLEANED] = cleaned
    columns = {row[COLUMN]: float(row[LINES]) for row in rows if row[COLUMN] is not None}
    fields = {row[FIELD]: float(row[LINES]) for row in rows if row[FIELD] is not None}
    new = [row for row in parts if row[BUCKET] == Bucket.INSERTED and row[FIRST_TIMESTAMP] is not None]
    first_new = _utc(min((row[FIRST_TIMESTAMP] for row in new), default=None))
    last_new = _utc(max((row[LAST_TIMESTAMP] for row in new), default=None))
    for name, origin in source.columns.items():
        if origin.column is not None and name in columns:
            fields[origin.column] = max(columns[name], fields.get(origin.column, 0.0))
    return BatchProfile(
        read=sum(counts[bucket] for bucket in BUCKETS),
        counts=counts,
        new_days=(first_new.date(), last_new.date()) if first_new and last_new else None,
        faults={(row[REASON], row[DETAIL]): float(row[LINES]) for row in parts if row[BUCKET] == Bucket.QUARANTINED},
        readable=float(sum(row[LINES] for row in parts if _is_readable_part(row))),
        columns=columns if has_fields else None,
        fields=fields if has_fields else None,
        first=_utc(min((row[FIRST_TIMESTAMP] for row in parts if row[FIRST_TIMESTAMP] is not None), default=None)),
        last=_utc(max((row[LAST_TIMESTAMP] for row in parts if row[LAST_TIMESTAMP] is not None), default=None)),
        newest=_utc(max((row[NEWEST_TIMESTAMP] for row in parts if row[NEWEST_TIMESTAMP] is not None), default=None)),
    )


def _aggregates(lines: DataFrame, timestamp: str, run_date: date | None) -> list[Column]:
    is_good = F.col(REASON).isNull() & F.col(FILTER_RULE).isNull()
    good = F.when(is_good, F.col(timestamp))
    in_time = good if run_date is None else F.when(good < F.lit(run_date + timedelta(days=1)).cast("timestamp"), good)
    cleaned = F.count_if(F.col(IS_CLEANED)) if IS_CLEANED in lines.columns else F.lit(0).cast("bigint")
    return [
        F.count("*").alias(LINES),
        cleaned.alias(CLEANED),
        _in_micros(F.min(good)).alias(FIRST_TIMESTAMP),
        _in_micros(F.max(good)).alias(LAST_TIMESTAMP),
        _in_micros(F.max(in_time)).alias(NEWEST_TIMESTAMP),
    ]


def _in_micros(timestamp: Column) -> Column:
    """A number, because a collected timestamp comes in the driver's own time zone."""
    return F.unix_micros(timestamp)


def _utc(micros: int | None) -> datetime | None:
    return None if micros is None else datetime.fromtimestamp(0, UTC) + timedelta(microseconds=micros)


def _is_readable() -> Column:
    return F.col(FILTER_RULE).isNull() & ~F.coalesce(F.col(REASON).isin(*_UNREADABLE), F.lit(False))


def _is_readable_part(row: Row) -> bool:
    return row[FILTER_RULE] is None and row[REASON] not in _UNREADABLE


def _present_mask(lines: DataFrame, columns: tuple[str, ...]) -> Column:
    """One bit per column that has a value; a number is a cheaper group than a list of names. No bit for unreadable lines."""
    mask = F.lit(0).cast("bigint")
    for position, name in enumerate(columns):
        is_text = isinstance(lines.schema[name].dataType, T.StringType)
        has_value = F.trim(name) != "" if is_text else F.col(name).isNotNull()
        mask = mask + F.when(has_value, F.lit(1 << position)).otherwise(0)
    return F.when(_is_readable(), mask).otherwise(0)


def _keys_with_values() -> Column:
    keys, nothing = F.map_keys(ATTRIBUTES), F.array().cast("array<string>")
    without_empty = F.map_keys(F.map_filter(ATTRIBUTES, lambda key, value: value != ""))
    # map_filter takes seconds on a million lines, so only the lines that need it pay for it
    filled = F.when(F.array_contains(F.map_values(ATTRIBUTES), ""), without_empty).otherwise(keys)
    return F.when(_is_readable(), F.coalesce(filled, nothing)).otherwise(nothing)


def _names(columns: tuple[str, ...]) -> Column:
    """The names that a shape stands for, as (column, field), led by one of two nulls that stands for the lines themselves."""
    none = F.lit(None).cast("string")

    def pair(column: Column, field: Column) -> Column:
        return F.struct(column.alias(COLUMN), field.alias(FIELD))

    present = [
        F.when(F.col(_PRESENT).bitwiseAND(F.lit(1 << position).cast("bigint")) != 0, pair(F.lit(name), none))
        for position, name in enumerate(columns)
    ]
    fields = F.transform(F.col(_KEYS), lambda key: pair(none, key))
    return F.concat(F.array(pair(none, none)), F.array_compact(F.array(*present)), fields)
