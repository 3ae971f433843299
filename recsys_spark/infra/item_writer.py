"""Parsed item lines -> the tables items and items_quarantine: one way in for deliveries and for replays."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.columns import BUCKET, INGEST_RUN, KIND, READ, Bucket
from recsys_spark.config import Config
from recsys_spark.data import items, outcome
from recsys_spark.data.erased import LINE, mark_erased_lines
from recsys_spark.infra import run_records, tables
from recsys_spark.infra.erased import read_erased
from recsys_spark.infra.event_writer import read_lines, warn_of_changed_types, write_quarantine
from recsys_spark.infra.files import Delivery
from recsys_spark.infra.run_records import RunRecord
from recsys_spark.infra.session import input_errors_explained, persisted
from recsys_spark.schemas import ITEMS


def parse(lines: list[DataFrame], config: Config) -> DataFrame:
    """Give the items of split lines, with a reason for every line that is none."""
    return reduce(
        DataFrame.unionByName, [items.parse_items(part, config.sources.items, config.ingest) for part in lines]
    )


def write_deliveries(record: RunRecord, deliveries: Iterable[Delivery]) -> dict[str, float]:
    """Sort the lines of deliveries into buckets and write each where it belongs; give the lines by bucket, and read.

    Raises DataError as `event_writer.write_deliveries` does.
    """
    spark, config, source = record.spark, record.config, record.config.sources.items
    with input_errors_explained(source.name):
        lines = read_lines(deliveries, source)
        parsed = parse(lines, config)
        erased = read_erased(spark, config)
        if erased is not None:
            parsed = mark_erased_lines(parsed, erased.rows.where(F.col(KIND) == LINE), erased.salt)
        newest = items.keep_newest(parsed).withColumn(INGEST_RUN, F.lit(record.ingest_run))
    with persisted(newest) as batch:
        with input_errors_explained(source.name):
            counts = run_records.profile_batch(record, batch)
        if record.profile is not None:
            warn_of_changed_types(source.name, record.profile)
        if counts[Bucket.QUARANTINED]:
            write_quarantine(record, batch)
        outcome.check_quarantined_share(counts, config.ingest.max_quarantined_share, source.name, "items_quarantine")
        run_records.check_batch(record)
        winners = batch.where(F.col(BUCKET) == Bucket.INSERTED).select(*ITEMS.fieldNames())
        inserted, updated = tables.upsert(spark, config, "items", winners, update_when=items.IS_NEWER)
        unchanged = counts[Bucket.INSERTED] - inserted - updated
        counts |= {
            Bucket.INSERTED: inserted,
            Bucket.UPDATED: updated,
            Bucket.DUPLICATE: counts[Bucket.DUPLICATE] + unchanged,
        }
        counts[READ] = sum(part.count() for part in lines)
    outcome.check_conservation(counts, int(counts[READ]), source.name)
    run_records.check_written(record, counts)
    return counts
