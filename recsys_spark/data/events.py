"""Source lines -> events: typed columns, an event_id, and a reason for every line that cannot be one."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from recsys_spark.columns import (
    ATTRIBUTES,
    DELIVERY_DATE,
    DETAIL,
    EVENT_DATE,
    EVENT_ID,
    EVENT_TYPE,
    HEADER,
    ITEM_ID,
    LINE_HASH,
    QUERY,
    RAW_LINE,
    REASON,
    SESSION_ID,
    SOURCE,
    SOURCE_FILE,
    TIMESTAMP,
    USER_ID,
    VALUE,
    Reason,
)
from recsys_spark.config import IngestConfig
from recsys_spark.config_sources import ColumnConfig, EventSourceConfig
from recsys_spark.data import sources
from recsys_spark.data.ids import clean_ids, cleaned_mark

_OPTIONAL = (SESSION_ID, QUERY, VALUE)
_RAW = "_raw_"
_BASE_ID = "_base_id"


def parse_events(parsed: DataFrame, source: EventSourceConfig, ingest: IngestConfig | None = None) -> DataFrame:
    """Type the fields of parsed lines and name what is wrong with a line.

    Needs the columns of `sources.parse_lines`. Gives raw_line and header (null when the line is an event), source_file,
    line_hash, delivery_date, filter_rule, reason, detail (null when the line is an event) and the columns of the events table
    up to source. Ids keep their text but for ingest.trim_ids and ingest.unicode_form; with one of them also is_cleaned.
    """
    ingest = ingest or IngestConfig()
    hashed = source.event_id.hash_of if source.event_id else ()
    mapped = sources.map_columns(parsed, source, extra_fields=hashed)
    ids = [name for name in (EVENT_ID, USER_ID, ITEM_ID, SESSION_ID) if name in source.columns]
    mapped = clean_ids(mapped, ids, ingest.trim_ids, ingest.unicode_form)
    nothing = F.lit(None).cast("string")
    names = (*source.columns, *(name for name in _OPTIONAL if name not in source.columns))
    mapped = mapped.withColumns({_RAW + name: F.col(name) if name in source.columns else nothing for name in names})
    typed = mapped.withColumns({name: _typed(name, source.columns.get(name)) for name in _event_columns(source)})
    checked = sources.name_first_fault(typed, _checks(source))
    event_id = _hashed_event_id(source) if source.event_id else F.col(EVENT_ID)
    checked = checked.withColumn(_BASE_ID, event_id)
    if source.event_id is not None and source.event_id.numbered:
        # equal lines only: a replay or a salvaged file, which see some lines of a file, number them as the whole file does
        equal_lines = W.partitionBy(SOURCE_FILE, _BASE_ID, LINE_HASH).orderBy(LINE_HASH)
        number = F.row_number().over(equal_lines)
        checked = checked.withColumn(
            _BASE_ID, F.when(number > 1, F.concat_ws("-", _BASE_ID, number)).otherwise(F.col(_BASE_ID))
        )
    return checked.select(
        *[F.when(F.col(REASON).isNotNull(), F.col(name)).alias(name) for name in (RAW_LINE, HEADER)],  # only a fault keeps them
        SOURCE_FILE, LINE_HASH, DELIVERY_DATE, sources.FILTER_RULE, REASON, DETAIL,
        F.col(_BASE_ID).alias(EVENT_ID), USER_ID,
        F.when(~sources.is_missing(ITEM_ID), F.col(ITEM_ID)).alias(ITEM_ID),
        EVENT_TYPE, TIMESTAMP, SESSION_ID, QUERY, VALUE, ATTRIBUTES,
        F.to_date(TIMESTAMP).alias(EVENT_DATE), F.lit(source.name).alias(SOURCE), *cleaned_mark(checked),
    )  # fmt: skip


def _event_columns(source: EventSourceConfig) -> list[str]:
    return [name for name in (EVENT_ID, USER_ID, ITEM_ID, EVENT_TYPE, TIMESTAMP, *_OPTIONAL)
            if name in source.columns or name in _OPTIONAL]  # fmt: skip


def _typed(name: str, column: ColumnConfig | None) -> Column:
    raw = _RAW + name
    if name == TIMESTAMP:
        return sources.as_timestamp(raw, column.timestamp_format if column else None)
    if name == VALUE or (column and column.type == "double"):
        number = sources.as_double(raw)
        return number if name == VALUE else number.cast("string")
    return sources.as_integer_text(raw) if column and column.type == "integer" else F.col(raw)


def _checks(source: EventSourceConfig) -> list[tuple[Column, str, str]]:
    """Every check in the order in which a line's first fault is named; the details name columns, never values."""
    checks = [
        (sources.is_nested(_RAW + name, source, column.column), Reason.NESTED_VALUE, name)
        for name, column in source.columns.items()
    ]
    for name in (EVENT_ID, USER_ID, EVENT_TYPE, TIMESTAMP):
        if name in source.columns:
            checks.append((sources.is_missing(_RAW + name), Reason.MISSING_FIELD, name))
    item_required = (
        ~F.col(_RAW + EVENT_TYPE).isin(list(source.item_optional_for)) if source.item_optional_for else F.lit(True)
    )
    checks.append((item_required & sources.is_missing(_RAW + ITEM_ID), Reason.MISSING_FIELD, ITEM_ID))
    if source.event_id is not None:
        hashed = enumerate(source.event_id.hash_of)
        checks += [(F.col(f"{sources.EXTRA_FIELD}{i}").isNull(), Reason.MISSING_FIELD, field) for i, field in hashed]
    for name, column in source.columns.items():
        if name != TIMESTAMP and (column.type in ("integer", "double") or name == VALUE):
            checks.append((~sources.is_missing(_RAW + name) & F.col(name).isNull(), Reason.WRONG_TYPE, name))
    if source.event_types is not None:
        checks.append((~F.col(EVENT_TYPE).isin(list(source.event_types)), Reason.UNKNOWN_EVENT_TYPE, EVENT_TYPE))
    too_early = F.col(TIMESTAMP) < F.lit(source.timestamp_min).cast("timestamp")
    too_late = F.col(TIMESTAMP) >= F.lit(source.timestamp_max).cast("timestamp")
    ahead = F.col(TIMESTAMP) >= F.date_add(DELIVERY_DATE, source.max_days_ahead + 1).cast("timestamp")
    return [
        *checks,
        (F.col(TIMESTAMP).isNull(), Reason.BAD_TIMESTAMP, TIMESTAMP),
        (too_early | too_late, Reason.TIMESTAMP_OUT_OF_RANGE, TIMESTAMP),
        (F.coalesce(ahead, F.lit(False)), Reason.TIMESTAMP_OUT_OF_RANGE, "later than its delivery"),
    ]


def _hashed_event_id(source: EventSourceConfig) -> Column:
    assert source.event_id is not None
    fields = [F.coalesce(f"{sources.EXTRA_FIELD}{i}", F.lit("")) for i in range(len(source.event_id.hash_of))]
    # the unit separator keeps ("ab", "c") and ("a", "bc") apart; the source's name keeps two feeds apart
    return F.substring(F.sha2(F.concat_ws("\x1f", F.lit(source.name), *fields), 256), 1, 32)
