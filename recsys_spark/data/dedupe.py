"""Put every parsed line of a batch into one bucket: quarantined, filtered, duplicate, near_duplicate, late or to be inserted."""

from __future__ import annotations

from datetime import date, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from recsys_spark.columns import (
    ATTRIBUTES,
    BUCKET,
    DELIVERY_DATE,
    EVENT_DATE,
    EVENT_ID,
    EVENT_TYPE,
    ITEM_ID,
    LINE_HASH,
    PAYLOAD_HASH,
    QUERY,
    REASON,
    SESSION_ID,
    SOURCE_FILE,
    TIMESTAMP,
    USER_ID,
    VALUE,
    Bucket,
)
from recsys_spark.config import IngestConfig
from recsys_spark.data.sources import FILTER_RULE

IS_CONFLICT = "is_conflict"
_IS_LATE = "_is_late"
_NO_EVENT = "_no_event"
_COPY = "_copy"
_STORED = "_stored_"
_NEAR = "_near"


def sort_into_buckets(events: DataFrame, config: IngestConfig) -> DataFrame:
    """Add bucket and is_conflict to parsed events.

    Needs the columns of `events.parse_events`. Of the rows with one event_id the winner is one that came in time before one that
    came late, then the earliest timestamp, then the smaller hash of the raw line; the others are duplicates, in conflict when
    their payload differs from the winner's. The winner is `inserted` (the table may still know it) or `late`. source_file is
    null for events.
    """
    is_event = F.col(REASON).isNull() & F.col(FILTER_RULE).isNull()
    late = F.col(EVENT_DATE) < F.date_sub(DELIVERY_DATE, config.horizon_days)
    rows = events.withColumns({
        PAYLOAD_HASH: F.when(is_event, payload_hash()),
        _IS_LATE: F.coalesce(is_event & late, F.lit(False)),
        # events need no origin any more: every row is sorted and kept with what stands in it
        SOURCE_FILE: F.when(~is_event, F.col(SOURCE_FILE)),
        # lines that are no events are no copies of anything, and must not meet in one partition under the id null
        _NO_EVENT: F.when(~is_event, F.col(LINE_HASH)),
    })  # fmt: skip
    copies = W.partitionBy(EVENT_ID, _NO_EVENT).orderBy(_IS_LATE, TIMESTAMP, LINE_HASH)
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
    attributes = F.sort_array(F.map_entries(ATTRIBUTES))
    # the hash passes over nulls: without their places a text that moved to the column beside would not show
    nulls = [F.col(name).isNull() for name in (ITEM_ID, SESSION_ID, QUERY, VALUE)]
    return F.xxhash64(USER_ID, ITEM_ID, EVENT_TYPE, TIMESTAMP, SESSION_ID, QUERY, VALUE, attributes, *nulls)


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


def mark_near_stored(batch: DataFrame, stored: DataFrame, seconds: float) -> DataFrame:
    """Put rows of a batch that repeat a stored event within the given seconds, before or after it, in near_duplicate.

    Needs the columns of `sort_into_buckets`, and stored events around the batch's dates. A row whose own event_id is stored
    stays where it is: the merge counts it as a duplicate, so that a rerun decides as the first run did.
    """
    names = (EVENT_ID, USER_ID, ITEM_ID, EVENT_TYPE, QUERY, TIMESTAMP)
    there = stored.select(*[F.col(name).alias(_STORED + name) for name in names])
    new = batch.where(F.col(BUCKET) == Bucket.INSERTED).select(*names)
    new = new.join(there.select(_STORED + EVENT_ID), on=F.col(EVENT_ID) == F.col(_STORED + EVENT_ID), how="left_anti")
    gap = F.abs(F.col(TIMESTAMP).cast("double") - F.col(_STORED + TIMESTAMP).cast("double"))
    same_act = (F.col(USER_ID) == F.col(_STORED + USER_ID)) & (F.col(EVENT_TYPE) == F.col(_STORED + EVENT_TYPE))
    for name in (ITEM_ID, QUERY):
        same_act = same_act & F.col(name).eqNullSafe(F.col(_STORED + name))
    near = new.join(there, on=same_act & (gap <= seconds), how="left_semi").select(EVENT_ID, F.lit(True).alias(_NEAR))
    is_near = (F.col(BUCKET) == Bucket.INSERTED) & F.col(_NEAR).isNotNull()
    bucket = F.when(is_near, Bucket.NEAR_DUPLICATE).otherwise(F.col(BUCKET))
    return batch.join(near, on=EVENT_ID, how="left").withColumn(BUCKET, bucket).select(*batch.columns)
