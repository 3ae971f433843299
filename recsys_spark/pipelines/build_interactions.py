"""Events before the cutoff -> interactions, and the indexes grown by the users and items seen so far."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame, SparkSession

from recsys_spark.columns import CUTOFF, ITEM_ID, ITEM_IDX, USER_ID, USER_IDX
from recsys_spark.config import Config
from recsys_spark.data import interactions as interactions_of
from recsys_spark.data.split import count_events_per_day, events_before, split_dates
from recsys_spark.data.vocabulary import number_new_ids
from recsys_spark.errors import DataError
from recsys_spark.infra import tables
from recsys_spark.log import log_step


def build_interactions(spark: SparkSession, config: Config, run_date: date | None = None) -> dict[str, float]:
    """Replace the interactions of one cutoff: midnight UTC of the run date (null: the split's test_start).

    The indexes take in every id of the events table, so that new users and items keep their numbers later; only ids
    enter there, nothing that was done after the cutoff. Raises DataError when no event is left.
    """
    events = tables.read_table(spark, config, "events", made_by="ingest_events")
    cutoff = run_date or split_dates(count_events_per_day(events), config.split).test_start
    with log_step("build_interactions", cutoff=cutoff) as facts:
        pairs = interactions_of.build_interactions(events, config.interactions, cutoff)
        facts["interactions"] = count = tables.replace_partition(spark, config, "interactions", pairs, {CUTOFF: cutoff})
        if not count:
            raise DataError(
                f"no interaction is left before {cutoff} out of {events_before(events, cutoff).count()} events; check the date, "
                "interactions.event_weights and interactions.min_item_events"
            )
        facts["new_users"] = _grow_index(spark, config, "user_index", events, USER_ID, USER_IDX)
        facts["new_items"] = _grow_index(spark, config, "item_index", events, ITEM_ID, ITEM_IDX)
    return {name: float(str(value)) for name, value in facts.items()}


def _grow_index(spark: SparkSession, config: Config, name: str, events: DataFrame, raw_id: str, idx: str) -> int:
    return tables.append_to_index(spark, config, name, lambda index: number_new_ids(index, events, raw_id, idx))
