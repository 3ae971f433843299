"""Item feed -> items: new ones inserted, newer ones replaced, with every physical line accounted for."""

from __future__ import annotations

import uuid
from datetime import date
from functools import reduce

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.columns import BUCKET, INGEST_RUN, Bucket
from recsys_spark.config import Config
from recsys_spark.data import items, outcome, sources
from recsys_spark.infra import files, tables
from recsys_spark.infra.session import input_errors_explained, persisted
from recsys_spark.log import log_step
from recsys_spark.schemas import ITEMS


def ingest_items(spark: SparkSession, config: Config, run_date: date | None = None) -> dict[str, float]:
    """Ingest the deliveries of the item feed, of one day when a run date is given. Safe to repeat at any point.

    Gives the lines by bucket: inserted (new items), updated (newer and different), duplicate (nothing new), filtered and
    quarantined. Raises DataError as `ingest_events` does.
    """
    source = config.sources.items
    ingest_run = f"{source.name}-{run_date or 'all'}-{uuid.uuid4().hex[:8]}"
    with input_errors_explained(source.name):
        deliveries = files.read_deliveries(spark, source, run_date)
        lines = [sources.parse_lines(d.lines, source, d.header) for d in deliveries]
        parsed = reduce(DataFrame.unionByName, [items.parse_items(part, source) for part in lines])
    newest = items.keep_newest(parsed).withColumn(INGEST_RUN, F.lit(ingest_run))

    with log_step("ingest_items", source=source.name) as facts, persisted(newest) as batch:
        with input_errors_explained(source.name):
            counts = outcome.bucket_counts(outcome.count_lines(batch).collect())
        if counts[Bucket.QUARANTINED]:
            tables.merge_new(spark, config, "items_quarantine", outcome.quarantine_rows(batch))
        outcome.check_quarantined_share(counts, config.ingest.max_quarantined_share, source.name, "items_quarantine")
        winners = batch.where(F.col(BUCKET) == Bucket.INSERTED).select(*ITEMS.fieldNames())
        inserted, updated = tables.upsert(spark, config, "items", winners, update_when=items.IS_NEWER)
        unchanged = counts[Bucket.INSERTED] - inserted - updated
        counts |= {
            Bucket.INSERTED: inserted,
            Bucket.UPDATED: updated,
            Bucket.DUPLICATE: counts[Bucket.DUPLICATE] + unchanged,
        }
        counts["read"] = sum(part.count() for part in lines)
        outcome.check_conservation(counts, int(counts["read"]), source.name)
        facts.update(counts)
    return counts
