"""`recsys evaluate`: lists of any origin against truth, from Parquet, CSV or Delta tables, without a configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

import pandas as pd
from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.columns import CATEGORY, COUNT, FIRST_TIMESTAMP, ITEM_ID, METRIC, MODEL, RANK, SLICE, TASK, USER_ID
from recsys_spark.config_evaluation import EvaluationConfig
from recsys_spark.errors import ConfigError, DataError
from recsys_spark.evaluation.given_lists import (
    GivenColumns,
    check_lists,
    common_forms,
    given_categories,
    given_lists,
    given_pairs,
    ranked_lists,
)
from recsys_spark.evaluation.known import collect_known, item_stats, user_stats
from recsys_spark.evaluation.measure import Before, Measurement, measure
from recsys_spark.evaluation.slices import slice_limits, slice_truth
from recsys_spark.evaluation.summary import all_metrics_table, metrics_table, slices_table
from recsys_spark.evaluation.sums import comparisons_pdf
from recsys_spark.infra.given_tables import is_there, read_given_table, unreadable_explained
from recsys_spark.infra.session import persisted
from recsys_spark.log import log_step

_NAMED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)
_ENDINGS = re.compile(r"(\.(parquet|csv|tsv|txt|gz|bz2|zst|snappy))+$", re.IGNORECASE)


@dataclass(frozen=True)
class GivenTables:
    """Addresses of the tables (paths, globs or names in the catalog) and how to read them."""

    recommendations: tuple[str, ...]
    """One or several; `NAME=ADDRESS` names the model of a table without a model column."""
    truth: str
    train: str | None = None
    """What users had before: the ground of novelty, coverage, calibration and slices."""
    items: str | None = None
    """Categories of items: the ground of diversity and, with train, of calibration and slices by category."""
    columns: GivenColumns = field(default_factory=GivenColumns)
    delimiter: str | None = None
    where: str | None = None
    """SQL over the recommendations' own columns; other rows are left out."""

    def addresses(self) -> list[str]:
        """Give every address as it was written."""
        return [*self.recommendations, *(name for name in (self.truth, self.train, self.items) if name)]


@dataclass(frozen=True)
class FilesResult:
    """What `evaluate_files` found."""

    task: str
    config: EvaluationConfig
    measurement: Measurement
    notices: tuple[str, ...]

    def as_text(self) -> str:
        """Give tables for a terminal."""
        metrics_pdf, k = self.measurement.metrics_pdf, self.config.k[0]
        pairs = self.measurement.comparisons.get(self.task, ())
        parts = [metrics_table(metrics_pdf, self.task, k, pairs, self.config.confidence)]
        parts.append(all_metrics_table(metrics_pdf, self.task))
        if metrics_pdf[SLICE].nunique() > 1:
            parts.append(slices_table(metrics_pdf, self.task, k))
        if self.notices:
            parts.append("\n".join(f"- {notice}" for notice in self.notices))
        return "\n\n".join(parts)

    def as_json(self) -> str:
        """Give one JSON object: k, confidence, metrics (a list of rows), comparisons (a list of rows), notices."""
        found = {
            "k": list(self.config.k),
            "confidence": self.config.confidence,
            "metrics": _records(self.measurement.metrics_pdf.drop(columns=TASK)),
            "comparisons": _records(comparisons_pdf(self.measurement.comparisons).drop(columns=TASK)),
            "notices": list(self.notices),
        }
        return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)


def evaluate_files(spark: SparkSession, given: GivenTables, config: EvaluationConfig) -> FilesResult:
    """Measure the given lists against the given truth.

    DataError and SchemaError say what cannot be measured; what can, and still deserves a look, stands in the notices.
    """
    with unreadable_explained(given.addresses()), log_step("evaluate_files", lists=len(given.recommendations)) as facts:
        task = _stem(given.truth)
        lists, models = _read_lists(spark, given, task)
        pairs = given_pairs(read_given_table(spark, given.truth, given.delimiter), given.columns, given.truth)
        with persisted(lists) as recommendations, persisted(pairs.distinct()) as pairs:
            notices = _check_truth(pairs, recommendations, given, models)
            truth_rows = pairs.where(F.col(ITEM_ID).isNotNull()).withColumn(TASK, F.lit(task))
            categories = None
            if given.items is not None:
                items = read_given_table(spark, given.items, given.delimiter)
                categories = given_categories(items, given.columns, given.items)
                notices += _without_category(recommendations, categories, given.items, models, config.k[0])
            if given.train is None:
                empty = spark.createDataFrame([], f"{USER_ID} string, {ITEM_ID} string, {COUNT} long")
                truth = slice_truth(truth_rows, None)
                found = measure(recommendations, truth, item_stats(empty, categories), None, models, config)
            else:
                found, more = _measure_with_train(spark, given, recommendations, truth_rows, categories, models, config)
                notices += more
        facts["models"] = len(models)
    shown = replace(found, metrics_pdf=_without_meaningless(found.metrics_pdf, given))
    return FilesResult(task, config, shown, tuple(notices))


