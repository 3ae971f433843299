"""Source lines -> events: typed columns, an event_id, and a reason for every line that cannot be one."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from recsys_spark import columns as C
from recsys_spark.columns import Reason
from recsys_spark.config import ColumnConfig, EventSourceConfig
from recsys_spark.data import sources

_OPTIONAL = (C.SESSION_ID, C.QUERY, C.VALUE)
_RAW = "_raw_"
_BASE_ID = "_base_id"


def parse_events(parsed: DataFrame, source: EventSourceConfig) -> DataFrame:
    """Type the fields of parsed lines and name what is wrong with a line.

    Needs the columns of `sources.parse_lines`. Gives raw_line, source_file, line_hash, delivery_date, filter_rule, reason,
    detail (null when the line is an event) and the columns of the events table up to source. Ids keep their text.
    """
    hashed = source.event_id.hash_of if source.event_id else ()
    mapped = sources.map_columns(parsed, source, extra_fields=hashed)
    for name in (*source.columns, *(name for name in _OPTIONAL if name not in source.columns)):
        raw = F.col(name) if name in source.columns else F.lit(None).cast("string")
        mapped = mapped.withColumn(_RAW + name, raw)
    typed = mapped.withColumns({name: _typed(name, source.columns.get(name)) for name in _event_columns(source)})
    checked = sources.name_first_fault(typed, _checks(source))
    event_id = _hashed_event_id(source) if source.event_id else F.col(C.EVENT_ID)
    checked = checked.withColumn(_BASE_ID, event_id)
    if source.event_id is not None and source.event_id.numbered:
        same = W.partitionBy(C.SOURCE_FILE, _BASE_ID).orderBy(C.LINE_HASH)
        number = F.row_number().over(same)
        checked = checked.withColumn(_BASE_ID, F.when(number > 1, F.concat_ws("-", _BASE_ID, number)).otherwise(F.col(_BASE_ID)))
    return checked.select(
        F.when(F.col(C.REASON).isNotNull(), F.col(C.RAW_LINE)).alias(C.RAW_LINE),  # the others' text travels no further
        C.SOURCE_FILE, C.LINE_HASH, C.DELIVERY_DATE, sources.FILTER_RULE, C.REASON, C.DETAIL,
        F.col(_BASE_ID).alias(C.EVENT_ID), C.USER_ID,
        F.when(~sources.is_missing(C.ITEM_ID), F.col(C.ITEM_ID)).alias(C.ITEM_ID),
        C.EVENT_TYPE, C.TIMESTAMP, C.SESSION_ID, C.QUERY, C.VALUE, C.ATTRIBUTES,
        F.to_date(C.TIMESTAMP).alias(C.EVENT_DATE), F.lit(source.name).alias(C.SOURCE),
    )  # fmt: skip


def _event_columns(source: EventSourceConfig) -> list[str]:
    return [name for name in (C.EVENT_ID, C.USER_ID, C.ITEM_ID, C.EVENT_TYPE, C.TIMESTAMP, *_OPTIONAL)
            if name in source.columns or name in _OPTIONAL]  # fmt: skip


def _typed(name: str, column: ColumnConfig | None) -> Column:
    raw = _RAW + name
    if name == C.TIMESTAMP:
        return sources.as_timestamp(raw, column.timestamp_format if column else None)
    if name == C.VALUE or (column and column.type == "double"):
        number = sources.as_double(raw)
        return number if name == C.VALUE else number.cast("string")
    return sources.as_integer_text(raw) if column and column.type == "integer" else F.col(raw)


def _checks(source: EventSourceConfig) -> list[tuple[Column, str, str]]:
    """Every check in the order in which a line's first fault is named; the details name columns, never values."""
    checks = [
        (sources.is_nested(_RAW + name, source, column.column), Reason.NESTED_VALUE, name)
        for name, column in source.columns.items()
    ]
    for name in (C.EVENT_ID, C.USER_ID, C.EVENT_TYPE, C.TIMESTAMP):
        if name in source.columns:
            checks.append((sources.is_missing(_RAW + name), Reason.MISSING_FIELD, name))
    item_required = ~F.col(_RAW + C.EVENT_TYPE).isin(list(source.item_optional_for)) if source.item_optional_for else F.lit(True)
    checks.append((item_required & sources.is_missing(_RAW + C.ITEM_ID), Reason.MISSING_FIELD, C.ITEM_ID))
    if source.event_id is not None:
        checks += [(F.col(f"_{field}").isNull(), Reason.MISSING_FIELD, field) for field in source.event_id.hash_of]
    for name, column in source.columns.items():
        if name != C.TIMESTAMP and (column.type in ("integer", "double") or name == C.VALUE):
            checks.append((~sources.is_missing(_RAW + name) & F.col(name).isNull(), Reason.WRONG_TYPE, name))
    if source.event_types is not None:
        checks.append((~F.col(C.EVENT_TYPE).isin(list(source.event_types)), Reason.UNKNOWN_EVENT_TYPE, C.EVENT_TYPE))
    too_early = F.col(C.TIMESTAMP) < F.lit(source.timestamp_min).cast("timestamp")
    too_late = F.col(C.TIMESTAMP) >= F.lit(source.timestamp_max).cast("timestamp")
    ahead = F.col(C.TIMESTAMP) >= F.date_add(C.DELIVERY_DATE, source.max_days_ahead + 1).cast("timestamp")
    return [
        *checks,
        (F.col(C.TIMESTAMP).isNull(), Reason.BAD_TIMESTAMP, C.TIMESTAMP),
        (too_early | too_late, Reason.TIMESTAMP_OUT_OF_RANGE, C.TIMESTAMP),
        (F.coalesce(ahead, F.lit(False)), Reason.TIMESTAMP_OUT_OF_RANGE, "later than its delivery"),
    ]


def _hashed_event_id(source: EventSourceConfig) -> Column:
    assert source.event_id is not None
    fields = [F.coalesce(F.col(f"_{field}"), F.lit("")) for field in source.event_id.hash_of]
    # the unit separator keeps ("ab", "c") and ("a", "bc") apart; the source's name keeps two feeds apart
    return F.substring(F.sha2(F.concat_ws("\x1f", F.lit(source.name), *fields), 256), 1, 32)
