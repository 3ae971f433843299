"""What stays out for good: events of erased users and erased lines, known by salted hashes only."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.columns import ERASED_AT, KEY_HASH, KIND, LINE_HASH, RAW_LINE, REASON, TIMESTAMP, USER_ID
from recsys_spark.data.id_search import IdIndex, names_one
from recsys_spark.data.sources import FILTER_RULE

USER = "user"
LINE = "line"
ERASED_USER = "erased_user"

_KEY = "_key"
_UNTIL = "_until"


def key_hash(column: str, salt: str) -> Column:
    """Give the salted SHA-256 of a text column as hex digits; null for null."""
    return F.sha2(F.concat(F.lit(salt), F.col(column)), 256)


def mark_erased(lines: DataFrame, erased_users: DataFrame, salt: str) -> DataFrame:
    """Set filter_rule to `erased_user` for lines of erased users from before their erasure; other rules stay.

    Needs user_id, timestamp and filter_rule, and erased_users with key_hash and erased_at. Gives the same columns. A line
    without a readable timestamp counts as from before. Later events stay: a user who comes back is a new start.
    """
    marked = _with_known(lines, USER_ID, erased_users, salt)
    is_before = F.col(TIMESTAMP).isNull() | (F.col(TIMESTAMP) < F.col(_UNTIL))
    return _marked(marked, F.col(_UNTIL).isNotNull() & is_before, lines.columns)


def mark_erased_lines(lines: DataFrame, erased_lines: DataFrame, salt: str) -> DataFrame:
    """Set filter_rule to `erased_user` for unreadable lines (reason is set) that were erased out of the quarantine before.

    Needs line_hash, reason and filter_rule, and erased_lines with key_hash and erased_at. Gives the same columns.
    """
    marked = _with_known(lines, LINE_HASH, erased_lines, salt)
    return _marked(marked, F.col(_UNTIL).isNotNull() & F.col(REASON).isNotNull(), lines.columns)


def leave_out_erased(lines: DataFrame, erased: DataFrame, salt: str) -> DataFrame:
    """Apply `mark_erased` and `mark_erased_lines` with the rows of the table `erased`.

    Both sides are small: thousands of users and their broken lines go to every worker, and no line is moved for them.
    """
    marked = mark_erased(lines, erased.where(F.col(KIND) == USER), salt)
    return mark_erased_lines(marked, erased.where(F.col(KIND) == LINE), salt)


def lines_that_name(quarantine: DataFrame, ids: Broadcast[IdIndex]) -> DataFrame:
    """Give the distinct line_hash of quarantined lines whose bytes hold one of the ids as a whole.

    A broken line that holds the id by chance is found, too (the id 12 in a price of 12.5): it goes with the others.
    """

    def search(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            named = [raw is not None and names_one(raw, ids.value) for raw in batch[RAW_LINE].to_pylist()]
            yield batch.select([LINE_HASH]).filter(pa.array(named, pa.bool_()))

    return quarantine.select(LINE_HASH, RAW_LINE).mapInArrow(search, f"{LINE_HASH} string").distinct()


def _with_known(lines: DataFrame, column: str, erased: DataFrame, salt: str) -> DataFrame:
    known = erased.select(F.col(KEY_HASH).alias(_KEY), F.col(ERASED_AT).alias(_UNTIL))
    return lines.withColumn(_KEY, key_hash(column, salt)).join(F.broadcast(known), on=_KEY, how="left")


def _marked(lines: DataFrame, is_erased: Column, columns: list[str]) -> DataFrame:
    rule = F.when(F.col(FILTER_RULE).isNull() & is_erased, ERASED_USER).otherwise(F.col(FILTER_RULE))
    return lines.withColumn(FILTER_RULE, rule).select(*columns)
