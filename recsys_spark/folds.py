"""One cut of the events, and the line run on it in a scratch root: what tunes and backtests are made of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import pandas as pd
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.columns import EVENT_DATE, ITEM_ID, USER_ID, USER_IDX, Protocol
from recsys_spark.config import Config
from recsys_spark.data.leakage import check_no_leak, find_leaks
from recsys_spark.data.vocabulary import number_new_ids
from recsys_spark.infra import tables
from recsys_spark.main_job import trainers_of
from recsys_spark.pipelines.build_interactions import build_interactions
from recsys_spark.pipelines.evaluate import measure_lists
from recsys_spark.pipelines.recommend import recommend
from recsys_spark.pipelines.train_popular import train_popular


@dataclass(frozen=True)
class Fold:
    """What models learn from and what their lists are compared with, as rows of the events table."""

    protocol: str
    """A value of `Protocol`."""
    cutoff: date
    """Midnight after the last event that may be learned from: the run date of every step."""
    train: DataFrame
    """All that the scratch root holds, so that nothing else can be learned from."""
    test: DataFrame
    past: DataFrame
    """What users had before their test events: discovery does not ask for it again."""
    train_days: tuple[date | None, date] | None = None
    """First day (null: from the beginning) and end (left out), where train is a range of days: no event is copied then."""
    history: DataFrame | None = None
    """Events of held-out users that lists are made from and that no model learns from."""


def input_versions(spark: SparkSession, config: Config) -> dict[str, int]:
    """Give the newest Delta versions of the tables that a scratch root starts from."""
    there = [name for name in ("events", "items") if tables.table_exists(spark, config, name)]
    return {name: tables.delta_version(spark, config, name) for name in there}


def fill_scratch(spark: SparkSession, config: Config, scratch: Config, fold: Fold, versions: dict[str, int]) -> None:
    """Put the fold's train events, and the items, into an empty scratch root; DataError when something of test is among them."""
    if fold.train_days is not None:
        tables.clone_table(spark, config, scratch, "events", versions["events"], (EVENT_DATE, *fold.train_days))
    else:
        tables.append_rows(spark, scratch, "events", fold.train)
    if "items" in versions:
        tables.clone_table(spark, config, scratch, "items", versions["items"])
    stored = tables.read_table(spark, scratch, "events", made_by="ingest_events")
    check_no_leak(find_leaks(stored, fold.test, fold.protocol), fold.protocol)
    if fold.history is not None:  # of the users of test, and so only older than their test events
        check_no_leak(find_leaks(fold.history, fold.test, Protocol.LEAVE_LAST), fold.protocol)


def build_base(spark: SparkSession, scratch: Config, cutoff: date, truth: DataFrame) -> None:
    """Make what every model needs: interactions, the indexes with all users of the truth, popularity (the fallback)."""
    build_interactions(spark, scratch, cutoff)
    # as in production, where the index knows everybody who is asked for: who is new gets the fallback
    tables.append_to_index(spark, scratch, "user_index", lambda index: number_new_ids(index, truth, USER_ID, USER_IDX))
    train_popular(spark, scratch, cutoff)


def run_models(
    spark: SparkSession, scratch: Config, cutoff: date, truth: DataFrame, history: DataFrame | None = None
) -> pd.DataFrame:
    """Train recommend.models, make their lists and measure them against truth (task, user_id, item_id), as `measure_lists` does.

    A history is added to the interactions after training, as far as its items are in the catalogue: item-item models use it, a
    model with a vector per user knows nothing of these users and gives them the fallback.
    """
    for train in trainers_of(scratch):
        train(spark, scratch, cutoff)
    if history is not None:
        # the catalogue stays the one that the models were trained with
        known = tables.read_cutoff(spark, scratch, cutoff).select(ITEM_ID).distinct()
        tables.append_rows(spark, scratch, "events", history.join(known, on=ITEM_ID, how="left_semi"))
        build_interactions(spark, scratch, cutoff)
    recommend(spark, scratch, cutoff)
    return measure_lists(spark, scratch, cutoff, truth)
