"""Recommendations against what came afterwards -> metrics, an MLflow run and a report."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.columns import (
    CATEGORY,
    ITEM_ID,
    METRIC,
    MODEL,
    MODEL_VERSION,
    PROTOCOL,
    RUN_DATE,
    RUN_ID,
    SLICE,
    TASK,
    TITLE,
    USER_ID,
    VALUE,
    K,
    Protocol,
    Task,
)
from recsys_spark.config import Config
from recsys_spark.config_file import dump_config, flatten_config, without_secrets
from recsys_spark.data.interactions import counted_events
from recsys_spark.data.split import count_events_per_day, events_before, events_between, split_dates
from recsys_spark.errors import DataError
from recsys_spark.evaluation.evaluate import truth_pairs
from recsys_spark.evaluation.example import example_user
from recsys_spark.evaluation.known import collect_known, item_stats, user_stats
from recsys_spark.evaluation.list_profile import SHOWN_CATEGORIES, ListProfile
from recsys_spark.evaluation.measure import Before, measure
from recsys_spark.evaluation.report import render_report
from recsys_spark.evaluation.run_results import ExampleUser, RunResults
from recsys_spark.evaluation.slices import slice_limits, slice_truth
from recsys_spark.evaluation.sums import comparisons_pdf
from recsys_spark.infra import tables, tracking
from recsys_spark.infra.catalogue import LISTS_COLD_ITEMS, read_catalogue
from recsys_spark.infra.session import persisted
from recsys_spark.log import log_step

BASELINES = ("popular", "popular_recent", "neighbours")
"""Models that stand beside every learned one."""
_PLAIN = (*BASELINES, "again")


def evaluate(spark: SparkSession, config: Config, run_date: date | None = None) -> dict[str, float]:
    """Evaluate the lists of one date (null: the split's test_start); give ndcg at the first k by task.model."""
    results = evaluate_run(spark, config, run_date)
    metrics_pdf = results.metrics_pdf
    is_main = (
        (metrics_pdf[SLICE] == "all") & (metrics_pdf[METRIC] == "ndcg") & (metrics_pdf[K] == config.evaluation.k[0])
    )
    return {f"{row[TASK]}.{row[MODEL]}": float(row[VALUE]) for row in metrics_pdf[is_main].to_dict("records")}


def evaluate_run(
    spark: SparkSession,
    config: Config,
    run_date: date | None = None,
    ingest_counts: Mapping[str, dict[str, float]] | None = None,
    timings: Mapping[str, float] | None = None,
    notices: tuple[str, ...] = (),
) -> RunResults:
    """Evaluate, replace the date's metrics, log an MLflow run with the report, and give everything that people look at.

    Truth is what users had from the run date up to the next part of the split; for discovery without what they had before.
    """
    events = tables.read_table(spark, config, "events", made_by="ingest_events")
    per_day = count_events_per_day(events)
    dates = split_dates(per_day, config.split)
    cutoff = run_date or dates.test_start
    with log_step("evaluate", cutoff=cutoff) as facts:
        recommendations = _recommendations(spark, config, cutoff)
        events = counted_events(events, config.interactions)
        past, later = events_before(events, cutoff), events_between(events, cutoff, dates.truth_end(cutoff))
        truth = truth_pairs(past, later, config.recommend.tasks)
        measured = _measure(spark, config, recommendations, truth, cutoff)
        results = RunResults(
            title=f"{config.sources.events.name}: recommendations of {cutoff}",
            notices=(*notices, *what_is_missing(config, cutoff, measured["list_counts"])),
            run_date=cutoff,
            truth_end=dates.truth_end(cutoff),
            protocol=Protocol.GLOBAL_TIME_SPLIT,
            conservation=dict(ingest_counts or {}),
            events_per_day=tuple(sorted(per_day.items())),
            example=_example(spark, config, past, later, recommendations),
            config_yaml=dump_config(without_secrets(config)),
            table_versions=_table_versions(spark, config),
            timings=dict(timings or {}),
            confidence=config.evaluation.confidence,
            k=config.evaluation.k[0],
            **measured,
        )
        facts["report"] = report_path(config, cutoff) or "in MLflow"
        facts["rows"] = _write(spark, config, results, recommendations)
    return results


def measure_lists(spark: SparkSession, config: Config, cutoff: date, truth: DataFrame) -> pd.DataFrame:
    """Measure the lists of one date against a truth of any protocol, and write nothing.

    truth is what `truth_pairs` gives. Gives the columns of the table metrics but run_id, protocol and run_date.
    """
    recommendations = _recommendations(spark, config, cutoff)
    metrics_pdf: pd.DataFrame = _measure(spark, config, recommendations, truth, cutoff)["metrics_pdf"]
    versions = recommendations.select(TASK, MODEL, MODEL_VERSION).distinct().toPandas()
    return metrics_pdf.merge(versions, on=[TASK, MODEL], how="inner")


def report_path(config: Config, run_date: date) -> Path | None:
    """Give where the report is written; null when the data root is no local folder (the report is in MLflow then)."""
    return None if not config.is_local else Path(config.data_root).absolute() / "reports" / f"{run_date}.html"


def what_is_missing(config: Config, cutoff: date, listed: Collection[tuple[str, str]]) -> list[str]:
    """Say which of the configured lists are not there, and whether learned models stand without the plain ones beside them."""
    wanted = [
        (task, model) for task in config.recommend.tasks for model in config.recommend.models
        if (task, model) != (Task.DISCOVERY, "again")
    ]  # fmt: skip
    missing = [f"{model} ({task})" for task, model in wanted if (task, model) not in listed]
    absent = [model for model in BASELINES if model not in config.recommend.models]
    notices = []
    if missing:
        notices.append(
            f"No lists of {cutoff} from {', '.join(missing)}: train and recommend for this date, or take them out of recommend.models"
        )
    if absent and not set(config.recommend.models) <= set(_PLAIN):
        notices.append(
            f"Not measured beside the other models: {', '.join(absent)}. What a model is worth shows against them."
        )
    return notices


def _recommendations(spark: SparkSession, config: Config, cutoff: date) -> DataFrame:
    found = tables.read_table(spark, config, "recommendations", made_by="recommend")
    found = found.where(
        (F.col(RUN_DATE) == F.lit(cutoff))
        & F.col(MODEL).isin(list(config.recommend.models))
        & F.col(TASK).isin(list(config.recommend.tasks))
    )
    if found.isEmpty():
        raise DataError(f"there are no recommendations of {cutoff}; run jobs/recommend.py --date {cutoff}")
    return found


def _measure(
    spark: SparkSession, config: Config, recommendations: DataFrame, pairs: DataFrame, cutoff: date
) -> dict[str, Any]:
    """The numbers of RunResults."""
    interactions = tables.read_cutoff(spark, config, cutoff)
    with persisted(item_stats(interactions, _categories(spark, config))) as items:
        sizes = _larger_catalogues(spark, config, interactions, cutoff)
        return _measured(config, recommendations, interactions, items, pairs, cutoff, sizes)


def _measured(
    config: Config, recommendations: DataFrame, interactions: DataFrame, items: DataFrame, pairs: DataFrame, cutoff: date,
    sizes: Mapping[str, int],
) -> dict[str, Any]:  # fmt: skip
    wanted, users = config.evaluation, user_stats(interactions)
    known = collect_known(items, users, max(wanted.num_categories, SHOWN_CATEGORIES))
    limits = replace(
        slice_limits(known.user_counts, known.item_users, wanted.heavy_user_share, wanted.head_share),
        new_since=cutoff - timedelta(days=wanted.new_user_days),
        categories=tuple(known.categories)[: wanted.num_categories],
    )
    rows = pairs.join(users, on=USER_ID, how="left").join(items, on=ITEM_ID, how="left")
    with persisted(slice_truth(rows, limits)) as truth:
        if truth.isEmpty():
            raise DataError(
                f"no event says what came after {cutoff}, so there is nothing to compare its lists with; check the date and the split"
            )
        order = (*config.recommend.tasks, *config.recommend.models)
        found = measure(recommendations, truth, items, Before(interactions, known, limits, sizes), order, wanted)
    _check_catalogue(found.profiles)
    return {
        "metrics_pdf": found.metrics_pdf,
        "comparisons": found.comparisons,
        "item_event_counts": known.item_events,
        "list_counts": found.list_counts(),
        "tails": found.tails,
        "categories": found.categories,
    }


def _categories(spark: SparkSession, config: Config) -> DataFrame | None:
    if not tables.table_exists(spark, config, "items"):
        return None
    return tables.read_table(spark, config, "items", made_by="ingest_items").select(ITEM_ID, CATEGORY)


def _check_catalogue(shapes: Mapping[tuple[str, str], ListProfile]) -> None:
    for (task, model), shape in shapes.items():
        foreign = 0 if model in LISTS_COLD_ITEMS else shape.places_by_item_users.get(0, 0)
        if foreign:
            raise DataError(
                f"{foreign} places of the {task} lists of {model} hold items that the interactions of their date do not have: "
                "the interactions were built anew since; run the training jobs and jobs/recommend.py again"
            )


def _larger_catalogues(spark: SparkSession, config: Config, interactions: DataFrame, cutoff: date) -> dict[str, int]:
    """How many items the models can list that list cold items beside those of the interactions."""
    models = [model for model in config.recommend.models if model in LISTS_COLD_ITEMS]
    return {model: read_catalogue(spark, config, interactions, [model], cutoff).count() for model in models}


def _table_versions(spark: SparkSession, config: Config) -> dict[str, int]:
    names = ("events", "items", "interactions", "recommendations")
    return {
        name: tables.delta_version(spark, config, name) for name in names if tables.table_exists(spark, config, name)
    }


def _example(
    spark: SparkSession, config: Config, past: DataFrame, later: DataFrame, recommendations: DataFrame
) -> ExampleUser | None:
    if config.evaluation.example_user is None:
        return None
    return example_user(
        config.evaluation.example_user, past, later, recommendations, _labels(spark, config), config.evaluation.k[0]
    )


def _labels(spark: SparkSession, config: Config) -> DataFrame | None:
    if not tables.table_exists(spark, config, "items"):
        return None
    items = tables.read_table(spark, config, "items", made_by="ingest_items")
    return items.select(ITEM_ID, TITLE, CATEGORY)


def _write(spark: SparkSession, config: Config, results: RunResults, recommendations: DataFrame) -> int:
    report = render_report(results)
    path = report_path(config, results.run_date)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(report, encoding="utf-8")
    tags = {f"delta.{name}": str(version) for name, version in results.table_versions.items()}
    run_id = tracking.start_run(config, f"evaluate {results.run_date}", flatten_config(without_secrets(config)), tags)
    main = results.metrics_pdf[results.metrics_pdf[SLICE] == "all"]
    for model, rows in main.groupby(MODEL, sort=False):
        values = {f"{row[TASK]}.{row[METRIC]}_at_{row[K]}": float(row[VALUE]) for row in rows.to_dict("records")}
        tracking.log_child_run(config, run_id, str(model), flatten_config(without_secrets(config)), values)
    everything = {
        f"{row[TASK]}.{row[MODEL]}.{row[METRIC]}_at_{row[K]}": float(row[VALUE]) for row in main.to_dict("records")
    }
    ingested = {
        f"ingest.{feed}.{name}": value
        for feed, counts in results.conservation.items()
        for name, value in counts.items()
    }
    texts = {"report.html": report, "config.yaml": results.config_yaml}
    if results.comparisons:
        texts["comparisons.csv"] = comparisons_pdf(results.comparisons).to_csv(index=False)
    tracking.finish_run(config, run_id, everything | ingested, texts)
    metric_rows = spark.createDataFrame(results.metrics_pdf).withColumns({
        RUN_ID: F.lit(run_id), PROTOCOL: F.lit(Protocol.GLOBAL_TIME_SPLIT), RUN_DATE: F.lit(results.run_date),
    })  # fmt: skip
    # by task too: the lists of one task may have been made anew since
    versions = recommendations.select(TASK, MODEL, MODEL_VERSION).distinct()
    named = metric_rows.join(versions, on=[TASK, MODEL], how="inner")
    # other protocols keep their rows of the same date
    own: dict[str, str | date] = {RUN_DATE: results.run_date, PROTOCOL: Protocol.GLOBAL_TIME_SPLIT}
    return tables.replace_partition(spark, config, "metrics", named, own)
