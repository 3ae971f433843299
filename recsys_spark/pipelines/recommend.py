"""Trained models -> top-K lists of every user, task and model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.columns import (
    IS_FALLBACK,
    ITEM_ID,
    MODEL,
    MODEL_VERSION,
    NEIGHBOUR_ID,
    NEIGHBOUR_USER_ID,
    RUN_DATE,
    SIMILARITY,
    TASK,
    USER_ID,
    USER_IDX,
    VALUE,
    VECTOR,
    WEIGHT,
    Task,
)
from recsys_spark.config import Config
from recsys_spark.config_neighbours import WeightScale
from recsys_spark.data.interactions import counted_events, scaled_weight
from recsys_spark.data.split import count_events_per_day, events_before, split_dates
from recsys_spark.errors import ModelError
from recsys_spark.infra import tables
from recsys_spark.infra.catalogue import LISTS_COLD_ITEMS, read_catalogue
from recsys_spark.infra.session import arrow_batches_of, persisted
from recsys_spark.log import log_step
from recsys_spark.models import recommend as engine
from recsys_spark.models.again import recommend_again
from recsys_spark.models.joined_lists import recommend_by_join
from recsys_spark.models.popular import same_vector_for
from recsys_spark.models.top_k import rows_per_block
from recsys_spark.models.version import model_version

_BYTES_PER_VALUE = 12  # of a sparse matrix of float64
_MAX_BATCH_BYTES = 64 * 2**20

_Lists = tuple[DataFrame, str]  # the lists (user_id, item_id, score, rank) and the model's version


class _Size(NamedTuple):
    num_values: int
    num_rows: int


@dataclass(frozen=True)
class _Inputs:
    """What every model needs, read once."""

    events: DataFrame
    interactions: DataFrame
    user_index: DataFrame  # user_id, user_idx
    users: DataFrame  # user_id of everybody who gets lists
    seen: DataFrame  # user_id, seen (positions)
    item_ids: list[str]
    positions: DataFrame
    cutoff: date


def recommend(spark: SparkSession, config: Config, run_date: date | None = None) -> dict[str, float]:
    """Replace the lists of one date (null: the split's test_start) for the configured tasks and models.

    Every user of the user index gets lists; whom a model does not know gets recommend.fallback with is_fallback = true.
    `again` recommends only what the user had, so it has no lists for discovery. Gives the number of rows by task.model.
    """
    events = tables.read_table(spark, config, "events", made_by="ingest_events")
    cutoff = run_date or split_dates(count_events_per_day(events), config.split).test_start
    events = counted_events(events, config.interactions)
    counts: dict[str, float] = {}
    is_cold = [model in LISTS_COLD_ITEMS for model in config.recommend.models]
    for wants_cold in sorted(set(is_cold)):  # a model that lists items without interactions has a catalogue of its own
        models = [model for model, cold in zip(config.recommend.models, is_cold, strict=True) if cold == wants_cold]
        counts |= _recommend_from(spark, config, events, cutoff, models)
    return counts


def _recommend_from(
    spark: SparkSession, config: Config, events: DataFrame, cutoff: date, models: Sequence[str]
) -> dict[str, float]:
    """Write the lists of models that share a catalogue."""
    interactions = tables.read_cutoff(spark, config, cutoff)
    user_index = tables.read_table(spark, config, "user_index", made_by="build_interactions")
    item_ids = engine.collect_catalogue(read_catalogue(spark, config, interactions, models, cutoff))
    positions = engine.catalogue_positions(spark, item_ids)
    counts: dict[str, float] = {}
    with persisted(_seen_positions(events_before(events, cutoff), positions)) as seen:
        users = user_index.select(USER_ID)
        inputs = _Inputs(events, interactions, user_index, users, seen, item_ids, positions, cutoff)
        for task in config.recommend.tasks:
            for model in models:
                if task == Task.DISCOVERY and model == "again":
                    continue
                with log_step("recommend", task=task, model=model) as facts:
                    facts["rows"] = counts[f"{task}.{model}"] = _write_lists(spark, config, inputs, task, model)
    return counts


def _write_lists(spark: SparkSession, config: Config, inputs: _Inputs, task: str, model: str) -> int:
    masked = inputs.seen if task == Task.DISCOVERY else inputs.seen.limit(0)
    lists, version = _lists_of(spark, config, inputs, masked, model)
    with persisted(lists) as own:
        unknown = inputs.users.join(own.select(USER_ID).distinct(), on=USER_ID, how="left_anti")
        fallback, _ = _popularity_lists(spark, config, inputs, unknown, masked, config.recommend.fallback)
        rows = own.withColumn(IS_FALLBACK, F.lit(False)).unionByName(fallback.withColumn(IS_FALLBACK, F.lit(True)))
        rows = rows.withColumns({
            MODEL: F.lit(model), MODEL_VERSION: F.lit(version), RUN_DATE: F.lit(inputs.cutoff), TASK: F.lit(task),
        })  # fmt: skip
        partition: dict[str, str | date] = {RUN_DATE: inputs.cutoff, TASK: task, MODEL: model}
        return tables.replace_partition(spark, config, "recommendations", rows, partition)


def _lists_of(spark: SparkSession, config: Config, inputs: _Inputs, masked: DataFrame, model: str) -> _Lists:
    if model in ("popular", "popular_recent"):
        return _popularity_lists(spark, config, inputs, inputs.users, masked, model)
    own = {
        "again": _again_lists,
        "neighbours": _neighbour_lists,
        "user_neighbours": _user_neighbour_lists,
        "ease": _ease_lists,
    }
    if model in own:
        return own[model](spark, config, inputs, masked)
    return _factor_lists(spark, config, inputs, masked, model)


def _again_lists(spark: SparkSession, config: Config, inputs: _Inputs, masked: DataFrame) -> _Lists:
    version = model_version(
        "again",
        inputs.cutoff,
        tables.delta_version(spark, config, "events"),
        config.again,
        config.interactions,
        config.cleaning,
    )
    # only pairs that are interactions: nothing of users who are treated as unknown
    had = inputs.interactions.select(USER_ID, ITEM_ID)
    events, catalogue = (
        inputs.events.join(had, on=[USER_ID, ITEM_ID], how="left_semi"),
        inputs.positions.select(ITEM_ID),
    )
    return recommend_again(events, catalogue, config.again, inputs.cutoff, config.recommend.k), version


def _factor_lists(spark: SparkSession, config: Config, inputs: _Inputs, masked: DataFrame, model: str) -> _Lists:
    user_vectors, version = tables.read_model(spark, config, "user_vectors", model, inputs.cutoff)
    item_vectors, items_version = tables.read_model(spark, config, "item_vectors", model, inputs.cutoff)
    if version != items_version:
        raise ModelError(
            f"user vectors {version} and item vectors {items_version} of {model} do not belong together: a training run was "
            f"interrupted; run jobs/train_{model}.py --date {inputs.cutoff} again"
        )
    users = user_vectors.select(USER_ID, VECTOR).join(masked, on=USER_ID, how="left")
    return _vector_lists(spark, config, inputs, users, item_vectors), version


def _popularity_lists(
    spark: SparkSession, config: Config, inputs: _Inputs, users: DataFrame, masked: DataFrame, model: str
) -> _Lists:
    item_vectors, version = tables.read_model(spark, config, "item_vectors", model, inputs.cutoff)
    with_seen = same_vector_for(users).join(masked, on=USER_ID, how="left")
    return _vector_lists(spark, config, inputs, with_seen, item_vectors), version


def _vector_lists(
    spark: SparkSession, config: Config, inputs: _Inputs, users: DataFrame, item_vectors: DataFrame
) -> DataFrame:
    items = spark.sparkContext.broadcast(engine.collect_item_matrix(item_vectors, inputs.item_ids))
    return engine.recommend_by_vectors(users, items, config.recommend.k, config.recommend.max_block_bytes)


def _neighbour_lists(spark: SparkSession, config: Config, inputs: _Inputs, masked: DataFrame) -> _Lists:
    neighbours, version = tables.read_model(spark, config, "item_neighbours", "neighbours", inputs.cutoff)
    of_item = inputs.positions.withColumnRenamed(engine.POSITION, engine.VIA)
    of_neighbour = inputs.positions.withColumnRenamed(ITEM_ID, NEIGHBOUR_ID)
    similar = neighbours.join(of_item, on=ITEM_ID, how="inner").join(of_neighbour, on=NEIGHBOUR_ID, how="inner")
    evidence = similar.select(engine.VIA, engine.POSITION, F.col(SIMILARITY).alias(VALUE))
    histories = _histories(inputs, "log")
    size = _Size(neighbours.count(), len(inputs.item_ids))
    return _evidence_lists(spark, config, inputs, masked, histories, evidence, size), version


def _user_neighbour_lists(spark: SparkSession, config: Config, inputs: _Inputs, masked: DataFrame) -> _Lists:
    neighbours, version = tables.read_model(spark, config, "user_neighbours", "user_neighbours", inputs.cutoff)
    numbers = inputs.user_index.select(F.col(USER_ID).alias(NEIGHBOUR_USER_ID), F.col(USER_IDX).alias(engine.VIA))
    histories = neighbours.join(numbers, on=NEIGHBOUR_USER_ID, how="inner").select(
        USER_ID, engine.VIA, F.col(SIMILARITY).alias(WEIGHT)
    )
    weights = inputs.interactions.join(inputs.positions, on=ITEM_ID, how="inner")
    weights = weights.join(inputs.user_index.withColumnRenamed(USER_IDX, engine.VIA), on=USER_ID, how="inner")
    evidence = weights.select(engine.VIA, engine.POSITION, scaled_weight("log").cast("float").alias(VALUE))
    size = _Size(inputs.interactions.count(), inputs.user_index.count())  # the index has no gaps
    return _evidence_lists(spark, config, inputs, masked, histories, evidence, size), version


def _ease_lists(spark: SparkSession, config: Config, inputs: _Inputs, masked: DataFrame) -> _Lists:
    item_vectors, version = tables.read_model(spark, config, "item_vectors", "ease", inputs.cutoff)
    with arrow_batches_of(spark, rows_per_block(len(inputs.item_ids), _MAX_BATCH_BYTES)):
        weights = engine.collect_item_weights(item_vectors, inputs.item_ids)
    shared = spark.sparkContext.broadcast((inputs.item_ids, weights))
    users = engine.with_arrays(_histories(inputs, config.ease.weight_scale), masked)
    return engine.recommend_by_item_weights(
        users, shared, config.recommend.k, config.recommend.max_block_bytes
    ), version


def _histories(inputs: _Inputs, scale: WeightScale) -> DataFrame:
    had = inputs.interactions.join(inputs.positions, on=ITEM_ID, how="inner")
    weight = scaled_weight(scale).cast("float").alias(WEIGHT)
    return had.select(USER_ID, F.col(engine.POSITION).alias(engine.VIA), weight)


def _evidence_lists(
    spark: SparkSession, config: Config, inputs: _Inputs, masked: DataFrame, histories: DataFrame, evidence: DataFrame, size: _Size
) -> DataFrame:  # fmt: skip
    """Make the lists of neighbours: in the workers while the evidence fits there, else by a join. Both give the same."""
    k = config.recommend.k
    if size.num_values * _BYTES_PER_VALUE > config.recommend.max_broadcast_bytes:
        return recommend_by_join(histories, evidence, masked, inputs.positions, k)
    matrix = engine.collect_evidence(evidence, size.num_rows, len(inputs.item_ids))
    shared = spark.sparkContext.broadcast((inputs.item_ids, matrix))
    users = engine.with_arrays(histories, masked)
    return engine.recommend_by_neighbours(users, shared, k, config.recommend.max_block_bytes)


def _seen_positions(past_events: DataFrame, positions: DataFrame) -> DataFrame:
    """Everything a user had, also what interactions leave out, so that discovery never shows it again."""
    had = past_events.join(positions, on=ITEM_ID, how="inner")
    return had.groupBy(USER_ID).agg(F.array_sort(F.collect_set(engine.POSITION)).alias(engine.SEEN))
