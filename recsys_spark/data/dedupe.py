"""Put every parsed line of a batch into one bucket: quarantined, filtered, duplicate, near_duplicate, late or to be inserted."""

from __future__ import annotations

from datetime import date, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from recsys_spark.columns import (ATTRIBUTES, BUCKET, DELIVERY_DATE, EVENT_DATE, EVENT_ID, EVENT_TYPE, ITEM_ID, LINE_HASH, PAYLOAD_HASH, QUERY, REASON, SESSION_ID, TIMESTAMP, USER_ID, VALUE, Bucket)
from recsys_spark.config import IngestConfig
from recsys_spark.data.sources import FILTER_RULE

IS_CONFLICT = "is_conflict"
_IS_LATE = "_is_late"
_KEY = "_key"
_COPY = "_copy"


def sort_into_buckets(events: DataFrame, config: IngestConfig) -> DataFrame:
    """Add bucket and is_conflict to parsed events.

    Needs the columns of `events.parse_events`. Of the rows with one event_id the winner is one that came in time before one that
    came late, then the earliest timestamp, then the smaller hash of the raw line; the others are duplicates, in conflict when
    their payload differs from the winner's. The winner is `inserted` (the table may still know it) or `late`.
    """
    is_event = F.col(REASON).isNull() & F.col(FILTER_RULE).isNull()
    late = F.col(EVENT_DATE) < F.date_sub(DELIVERY_DATE, config.horizon_days)
    rows = events.withColumns({
        PAYLOAD_HASH: F.when(is_event, payload_hash()),
        _IS_LATE: F.coalesce(is_event & late, F.lit(False)),
        # lines that are no events must not meet in one partition under the key null
        _KEY: F.when(is_event, F.concat(F.lit("e"), EVENT_ID)).otherwise(F.concat(F.lit("l"), LINE_HASH)),
    })  # fmt: skip
    copies = W.partitionBy(_KEY).orderBy(_IS_LATE, TIMESTAMP, LINE_HASH)
    rows = rows.withColumns({_COPY: F.row_number().over(copies), "_first": F.first(PAYLOAD_HASH).over(copies)})
    bucket = (
        F.when(F.col(FILTER_RULE).isNotNull(), Bucket.FILTERED)
        .when(F.col(REASON).isNotNull(), Bucket.QUARANTINED)
        .when(F.col(_COPY) > 1, Bucket.DUPLICATE)
        .when(F.col(_IS_LATE), Bucket.LATE)
        .otherwise(Bucket.INSERTED)
    )
    is_conflict = F.coalesce(is_event & (F.col(PAYLOAD_HASH) != F.col("_first")), F.lit(False))
    sorted_rows = rows.withColumns({BUCKET: bucket, IS_CONFLICT: is_conflict})
    if config.near_duplicate_seconds > 0:
        sorted_rows = _mark_near_duplicates(sorted_rows, config.near_duplicate_seconds)
    return sorted_rows.select(*events.columns, PAYLOAD_HASH, BUCKET, IS_CONFLICT)


def payload_hash() -> Column:
    """Hash of everything that an event says except its id; the order of the attributes does not matter."""
    attributes = F.array_sort(F.map_entries(ATTRIBUTES))
    return F.xxhash64(USER_ID, ITEM_ID, EVENT_TYPE, TIMESTAMP, SESSION_ID, QUERY, VALUE, attributes)


def lookup_bounds(first: date, last: date, config: IngestConfig) -> tuple[date, date]:
    """Give the first and last event_date in which a copy of a batch's events may be stored."""
    horizon = timedelta(days=config.horizon_days)
    return first - horizon, last + horizon


def _mark_near_duplicates(rows: DataFrame, seconds: float) -> DataFrame:
    is_kept = F.col(BUCKET) == Bucket.INSERTED
    # rows of other buckets stand in a group of their own and never count as the event before
    same_act = W.partitionBy(is_kept, USER_ID, ITEM_ID, EVENT_TYPE, QUERY).orderBy(TIMESTAMP, EVENT_ID)
    gap = F.col(TIMESTAMP).cast("double") - F.lag(TIMESTAMP).over(same_act).cast("double")
    near = is_kept & F.coalesce(gap <= seconds, F.lit(False))
    return rows.withColumn(BUCKET, F.when(near, Bucket.NEAR_DUPLICATE).otherwise(F.col(BUCKET)))
