"""Schema, key and partitioning of every table, built from the names in columns.py."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import types as T

from recsys_spark.columns import (
    ATTRIBUTES,
    BRAND,
    CATEGORY,
    CHECKS,
    CI_HIGH,
    CI_LOW,
    COUNT,
    COUNTS,
    CUTOFF,
    DELIVERY_DATE,
    DELTA_VERSION,
    DETAIL,
    ERASED_AT,
    EVENT_DATE,
    EVENT_ID,
    EVENT_TYPE,
    FEED,
    FIELDS,
    FINISHED_AT,
    FIRST_TIMESTAMP,
    HEADER,
    INGEST_RUN,
    IS_FALLBACK,
    IS_WRITTEN,
    ITEM_ID,
    ITEM_IDX,
    KEY_HASH,
    KIND,
    LAST_TIMESTAMP,
    LINE_HASH,
    METRIC,
    MODEL,
    MODEL_VERSION,
    NEIGHBOUR_ID,
    NEIGHBOUR_USER_ID,
    NUM_FILES,
    NUM_ROWS,
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
    SECONDS,
    SESSION_ID,
    SIMILARITY,
    SIZE_BYTES,
    SLICE,
    SOURCE,
    SOURCE_FILE,
    STARTED_AT,
    STATUS,
    TABLE_NAME,
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
_SHARES = T.MapType(_STRING, _DOUBLE)


@dataclass(frozen=True)
class TableSpec:
    """One table: its columns, the columns that name a row, the partitioning, and the version of its layout.

    stats_columns are those whose smallest and largest value per file Delta keeps in its log, for skipping files; null: the
    first 32. Columns that hold personal data are never among them, or an erased user would live on in the log.
    """

    schema: T.StructType
    key: tuple[str, ...]
    partition_by: tuple[str, ...] = ()
    version: int = 1
    stats_columns: tuple[str, ...] | None = None


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
    (HEADER, _STRING),  # since version 2, with delivery_date: what a replay needs to read the line again
    (DELIVERY_DATE, _DATE),
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

INGEST_RUNS = _struct(
    (INGEST_RUN, _STRING, False),
    (SOURCE, _STRING, False),
    (FEED, _STRING, False),
    (RUN_DATE, _DATE),
    (STARTED_AT, _TIMESTAMP, False),
    (FINISHED_AT, _TIMESTAMP, False),
    (SECONDS, _DOUBLE, False),
    (STATUS, _STRING, False),
    (IS_WRITTEN, T.BooleanType(), False),
    (COUNTS, _SHARES, False),
    (FIELDS, _SHARES, False),
    (CHECKS, _ATTRIBUTES, False),
    (FIRST_TIMESTAMP, _TIMESTAMP),
    (LAST_TIMESTAMP, _TIMESTAMP),
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
USER_NEIGHBOURS = _struct(
    (USER_ID, _STRING, False),
    (NEIGHBOUR_USER_ID, _STRING, False),
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

TABLE_STATS = _struct(
    (RUN_DATE, _DATE, False),
    (TABLE_NAME, _STRING, False),
    (DELTA_VERSION, _LONG, False),
    (NUM_FILES, _LONG, False),
    (SIZE_BYTES, _LONG, False),
    (NUM_ROWS, _LONG, False),
)

ERASED = _struct((KIND, _STRING, False), (KEY_HASH, _STRING, False), (ERASED_AT, _TIMESTAMP, False))

_PER_MODEL = (RUN_DATE, MODEL)
_LINE_KEY = (SOURCE_FILE, LINE_HASH, OCCURRENCE)

TABLES: dict[str, TableSpec] = {
    "events": TableSpec(EVENTS, (EVENT_ID,), (EVENT_DATE,), version=2, stats_columns=(TIMESTAMP,)),
    "events_late": TableSpec(EVENTS, (EVENT_ID,), version=2, stats_columns=(TIMESTAMP, EVENT_DATE)),
    "events_quarantine": TableSpec(QUARANTINE, _LINE_KEY, version=3, stats_columns=(OCCURRENCE, DELIVERY_DATE)),
    "items": TableSpec(ITEMS, (ITEM_ID,)),
    "items_quarantine": TableSpec(QUARANTINE, _LINE_KEY, version=3, stats_columns=(OCCURRENCE, DELIVERY_DATE)),
    "ingest_runs": TableSpec(INGEST_RUNS, (INGEST_RUN,)),
    "interactions": TableSpec(
        INTERACTIONS, (CUTOFF, USER_ID, ITEM_ID), (CUTOFF,), version=2, stats_columns=(LAST_TIMESTAMP,)
    ),
    "user_index": TableSpec(USER_INDEX, (USER_ID,), version=2, stats_columns=(USER_IDX,)),
    "item_index": TableSpec(ITEM_INDEX, (ITEM_ID,)),
    "user_vectors": TableSpec(
        USER_VECTORS, (*_PER_MODEL, USER_ID), _PER_MODEL, version=2, stats_columns=(MODEL_VERSION,)
    ),
    "item_vectors": TableSpec(ITEM_VECTORS, (*_PER_MODEL, ITEM_ID), _PER_MODEL),
    "item_neighbours": TableSpec(ITEM_NEIGHBOURS, (*_PER_MODEL, ITEM_ID, NEIGHBOUR_ID), _PER_MODEL),
    "user_neighbours": TableSpec(
        USER_NEIGHBOURS, (*_PER_MODEL, USER_ID, NEIGHBOUR_USER_ID), _PER_MODEL, stats_columns=(MODEL_VERSION,)
    ),
    "recommendations": TableSpec(
        RECOMMENDATIONS,
        (RUN_DATE, TASK, MODEL, USER_ID, RANK),
        (RUN_DATE, TASK, MODEL),
        version=2,
        stats_columns=(RANK,),
    ),
    "metrics": TableSpec(METRICS, (RUN_ID, MODEL, TASK, PROTOCOL, SLICE, METRIC, K), (RUN_DATE,)),
    "table_stats": TableSpec(TABLE_STATS, (RUN_DATE, TABLE_NAME)),
    "erased": TableSpec(ERASED, (KIND, KEY_HASH)),
}
