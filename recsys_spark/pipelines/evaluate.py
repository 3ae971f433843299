"""Recommendations against what came afterwards -> metrics, an MLflow run and a report."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.columns import (
    CATEGORY,
    CI_HIGH,
    CI_LOW,
    COUNT,
    ITEM_ID,
    METRIC,
    MODEL,
    MODEL_VERSION,
    NUM_USERS,
    PROTOCOL,
    RUN_DATE,
    RUN_ID,
    SLICE,
    TASK,
    TITLE,
    USER_ID,
    VALUE,
    K,
    Task,
)
from recsys_spark.config import Config
from recsys_spark.config_file import dump_config, flatten_config, without_secrets
from recsys_spark.data.interactions import counted_events
from recsys_spark.data.split import SplitDates, count_events_per_day, events_before, events_between, split_dates
from recsys_spark.errors import DataError
from recsys_spark.evaluation import evaluate as evaluation
from recsys_spark.evaluation.example import example_user
from recsys_spark.evaluation.report import render_report
from recsys_spark.evaluation.run_results import ExampleUser, RunResults
from recsys_spark.infra import tables, tracking
from recsys_spark.infra.catalogue import LISTS_COLD_ITEMS, read_catalogue
from recsys_spark.infra.session import persisted
from recsys_spark.log import log_step

GLOBAL_TIME_SPLIT = "global_time_split"
_METRICS_KEY = [TASK, MODEL, SLICE, METRIC, K]


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
        metrics_pdf = _metrics(spark, config, events, recommendations, cutoff, dates)
        counts = _list_counts(recommendations, config.evaluation.k[0])
        item_counts = _item_event_counts(spark, config, cutoff)
        sizes = dict.fromkeys({model for _, model in counts}, len(item_counts)) | _larger_catalogues(
            spark, config, cutoff
        )
        metrics_pdf = pd.concat([metrics_pdf, _catalogue_rows(config, counts, sizes)], ignore_index=True)
        results = RunResults(
            title=f"{config.sources.events.name}: recommendations of {cutoff}",
            notices=notices,
            run_date=cutoff,
            truth_end=dates.truth_end(cutoff),
            protocol=GLOBAL_TIME_SPLIT,
            conservation=dict(ingest_counts or {}),
            events_per_day=tuple(sorted(per_day.items())),
            metrics_pdf=_in_model_order(metrics_pdf, config),
            item_event_counts=item_counts,
            list_counts=counts,
            example=_example(spark, config, events, recommendations, cutoff, dates),
            config_yaml=dump_config(without_secrets(config)),
            table_versions=_table_versions(spark, config),
            timings=dict(timings or {}),
            confidence=config.evaluation.confidence,
        )
        facts["report"] = report_path(config, cutoff) or "in MLflow"
        facts["rows"] = _write(spark, config, results, recommendations)
    return results


def report_path(config: Config, run_date: date) -> Path | None:
    """Give where the report is written; null when the data root is no local folder (the report is in MLflow then)."""
    return None if "://" in config.data_root else Path(config.data_root).absolute() / "reports" / f"{run_date}.html"


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


def _metrics(
    spark: SparkSession, config: Config, events: DataFrame, recommendations: DataFrame, cutoff: date, dates: SplitDates
) -> pd.DataFrame:
    interactions = tables.read_cutoff(spark, config, cutoff)
    item_users = interactions.groupBy(ITEM_ID).agg(F.count("*").alias(evaluation.ITEM_USERS))
    known_users = interactions.select(USER_ID).distinct()
    truth = evaluation.slice_truth(_truth(config, events, known_users, item_users, cutoff, dates))
    stats = item_users.join(_categories(spark, config), on=ITEM_ID, how="full")  # cold items have a category, too
    lists = evaluation.collect_lists(recommendations, stats)
    models = recommendations.select(TASK, MODEL).distinct()
    with persisted(truth) as truth:
        if truth.isEmpty():
            raise DataError(
                f"there is no event from {cutoff} to {dates.truth_end(cutoff)} to compare lists with; check the date and the split"
            )
        sums = evaluation.metric_sums(lists, truth, models, config.evaluation.k, known_users.count())
        return evaluation.with_intervals(sums.toPandas(), config.evaluation.confidence)


def _truth(
    config: Config, events: DataFrame, known_users: DataFrame, item_users: DataFrame, cutoff: date, dates: SplitDates
) -> DataFrame:
    after = events_between(events, cutoff, dates.truth_end(cutoff)).select(USER_ID, ITEM_ID).distinct()
    before = events_before(events, cutoff).select(USER_ID, ITEM_ID).distinct()
    discovered = after.join(before, on=[USER_ID, ITEM_ID], how="left_anti")
    truth = after.withColumn(TASK, F.lit(Task.NEXT)).unionByName(discovered.withColumn(TASK, F.lit(Task.DISCOVERY)))
    truth = truth.where(F.col(TASK).isin(list(config.recommend.tasks)))
    truth = truth.join(known_users.withColumn(evaluation.IS_WARM_USER, F.lit(True)), on=USER_ID, how="left")
    return truth.join(item_users.select(ITEM_ID, F.lit(True).alias(evaluation.IS_WARM_ITEM)), on=ITEM_ID, how="left")


def _categories(spark: SparkSession, config: Config) -> DataFrame:
    if not tables.table_exists(spark, config, "items"):
        return spark.createDataFrame([], f"{ITEM_ID} string, {CATEGORY} string")
    return tables.read_table(spark, config, "items", made_by="ingest_items").select(ITEM_ID, CATEGORY)


def _list_counts(recommendations: DataFrame, k: int) -> dict[tuple[str, str], np.ndarray]:
    rows = evaluation.list_counts(recommendations, k).toPandas()
    return {
        (str(task), str(model)): np.repeat(group["times_listed"].to_numpy(), group["num_items"].to_numpy())
        for (task, model), group in rows.groupby([TASK, MODEL])
    }


def _item_event_counts(spark: SparkSession, config: Config, cutoff: date) -> np.ndarray:
    counts = tables.read_cutoff(spark, config, cutoff).groupBy(ITEM_ID).agg(F.sum(COUNT).alias(COUNT))
    return counts.select(COUNT).toArrow()[COUNT].to_numpy()


def _larger_catalogues(spark: SparkSession, config: Config, cutoff: date) -> dict[str, int]:
    """How many items the models can list that list cold items beside those of the interactions."""
    interactions = tables.read_cutoff(spark, config, cutoff)
    models = [model for model in config.recommend.models if model in LISTS_COLD_ITEMS]
    return {model: read_catalogue(spark, config, interactions, [model], cutoff).count() for model in models}


def _catalogue_rows(config: Config, counts: dict[tuple[str, str], np.ndarray], sizes: dict[str, int]) -> pd.DataFrame:
    for (task, model), times_listed in counts.items():
        if len(times_listed) > sizes[model]:
            raise DataError(
                f"the {task} lists of {model} hold {len(times_listed)} items, the interactions of their date only {sizes[model]}: "
                "the interactions were built anew since; run the training jobs and jobs/recommend.py again"
            )
    rows = [
        (task, model, "all", metric, config.evaluation.k[0], value, np.nan, np.nan, 0)
        for (task, model), times_listed in counts.items()
        for metric, value in evaluation.catalogue_metrics(times_listed, sizes[model]).items()
    ]
    return pd.DataFrame(rows, columns=[*_METRICS_KEY, VALUE, CI_LOW, CI_HIGH, NUM_USERS])


def _in_model_order(metrics_pdf: pd.DataFrame, config: Config) -> pd.DataFrame:
    order = {name: number for number, name in enumerate((*config.recommend.tasks, *config.recommend.models))}
    return metrics_pdf.sort_values(_METRICS_KEY, key=lambda column: column.map(order) if column.name in (TASK, MODEL) else column,
                                   ignore_index=True)  # fmt: skip


def _table_versions(spark: SparkSession, config: Config) -> dict[str, int]:
    names = ("events", "items", "interactions", "recommendations")
    return {
        name: tables.delta_version(spark, config, name) for name in names if tables.table_exists(spark, config, name)
    }


def _example(
    spark: SparkSession, config: Config, events: DataFrame, recommendations: DataFrame, cutoff: date, dates: SplitDates
) -> ExampleUser | None:
    if config.evaluation.example_user is None:
        return None
    return example_user(
        config.evaluation.example_user, events_before(events, cutoff), events_between(events, cutoff, dates.truth_end(cutoff)),
        recommendations, _labels(spark, config), config.evaluation.k[0],
    )  # fmt: skip


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
        tracking.log_model_run(config, run_id, str(model), flatten_config(without_secrets(config)), values)
    everything = {
        f"{row[TASK]}.{row[MODEL]}.{row[METRIC]}_at_{row[K]}": float(row[VALUE]) for row in main.to_dict("records")
    }
    ingested = {
        f"ingest.{feed}.{name}": value
        for feed, counts in results.conservation.items()
        for name, value in counts.items()
    }
    tracking.finish_run(
        config, run_id, everything | ingested, {"report.html": report, "config.yaml": results.config_yaml}
    )
    metric_rows = spark.createDataFrame(results.metrics_pdf).withColumns({
        RUN_ID: F.lit(run_id), PROTOCOL: F.lit(GLOBAL_TIME_SPLIT), RUN_DATE: F.lit(results.run_date),
    })  # fmt: skip
    # by task too: the lists of one task may have been made anew since
    versions = recommendations.select(TASK, MODEL, MODEL_VERSION).distinct()
    named = metric_rows.join(versions, on=[TASK, MODEL], how="inner")
    return tables.replace_partition(spark, config, "metrics", named, {RUN_DATE: results.run_date})
