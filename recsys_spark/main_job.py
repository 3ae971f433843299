"""The main job: the pipelines in their order, from raw logs to a report."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import TypeVar

from pyspark.sql import SparkSession

from recsys_spark.config import Config
from recsys_spark.data.split import count_events_per_day, split_dates
from recsys_spark.evaluation.run_results import RunResults
from recsys_spark.infra import tables
from recsys_spark.log import progress_bar
from recsys_spark.pipelines.build_interactions import build_interactions
from recsys_spark.pipelines.evaluate import evaluate_run
from recsys_spark.pipelines.ingest_events import ingest_events
from recsys_spark.pipelines.ingest_items import ingest_items
from recsys_spark.pipelines.recommend import recommend
from recsys_spark.pipelines.train_als import train_als
from recsys_spark.pipelines.train_ease import train_ease
from recsys_spark.pipelines.train_feature_factors import train_feature_factors
from recsys_spark.pipelines.train_neighbours import train_neighbours
from recsys_spark.pipelines.train_popular import train_popular
from recsys_spark.pipelines.train_user_neighbours import train_user_neighbours

_Result = TypeVar("_Result")
Step = Callable[[SparkSession, Config, date], dict[str, float]]

TRAINERS: dict[str, Step] = {
    "als": train_als,
    "neighbours": train_neighbours,
    "user_neighbours": train_user_neighbours,
    "ease": train_ease,
    "feature_factors": train_feature_factors,
}
"""Model -> the pipeline that trains it; models that are not named need nothing but train_popular."""


def main_job(spark: SparkSession, config: Config, run_date: date | None = None) -> dict[str, float]:
    """Run everything once; give the lines of ingest by bucket."""
    results = run_main_job(spark, config, run_date)
    return results.conservation["events"]


def run_main_job(
    spark: SparkSession, config: Config, run_date: date | None = None, notices: tuple[str, ...] = ()
) -> RunResults:
    """Ingest all deliveries, then build, train, recommend and evaluate as of the run date (null: the split's test_start)."""
    steps = trainers_of(config)
    ingested: dict[str, dict[str, float]] = {}
    timings: dict[str, float] = {}
    with progress_bar(total=6 + len(steps)) as bar:

        def run(step: Callable[..., _Result], *arguments: object) -> _Result:
            bar.set_description(step.__name__)
            start = time.perf_counter()
            result = step(spark, config, *arguments)
            timings[step.__name__] = time.perf_counter() - start
            bar.update()
            return result

        if config.sources.items.path is not None:
            ingested["items"] = run(ingest_items)
        ingested["events"] = run(ingest_events)
        events = tables.read_table(spark, config, "events", made_by="ingest_events")
        cutoff = run_date or split_dates(count_events_per_day(events), config.split).test_start
        for step in (build_interactions, train_popular, *steps, recommend):
            run(step, cutoff)
        results = run(evaluate_run, cutoff, ingested, timings, notices)
    return replace(results, timings=timings)


def trainers_of(config: Config) -> list[Step]:
    """Give the pipelines that train recommend.models, next to train_popular."""
    return [step for name, step in TRAINERS.items() if name in config.recommend.models]