def _read_lists(spark: SparkSession, given: GivenTables, task: str) -> tuple[DataFrame, list[str]]:
    """Ranked lists of every table, and the models in their order."""
    parts: list[DataFrame] = []
    models: list[str] = []
    for written in given.recommendations:
        name, address = _named(spark, written)
        table = read_given_table(spark, address, given.delimiter)
        table = _chosen(table, given.where, address)
        columns = {column.lower() for column in table.columns}
        lists = given_lists(table, given.columns, name, address)
        has_rank, has_score = (column.lower() in columns for column in (given.columns.rank, given.columns.score))
        own = check_lists(lists, has_rank, has_score, address)
        twice = sorted(set(own) & set(models))
        if twice:
            raise ConfigError(
                f"{address}: the model {twice[0]!r} is in another table too; name tables as NAME={address}"
            )
        models += own
        parts.append(ranked_lists(lists, task))
    return reduce(DataFrame.unionByName, parts), models


def _chosen(table: DataFrame, where: str | None, address: str) -> DataFrame:
    if where is None:
        return table
    try:
        return table.where(where)
    except (AnalysisException, ParseException) as error:
        raise ConfigError(
            f"--where: expected a condition of Spark SQL over the columns of {address}, {table.columns}; found {where!r}: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _check_truth(pairs: DataFrame, recommendations: DataFrame, given: GivenTables, models: Sequence[str]) -> list[str]:
    """Raise DataError where nothing can be compared; say whose lists or truth do not count. Runs Spark jobs."""
    has_item = F.col(ITEM_ID).isNotNull()
    users = pairs.groupBy(USER_ID).agg(F.max(has_item).alias("_has_truth"))
    without_user = F.count_if(F.col(USER_ID).isNull())
    counts = users.agg(without_user, F.count_if("_has_truth"), F.count_if(~F.col("_has_truth"))).collect()[0]
    nameless, num_users, num_empty = (int(number) for number in counts)
    if nameless:
        raise DataError(f"{given.truth}: there are rows without a user; correct them or leave them out")
    if not num_users:
        raise DataError(f"{given.truth}: expected users with items, found {num_empty:,} users without any")
    listed = recommendations.select(MODEL, USER_ID).distinct()
    with_truth = listed.join(users.where("_has_truth"), on=USER_ID, how="left")
    rows = with_truth.groupBy(MODEL).agg(F.count("*"), F.count("_has_truth")).collect()
    found = {row[MODEL]: (row[1], row[2]) for row in rows}
    if not any(both for _, both in found.values()):
        raise DataError(
            f"no user of {given.truth} has a list: users there look like {common_forms(pairs, USER_ID)}, in the recommendations "
            f"like {common_forms(recommendations, USER_ID)} (9: digits, a: letters); write the ids alike"
        )
    notices = [f"users without any item in {given.truth}: {num_empty:,}; they do not count"] if num_empty else []
    for model in models:
        listed_users, both = found[model]
        if both < num_users:
            notices.append(
                f"{model}: {num_users - both:,} of {num_users:,} users with truth have no list; they count as 0"
            )
        if both < listed_users:
            notices.append(
                f"{model}: {listed_users - both:,} of {listed_users:,} users with a list have no truth; they do not count"
            )
    if recommendations.join(pairs.select(ITEM_ID), on=ITEM_ID, how="left_semi").isEmpty():
        notices.append(
            f"no listed item is in anybody's truth: items look like {common_forms(pairs.where(has_item), ITEM_ID)} there, like "
            f"{common_forms(recommendations, ITEM_ID)} in the lists"
        )
    return notices


def _without_category(
    recommendations: DataFrame, categories: DataFrame, items: str, models: Sequence[str], k: int
) -> list[str]:
    """Say of each model how many listed items have no category: all of them count as one. Runs a Spark job."""
    listed = recommendations.where(F.col(RANK) <= k).join(categories, on=ITEM_ID, how="left")
    counts = listed.groupBy(MODEL).agg(F.count("*"), F.count(CATEGORY)).collect()
    found = {row[MODEL]: (row[1], row[2]) for row in counts}
    notices = [
        f"{model}: {places - known:,} of {places:,} places in the top {k} ({(places - known) / places:.1%}) hold items without a category "
        f"in {items}; for diversity and calibration they are one category"
        for model in models
        for places, known in [found[model]] if known < places
    ]  # fmt: skip
    if not any(known for _, known in found.values()):
        notices.append(
            f"no listed item has a category: items look like {common_forms(categories, ITEM_ID)} in {items}, like "
            f"{common_forms(recommendations, ITEM_ID)} in the lists (9: digits, a: letters)"
        )
    return notices


def _without_past(truth_rows: DataFrame, interactions: DataFrame, given: GivenTables) -> list[str]:
    """Say how many users with truth had nothing before: they are the slice cold_users. Runs Spark jobs."""
    asked = truth_rows.select(USER_ID).distinct()
    num_users = asked.count()
    cold = num_users - asked.join(interactions.select(USER_ID).distinct(), on=USER_ID, how="left_semi").count()
    if not cold:
        return []
    notice = f"{cold:,} of {num_users:,} users with truth are not in {given.train}: they are the slice cold_users"
    if cold < num_users:
        return [notice]
    return [
        f"{notice}; users look like {common_forms(interactions, USER_ID)} there, like {common_forms(asked, USER_ID)} in {given.truth} "
        "(9: digits, a: letters)"
    ]


def _measure_with_train(
    spark: SparkSession,
    given: GivenTables,
    recommendations: DataFrame,
    truth_rows: DataFrame,
    categories: DataFrame | None,
    models: Sequence[str],
    config: EvaluationConfig,
) -> tuple[Measurement, list[str]]:
    assert given.train is not None
    had = given_pairs(read_given_table(spark, given.train, given.delimiter), given.columns, given.train)
    had = had.where(F.col(USER_ID).isNotNull() & F.col(ITEM_ID).isNotNull())
    interactions = had.groupBy(USER_ID, ITEM_ID).agg(F.count("*").alias(COUNT))
    interactions = interactions.withColumn(FIRST_TIMESTAMP, F.lit(None).cast("timestamp"))
    with persisted(interactions) as interactions, persisted(item_stats(interactions, categories)) as items:
        users = user_stats(interactions)
        known = collect_known(items, users, config.num_categories)
        if not known.user_counts:
            raise DataError(f"{given.train}: expected rows with a user and an item, found none")
        limits = replace(
            slice_limits(known.user_counts, known.item_users, config.heavy_user_share, config.head_share),
            categories=tuple(known.categories),
        )
        rows = truth_rows.join(users, on=USER_ID, how="left").join(items, on=ITEM_ID, how="left")
        before = Before(interactions, known, limits)
        found = measure(recommendations, slice_truth(rows, limits), items, before, models, config)
        top = recommendations.where(F.col(RANK) <= config.k[0])
        seen = top.join(interactions, on=[USER_ID, ITEM_ID], how="left_semi").groupBy(MODEL).count().collect()
        notices = _without_past(truth_rows, interactions, given)
    num_seen = {row[MODEL]: row["count"] for row in seen}
    for (_, model), profile in found.profiles.items():
        places = sum(profile.places_by_item_users.values())
        for number, what in (
            (num_seen.get(model, 0), f"items that their user had in {given.train}"),
            (
                profile.places_by_item_users.get(0, 0),
                f"items that nobody had in {given.train}; coverage leaves them out",
            ),
        ):
            if number:
                notices.append(
                    f"{model}: {number:,} of {places:,} places in the top {config.k[0]} ({number / places:.1%}) hold {what}"
                )
    return found, notices


def _without_meaningless(metrics_pdf: pd.DataFrame, given: GivenTables) -> pd.DataFrame:
    """Novelty needs a past, diversity and calibration need categories."""
    left_out = [] if given.train else ["novelty"]
    left_out += [] if given.items else ["diversity", "miscalibration"]
    return metrics_pdf[~metrics_pdf[METRIC].isin(left_out)].reset_index(drop=True)


def _named(spark: SparkSession, written: str) -> tuple[str, str]:
    """Model name and address of `NAME=ADDRESS` or `ADDRESS`; a path may have an equals sign of its own."""
    match = _NAMED.fullmatch(written)
    if match is None or is_there(spark, written):
        return _stem(written), written
    return match[1], match[2]


def _stem(address: str) -> str:
    name = _ENDINGS.sub("", address.rstrip("/").rsplit("/", 1)[-1])
    return name or address


def _records(frame: pd.DataFrame) -> list[dict[str, object]]:
    return [
        {str(name): None if pd.isna(value) else value for name, value in row.items()}
        for row in frame.to_dict("records")
    ]
