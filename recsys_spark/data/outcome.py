"""The outcome of an ingest run: how many lines ended in which bucket, and the rules that stop a run."""

from __future__ import annotations

from collections.abc import Iterable

from pyspark.sql import DataFrame, Row
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from recsys_spark.columns import BUCKET, DETAIL, LINE_HASH, OCCURRENCE, REASON, SOURCE_FILE, Bucket
from recsys_spark.data.sources import FILTER_RULE
from recsys_spark.errors import DataError
from recsys_spark.schemas import QUARANTINE

BUCKETS = (
    Bucket.INSERTED, Bucket.UPDATED, Bucket.DUPLICATE, Bucket.NEAR_DUPLICATE, Bucket.LATE, Bucket.FILTERED, Bucket.QUARANTINED,
)  # fmt: skip


def count_lines(lines: DataFrame) -> DataFrame:
    """Needs bucket, reason, detail, filter_rule. Gives one row per combination with the number of lines."""
    return lines.groupBy(BUCKET, REASON, DETAIL, FILTER_RULE).agg(F.count("*").alias("lines"))


def bucket_counts(rows: Iterable[Row]) -> dict[str, float]:
    """Give lines by bucket (every bucket, 0 where empty), and `filtered.RULE`, `quarantined.REASON` where there are any."""
    counts: dict[str, float] = dict.fromkeys(BUCKETS, 0)
    for row in rows:
        bucket = row[BUCKET]
        counts[bucket] += row["lines"]
        part = {Bucket.FILTERED: row[FILTER_RULE], Bucket.QUARANTINED: row[REASON]}.get(bucket)
        if part is not None:
            counts[f"{bucket}.{part}"] = counts.get(f"{bucket}.{part}", 0) + row["lines"]
    return counts


def quarantine_rows(lines: DataFrame) -> DataFrame:
    """Give the quarantined lines as rows of the quarantine table.

    Equal lines of one file are numbered from 1, so that (source_file, line_hash, occurrence) names a physical line and a
    rerun adds nothing.
    """
    equal_lines = W.partitionBy(SOURCE_FILE, LINE_HASH).orderBy(LINE_HASH)
    quarantined = lines.where(F.col(BUCKET) == Bucket.QUARANTINED)
    return quarantined.withColumn(OCCURRENCE, F.row_number().over(equal_lines)).select(*QUARANTINE.fieldNames())


def check_quarantined_share(counts: dict[str, float], limit: float, source: str, table: str) -> None:
    """Raise DataError when more than `limit` of the lines are quarantined."""
    read = sum(counts[bucket] for bucket in BUCKETS)
    if counts[Bucket.QUARANTINED] > limit * read:
        reasons = ", ".join(
            f"{key.split('.', 1)[1]}: {value:.0f}" for key, value in counts.items() if key.startswith("quarantined.")
        )
        raise DataError(
            f"source {source!r}: {counts[Bucket.QUARANTINED]:.0f} of {read:.0f} lines are quarantined ({reasons}), more than "
            f"ingest.max_quarantined_share = {limit}; nothing else was written; look at the table {table}, then mend the source's "
            "config and run again, or raise the limit"
        )


def check_conservation(counts: dict[str, float], read: int, source: str) -> None:
    """Raise DataError unless every line that was read is in exactly one bucket."""
    accounted = sum(counts[bucket] for bucket in BUCKETS)
    if accounted != read:
        raise DataError(
            f"source {source!r}: {read} lines were read but {accounted:.0f} are accounted for; files changed while they were read, "
            "or this is a bug; nothing was lost: run the job again on files that stand still"
        )


def conservation_line(counts: dict[str, float]) -> str:
    """Give the sum that holds for every run: `read 12 = inserted 9 + duplicate 2 + ...`, empty buckets left out but the first."""
    shown = [bucket for bucket in BUCKETS if counts[bucket] or bucket == Bucket.INSERTED]
    return f"read {counts['read']:,.0f} = " + " + ".join(f"{bucket} {counts[bucket]:,.0f}" for bucket in shown)
