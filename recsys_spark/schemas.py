"""Schema, key and partitioning of every table, built from the names in columns.py."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import types as T

from recsys_spark import columns as C

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
    (C.EVENT_ID, _STRING, False),
    (C.USER_ID, _STRING, False),
    (C.ITEM_ID, _STRING),
    (C.EVENT_TYPE, _STRING, False),
    (C.TIMESTAMP, _TIMESTAMP, False),
    (C.SESSION_ID, _STRING),
    (C.QUERY, _STRING),
    (C.VALUE, _DOUBLE),
    (C.ATTRIBUTES, _ATTRIBUTES),
    (C.EVENT_DATE, _DATE, False),
    (C.SOURCE, _STRING, False),
    (C.INGEST_RUN, _STRING, False),
)

QUARANTINE = _struct(
    (C.SOURCE_FILE, _STRING, False),
    (C.LINE_HASH, _STRING, False),
    (C.OCCURRENCE, _INT, False),
    (C.RAW_LINE, T.BinaryType()),
    (C.REASON, _STRING, False),
    (C.DETAIL, _STRING),
    (C.SOURCE, _STRING, False),
    (C.INGEST_RUN, _STRING, False),
)

ITEMS = _struct(
    (C.ITEM_ID, _STRING, False),
    (C.TITLE, _STRING),
    (C.TEXT, _STRING),
    (C.CATEGORY, _STRING),
    (C.BRAND, _STRING),
    (C.PRICE, _DOUBLE),
    (C.ATTRIBUTES, _ATTRIBUTES),
    (C.UPDATED_AT, _TIMESTAMP),
    (C.TEXT_HASH, _STRING, False),
    (C.SOURCE, _STRING, False),
    (C.INGEST_RUN, _STRING, False),
)

INTERACTIONS = _struct(
    (C.USER_ID, _STRING, False),
    (C.ITEM_ID, _STRING, False),
    (C.WEIGHT, _DOUBLE, False),
    (C.COUNT, _LONG, False),
    (C.FIRST_TIMESTAMP, _TIMESTAMP, False),
    (C.LAST_TIMESTAMP, _TIMESTAMP, False),
    (C.CUTOFF, _DATE, False),
)

USER_INDEX = _struct((C.USER_ID, _STRING, False), (C.USER_IDX, _INT, False))
ITEM_INDEX = _struct((C.ITEM_ID, _STRING, False), (C.ITEM_IDX, _INT, False))

_MODEL_COLUMNS = ((C.MODEL, _STRING, False), (C.MODEL_VERSION, _STRING, False), (C.RUN_DATE, _DATE, False))

USER_VECTORS = _struct((C.USER_ID, _STRING, False), (C.VECTOR, _VECTOR, False), *_MODEL_COLUMNS)
ITEM_VECTORS = _struct((C.ITEM_ID, _STRING, False), (C.VECTOR, _VECTOR, False), *_MODEL_COLUMNS)
ITEM_NEIGHBOURS = _struct(
    (C.ITEM_ID, _STRING, False),
    (C.NEIGHBOUR_ID, _STRING, False),
    (C.SIMILARITY, T.FloatType(), False),
    *_MODEL_COLUMNS,
)

RECOMMENDATIONS = _struct(
    (C.USER_ID, _STRING, False),
    (C.ITEM_ID, _STRING, False),
    (C.SCORE, T.FloatType(), False),
    (C.RANK, _INT, False),
    (C.MODEL, _STRING, False),
    (C.MODEL_VERSION, _STRING, False),
    (C.RUN_DATE, _DATE, False),
    (C.TASK, _STRING, False),
    (C.IS_FALLBACK, T.BooleanType(), False),
)

METRICS = _struct(
    (C.RUN_ID, _STRING, False),
    (C.MODEL, _STRING, False),
    (C.TASK, _STRING, False),
    (C.PROTOCOL, _STRING, False),
    (C.SLICE, _STRING, False),
    (C.METRIC, _STRING, False),
    (C.K, _INT, False),
    (C.VALUE, _DOUBLE, False),
    (C.CI_LOW, _DOUBLE),
    (C.CI_HIGH, _DOUBLE),
    (C.NUM_USERS, _LONG, False),
    (C.RUN_DATE, _DATE, False),
    (C.MODEL_VERSION, _STRING, False),
)

_PER_MODEL = (C.RUN_DATE, C.MODEL)

TABLES: dict[str, TableSpec] = {
    "events": TableSpec(EVENTS, (C.EVENT_ID,), (C.EVENT_DATE,)),
    "events_late": TableSpec(EVENTS, (C.EVENT_ID,)),
    "events_quarantine": TableSpec(QUARANTINE, (C.SOURCE_FILE, C.LINE_HASH, C.OCCURRENCE)),
    "items": TableSpec(ITEMS, (C.ITEM_ID,)),
    "items_quarantine": TableSpec(QUARANTINE, (C.SOURCE_FILE, C.LINE_HASH, C.OCCURRENCE)),
    "interactions": TableSpec(INTERACTIONS, (C.CUTOFF, C.USER_ID, C.ITEM_ID), (C.CUTOFF,)),
    "user_index": TableSpec(USER_INDEX, (C.USER_ID,)),
    "item_index": TableSpec(ITEM_INDEX, (C.ITEM_ID,)),
    "user_vectors": TableSpec(USER_VECTORS, (*_PER_MODEL, C.USER_ID), _PER_MODEL),
    "item_vectors": TableSpec(ITEM_VECTORS, (*_PER_MODEL, C.ITEM_ID), _PER_MODEL),
    "item_neighbours": TableSpec(ITEM_NEIGHBOURS, (*_PER_MODEL, C.ITEM_ID, C.NEIGHBOUR_ID), _PER_MODEL),
    "recommendations": TableSpec(
        RECOMMENDATIONS, (C.RUN_DATE, C.TASK, C.MODEL, C.USER_ID, C.RANK), (C.RUN_DATE, C.TASK, C.MODEL)
    ),
    "metrics": TableSpec(METRICS, (C.RUN_ID, C.MODEL, C.TASK, C.PROTOCOL, C.SLICE, C.METRIC, C.K), (C.RUN_DATE,)),
}
