"""Schema, key and partitioning of every table, built from the names in columns.py."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import types as T

from recsys_spark.columns import (
    ATTRIBUTES,
    BRAND,
    CATEGORY,
    CI_HIGH,
    CI_LOW,
    COUNT,
    CUTOFF,
    DETAIL,
    EVENT_DATE,
    EVENT_ID,
    EVENT_TYPE,
    FIRST_TIMESTAMP,
    INGEST_RUN,
    IS_FALLBACK,
    ITEM_ID,
    ITEM_IDX,
    LAST_TIMESTAMP,
    LINE_HASH,
    METRIC,
    MODEL,
    MODEL_VERSION,
    NEIGHBOUR_ID,
    NUM_USERS,
    OCCURRENCE,
    PRICE,
    PROTOCOL,
    QUERY,
    RANK,
    RAW_LINE,
    REASON,
    RUN_DATE,
    RUN_ID,
    SCORE,
    SESSION_ID,
    SIMILARITY,
    SLICE,
    SOURCE,
    SOURCE_FILE,
    TASK,
    TEXT,
    TEXT_HASH,
    TIMESTAMP,
    TITLE,
    UPDATED_AT,
    USER_ID,
    USER_IDX,
    VALUE,
    VECTOR,
    WEIGHT,
    K,
)

_STRING, _DOUBLE, _LONG, _INT = T.StringType(), T.DoubleType(), T.LongType(), T.IntegerType()
_TIMESTAMP, _DATE, _VECTOR = T.TimestampType(), T.DateType(), T.ArrayType(T.FloatType())
_ATTRIBUTES = T.MapType(_STRING, _STRING)


@dataclass(frozen=True)
class TableSpec:
    """One table: its columns, the columns that name a row, the partitioning, and the version of its layout."""

    schema: T.StructType
    key: tuple[str, ...]
    partition_by: tuple[str, ...] = ()
    version: int = 1


def _struct(*fields: tuple[str, T.DataType] | tuple[str, T.DataType, bool]) -> T.StructType:
    """(name, type) is nullable; (name, type, False) is not."""
    return T.StructType([T.StructField(field[0], field[1], field[2] if len(field) == 3 else True) for field in fields])


EVENTS = _struct(
    (EVENT_ID, _STRING, False),
    (USER_ID, _STRING, False),
    (ITEM_ID, _STRING),
    (EVENT_TYPE, _STRING, False),
    (TIMESTAMP, _TIMESTAMP, False),
    (SESSION_ID, _STRING),
    (QUERY, _STRING),
    (VALUE, _DOUBLE),
    (ATTRIBUTES, _ATTRIBUTES),
    (EVENT_DATE, _DATE, False),
    (SOURCE, _STRING, False),
    (INGEST_RUN, _STRING, False),
)

QUARANTINE = _struct(
    (SOURCE_FILE, _STRING, False),
    (LINE_HASH, _STRING, False),
    (OCCURRENCE, _INT, False),
    (RAW_LINE, T.BinaryType()),
    (REASON, _STRING, False),
    (DETAIL, _STRING),
    (SOURCE, _STRING, False),
    (INGEST_RUN, _STRING, False),
)

ITEMS = _struct(
    (ITEM_ID, _STRING, False),
    (TITLE, _STRING),
    (TEXT, _STRING),
    (CATEGORY, _STRING),
    (BRAND, _STRING),
    (PRICE, _DOUBLE),
    (ATTRIBUTES, _ATTRIBUTES),
    (UPDATED_AT, _TIMESTAMP),
    (TEXT_HASH, _STRING, False),
    (SOURCE, _STRING, False),
    (INGEST_RUN, _STRING, False),
)

INTERACTIONS = _struct(
    (USER_ID, _STRING, False),
    (ITEM_ID, _STRING, False),
    (WEIGHT, _DOUBLE, False),
    (COUNT, _LONG, False),
    (FIRST_TIMESTAMP, _TIMESTAMP, False),
    (LAST_TIMESTAMP, _TIMESTAMP, False),
    (CUTOFF, _DATE, False),
)

USER_INDEX = _struct((USER_ID, _STRING, False), (USER_IDX, _INT, False))
ITEM_INDEX = _struct((ITEM_ID, _STRING, False), (ITEM_IDX, _INT, False))

_MODEL_COLUMNS = ((MODEL, _STRING, False), (MODEL_VERSION, _STRING, False), (RUN_DATE, _DATE, False))

USER_VECTORS = _struct((USER_ID, _STRING, False), (VECTOR, _VECTOR, False), *_MODEL_COLUMNS)
ITEM_VECTORS = _struct((ITEM_ID, _STRING, False), (VECTOR, _VECTOR, False), *_MODEL_COLUMNS)
ITEM_NEIGHBOURS = _struct(
    (ITEM_ID, _STRING, False),
    (NEIGHBOUR_ID, _STRING, False),
    (SIMILARITY, T.FloatType(), False),
    *_MODEL_COLUMNS,
)

RECOMMENDATIONS = _struct(
    (USER_ID, _STRING, False),
    (ITEM_ID, _STRING, False),
    (SCORE, T.FloatType(), False),
    (RANK, _INT, False),
    (MODEL, _STRING, False),
    (MODEL_VERSION, _STRING, False),
    (RUN_DATE, _DATE, False),
    (TASK, _STRING, False),
    (IS_FALLBACK, T.BooleanType(), False),
)

METRICS = _struct(
    (RUN_ID, _STRING, False),
    (MODEL, _STRING, False),
    (TASK, _STRING, False),
    (PROTOCOL, _STRING, False),
    (SLICE, _STRING, False),
    (METRIC, _STRING, False),
    (K, _INT, False),
    (VALUE, _DOUBLE, False),
    (CI_LOW, _DOUBLE),
    (CI_HIGH, _DOUBLE),
    (NUM_USERS, _LONG, False),
    (RUN_DATE, _DATE, False),
    (MODEL_VERSION, _STRING, False),
)

_PER_MODEL = (RUN_DATE, MODEL)

TABLES: dict[str, TableSpec] = {
    "events": TableSpec(EVENTS, (EVENT_ID,), (EVENT_DATE,)),
    "events_late": TableSpec(EVENTS, (EVENT_ID,)),
    "events_quarantine": TableSpec(QUARANTINE, (SOURCE_FILE, LINE_HASH, OCCURRENCE)),
    "items": TableSpec(ITEMS, (ITEM_ID,)),
    "items_quarantine": TableSpec(QUARANTINE, (SOURCE_FILE, LINE_HASH, OCCURRENCE)),
    "interactions": TableSpec(INTERACTIONS, (CUTOFF, USER_ID, ITEM_ID), (CUTOFF,)),
    "user_index": TableSpec(USER_INDEX, (USER_ID,)),
    "item_index": TableSpec(ITEM_INDEX, (ITEM_ID,)),
    "user_vectors": TableSpec(USER_VECTORS, (*_PER_MODEL, USER_ID), _PER_MODEL),
    "item_vectors": TableSpec(ITEM_VECTORS, (*_PER_MODEL, ITEM_ID), _PER_MODEL),
    "item_neighbours": TableSpec(ITEM_NEIGHBOURS, (*_PER_MODEL, ITEM_ID, NEIGHBOUR_ID), _PER_MODEL),
    "recommendations": TableSpec(RECOMMENDATIONS, (RUN_DATE, TASK, MODEL, USER_ID, RANK), (RUN_DATE, TASK, MODEL)),
    "metrics": TableSpec(METRICS, (RUN_ID, MODEL, TASK, PROTOCOL, SLICE, METRIC, K), (RUN_DATE,)),
}
