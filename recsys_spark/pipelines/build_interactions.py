"""Events before the cutoff -> interactions, and the indexes grown by the users and items seen so far."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

from pyspark.sql import DataFrame, SparkSession

from recsys_spark.columns import (
    ATTRIBUTES,
    CUTOFF,
    EVENT_DATE,
    EVENT_TYPE,
    ITEM_ID,
    ITEM_IDX,
    TIMESTAMP,
    USER_ID,
    USER_IDX,
    VALUE,
)
from recsys_spark.config import Config
from recsys_spark.data import cleaning
from recsys_spark.data import interactions as interactions_of
from recsys_spark.data.leakage import misdated_events
from recsys_spark.data.split import count_events_per_day, events_before, split_dates
from recsys_spark.data.vocabulary import number_new_ids
from recsys_spark.errors import DataError
from recsys_spark.infra import tables
from recsys_spark.infra.session import persisted
from recsys_spark.log import log_step

_CLEANED_COLUMNS = (USER_ID, ITEM_ID, EVENT_TYPE, TIMESTAMP, EVENT_DATE, VALUE, ATTRIBUTES)


def build_interactions(spark: SparkSession, config: Config, run_date: date | None = None) -> dict[str, float]:
    """Replace the interactions of one cutoff: midnight UTC of the run date (null: the split's test_start).

    The indexes take in every id of the events table, so that new users and items keep their numbers later; only ids
    enter there, nothing that was done after the cutoff. Gives, beside the sizes, what cleaning did, as
    `cleaning.count_cleaned` counts it. Raises DataError when no event is left, or when the cutoff would let later events in.
    """
    events = tables.read_table(spark, config, "events", made_by="ingest_events")
    cutoff = run_date or split_dates(count_events_per_day(events), config.split).test_start
    # the table keeps the smallest and largest timestamp of every file, so that nothing is read where all is well
    misdated = misdated_events(events, cutoff).count()
    if misdated:
        raise DataError(
            f"{misdated} events have an event_date before {cutoff} and a timestamp that is not, so that the future would be learned "
            "from; event_date must be the UTC day of timestamp: correct what wrote them into the events table"
        )
    with log_step("build_interactions", cutoff=cutoff) as facts:
        with _cleaned(events, config, cutoff) as (train_events, counts):
            facts.update(counts)
            pairs = interactions_of.build_interactions(train_events, config.interactions, cutoff)
            count = tables.replace_partition(spark, config, "interactions", pairs, {CUTOFF: cutoff})
        facts["interactions"] = count
        if not count:
            raise DataError(
                f"no interaction is left before {cutoff} out of {events_before(events, cutoff).count()} events; check the date, "
                "interactions.event_weights, interactions.min_item_events and cleaning"
            )
        facts["new_users"] = _grow_index(spark, config, "user_index", events, USER_ID, USER_IDX)
        facts["new_items"] = _grow_index(spark, config, "item_index", events, ITEM_ID, ITEM_IDX)
    return {name: float(str(value)) for name, value in facts.items()}


@contextmanager
def _cleaned(events: DataFrame, config: Config, cutoff: date) -> Iterator[tuple[DataFrame, dict[str, float]]]:
    """The events that interactions are built from, and what cleaning did. Without a configured step they are the table's."""
    if not cleaning.cleaning_steps(config.cleaning):
        yield events, {}
        return
    past = events_before(events, cutoff).select(*_CLEANED_COLUMNS)
    with persisted(cleaning.mark_events(past, config.cleaning)) as marked:
        yield cleaning.kept_events(marked), cleaning.count_cleaned(marked).collect()[0].asDict()


def _grow_index(spark: SparkSession, config: Config, name: str, events: DataFrame, raw_id: str, idx: str) -> int:
    return tables.append_to_index(spark, config, name, lambda index: number_new_ids(index, events, raw_id, idx))
