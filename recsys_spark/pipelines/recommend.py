"""Trained models -> top-K lists of every user, task and model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import date
from typing import NamedTuple

from pyspark import Broadcast
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.columns import (
    CATEGORY,
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
from recsys_spark.errors import DataError, ModelError
from recsys_spark.infra import tables
from recsys_spark.infra.catalogue import LISTS_COLD_ITEMS, read_catalogue
from recsys_spark.infra.session import arrow_batches_of, persisted
from recsys_spark.infra.user_rows import not_erased
from recsys_spark.log import log_step
from recsys_spark.models import recommend as engine
from recsys_spark.models.again import recommend_again
from recsys_spark.models.approximate import RECALL_K, IndexRecall, build_index
from recsys_spark.models.category_cap import NO_CATEGORY, CategoryCap
from recsys_spark.models.joined_lists import recommend_by_join
from recsys_spark.models.popular import same_vector_for
from recsys_spark.models.top_k import rows_per_block
from recsys_spark.models.version import model_version

_WITHOUT_INDEX = ("popular", "popular_recent", "again", "neighbours", "user_neighbours", "ease")
"""Models that do not compare a vector of each user with vectors of items."""
_BYTES_PER_VALUE = 12  # of a sparse matrix of float64
_MAX_BATCH_BYTES = 64 * 2**20

_Lists = tuple[DataFrame, str]  # the lists (user_id, item_id, score, rank) and the model's version


class _Size(NamedTuple):
    num_values: int
    num_rows: int


@dataclass(frozen=True)
class _Inputs:
    """What models that share a catalogue need, read once."""

    models: Sequence[str]
    events: DataFrame
    interactions: DataFrame
    user_index: DataFrame  # user_id, user_idx
    users: DataFrame  # user_id of everybody who gets lists
    seen: DataFrame  # user_id, seen (positions)
    item_ids: list[str]
    positions: DataFrame  # item_id, position
    catalogue: DataFrame  # the same; with a cap per category also category
    cutoff: date
    cap: Broadcast[CategoryCap] | None
    fallback: Broadcast[engine.ItemMatrix]  # of the model for users whom another one does not know
    indexes: dict[str, str] = field(default_factory=dict)  # model -> file of its approximate index


def recommend(spark: SparkSession, config: Config, run_date: date | None = None) -> dict[str, float]:
    """Replace the lists of one date (null: the split's test_start) for the configured tasks and models.

    Every user of the user index who was not erased gets lists; whom a model does not know gets recommend.fallback with is_fallback = true.
    `again` recommends only what the user had, so it has no lists for discovery. Gives the number of rows by task.model.
    """
    events = tables.read_table(spark, config, "events", made_by="ingest_events")
    cutoff = run_date or split_dates(count_events_per_day(events), config.split).test_start
    events = counted_events(events, config.interactions)
    counts: dict[str, float] = {}
    is_cold = [model in LISTS_COLD_ITEMS for model in config.recommend.models]
    with ExitStack() as kept:
        groups = []
        for wants_cold in sorted(
            set(is_cold)
        ):  # a model that lists items without interactions has a catalogue of its own
            models = [model for model, cold in zip(config.recommend.models, is_cold, strict=True) if cold == wants_cold]
            groups.append(_read_inputs(spark, config, events, cutoff, models, kept))
        if config.recommend.index == "approximate":  # all before any list is written: a bad one stops the job
            groups = [replace(inputs, indexes=_checked_indexes(spark, config, inputs)) for inputs in groups]
        for inputs in groups:
            counts |= _write_all(spark, config, inputs)
    return counts


def _read_inputs(
    spark: SparkSession, config: Config, events: DataFrame, cutoff: date, models: Sequence[str], kept: ExitStack
) -> _Inputs:
    interactions = tables.read_cutoff(spark, config, cutoff)
    user_index = not_erased(tables.read_table(spark, config, "user_index", made_by="build_interactions"))
    item_ids = engine.collect_catalogue(read_catalogue(spark, config, interactions, models, cutoff))
    positions = engine.catalogue_positions(spark, item_ids)
    catalogue, cap = positions, None
    if config.recommend.max_per_category is not None:
        items = tables.read_table(spark, config, "items", made_by="ingest_items").select(ITEM_ID, CATEGORY)
        catalogue = positions.join(items, on=ITEM_ID, how="left")
        cap = _category_cap(spark, catalogue, item_ids, config.recommend.max_per_category)
    seen = kept.enter_context(persisted(_seen_positions(events_before(events, cutoff), positions)))
    users = user_index.select(USER_ID)
    vectors, _ = tables.read_model(spark, config, "item_vectors", config.recommend.fallback, cutoff)
    fallback = _shared_matrix(spark, vectors, item_ids)
    return _Inputs(
        models, events, interactions, user_index, users, seen, item_ids, positions, catalogue, cutoff, cap, fallback
    )


def _write_all(spark: SparkSession, config: Config, inputs: _Inputs) -> dict[str, float]:
    counts: dict[str, float] = {}
    for task in config.recommend.tasks:
        for model in inputs.models:
            if task == Task.DISCOVERY and model == "again":
                continue
            with log_step("recommend", task=task, model=model) as facts:
                facts["rows"] = counts[f"{task}.{model}"] = _write_lists(spark, config, inputs, task, model)
    return counts


def _write_lists(spark: SparkSession, config: Config, inputs: _Inputs, task: str, model: str) -> int:
    masked = _masked(inputs, task)
    lists, version = _lists_of(spark, config, inputs, masked, model)
    with persisted(lists) as own:
        unknown = inputs.users.join(own.select(USER_ID).distinct(), on=USER_ID, how="left_anti")
        fallback = _lists_by_popularity(config, inputs, unknown, masked, inputs.fallback)
        rows = own.withColumn(IS_FALLBACK, F.lit(False)).unionByName(fallback.withColumn(IS_FALLBACK, F.lit(True)))
        rows = rows.withColumns({
            MODEL: F.lit(model), MODEL_VERSION: F.lit(version), RUN_DATE: F.lit(inputs.cutoff), TASK: F.lit(task),
        })  # fmt: skip
        partition: dict[str, str | date] = {RUN_DATE: inputs.cutoff, TASK: task, MODEL: model}
        return tables.replace_partition(spark, config, "recommendations", rows, partition)


def _masked(inputs: _Inputs, task: str) -> DataFrame:
    return inputs.seen if task == Task.DISCOVERY else inputs.seen.limit(0)


def _lists_of(spark: SparkSession, config: Config, inputs: _Inputs, masked: DataFrame, model: str) -> _Lists:
    if model in ("popular", "popular_recent"):
        return _popularity_lists(spark, config, inputs, masked, model)
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
        inputs.catalogue,
    )
    k, limit = config.recommend.k, config.recommend.max_per_category
    return recommend_again(events, catalogue, config.again, inputs.cutoff, k, limit), version


def _factor_lists(spark: SparkSession, config: Config, inputs: _Inputs, masked: DataFrame, model: str) -> _Lists:
    user_vectors, item_vectors, version = _vectors_of(spark, config, inputs, model)
    users = user_vectors.join(masked, on=USER_ID, how="left")
    items = _shared_matrix(spark, item_vectors, inputs.item_ids)
    return _vector_lists(config, inputs, users, items, inputs.indexes.get(model)), version


def _vectors_of(spark: SparkSession, config: Config, inputs: _Inputs, model: str) -> tuple[DataFrame, DataFrame, str]:
    user_vectors, version = tables.read_model(spark, config, "user_vectors", model, inputs.cutoff)
    item_vectors, items_version = tables.read_model(spark, config, "item_vectors", model, inputs.cutoff)
    if version != items_version:
        raise ModelError(
            f"user vectors {version} and item vectors {items_version} of {model} do not belong together: a training run was "
            f"interrupted; run jobs/train_{model}.py --date {inputs.cutoff} again"
        )
    return user_vectors.select(USER_ID, VECTOR), item_vectors, version


def _popularity_lists(spark: SparkSession, config: Config, inputs: _Inputs, masked: DataFrame, model: str) -> _Lists:
    item_vectors, version = tables.read_model(spark, config, "item_vectors", model, inputs.cutoff)
    items = _shared_matrix(spark, item_vectors, inputs.item_ids)
    return _lists_by_popularity(config, inputs, inputs.users, masked, items), version


def _lists_by_popularity(
    config: Config, inputs: _Inputs, users: DataFrame, masked: DataFrame, items: Broadcast[engine.ItemMatrix]
) -> DataFrame:
    with_seen = same_vector_for(users).join(masked, on=USER_ID, how="left")
    return _vector_lists(config, inputs, with_seen, items)


def _vector_lists(
    config: Config,
    inputs: _Inputs,
    users: DataFrame,
    items: Broadcast[engine.ItemMatrix],
    index_file: str | None = None,
) -> DataFrame:
    k, max_block_bytes = config.recommend.k, config.recommend.max_block_bytes
    if index_file is None:
        return engine.recommend_by_vectors(users, items, k, max_block_bytes, inputs.cap)
    overfetch = config.approximate.overfetch
    return engine.recommend_by_index(users, items, index_file, k, overfetch, max_block_bytes, inputs.cap)


def _shared_matrix(spark: SparkSession, item_vectors: DataFrame, item_ids: list[str]) -> Broadcast[engine.ItemMatrix]:
    return spark.sparkContext.broadcast(engine.collect_item_matrix(item_vectors, item_ids))


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
    limits = config.recommend
    return engine.recommend_by_item_weights(users, shared, limits.k, limits.max_block_bytes, inputs.cap), version


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
        return recommend_by_join(histories, evidence, masked, inputs.catalogue, k, config.recommend.max_per_category)
    matrix = engine.collect_evidence(evidence, size.num_rows, len(inputs.item_ids))
    shared = spark.sparkContext.broadcast((inputs.item_ids, matrix))
    users = engine.with_arrays(histories, masked)
    return engine.recommend_by_neighbours(users, shared, k, config.recommend.max_block_bytes, inputs.cap)


def _checked_indexes(spark: SparkSession, config: Config, inputs: _Inputs) -> dict[str, str]:
    """Build and share the index of every model with vectors; ModelError when one misses too much of the exact lists."""
    files: dict[str, str] = {}
    for model in inputs.models:
        if model in _WITHOUT_INDEX:
            continue
        with log_step("build_index", model=model) as facts:
            user_vectors, item_vectors, version = _vectors_of(spark, config, inputs, model)
            items = engine.collect_item_matrix(item_vectors, inputs.item_ids)
            index = build_index(items.vectors, items.excluded, config.approximate)
            facts["items"], facts["cells"] = index.ntotal, index.nlist
            for task in config.recommend.tasks:
                users = user_vectors.join(_masked(inputs, task), on=USER_ID, how="left")
                measured = engine.measure_index(
                    users, items, index, config, None if inputs.cap is None else inputs.cap.value
                )
                facts[f"{task}_recall_at_{RECALL_K}"] = round(measured.recall, 4)
                facts[f"{task}_exact_share"] = round(measured.exact_share, 4)
                _check_recall(config, measured, f"{model} ({task})")
            files[model] = engine.share_index(spark, index, version)
    return files


def _check_recall(config: Config, measured: IndexRecall, what: str) -> None:
    settings = config.approximate
    if measured.recall < settings.min_recall:
        raise ModelError(
            f"the approximate index of {what} finds {measured.recall:.4f} of the exact first {RECALL_K} items of "
            f"{measured.num_users} users, expected approximate.min_recall = {settings.min_recall} or more; no list was written; "
            f"raise approximate.probes (now {settings.probes}) or set recommend.index to exact"
        )


def _category_cap(spark: SparkSession, catalogue: DataFrame, item_ids: list[str], limit: int) -> Broadcast[CategoryCap]:
    cap = engine.collect_category_cap(catalogue, item_ids, limit)
    if (cap.categories == NO_CATEGORY).all():
        raise DataError(
            f"recommend.max_per_category is {limit}, but none of the {len(item_ids)} items of the catalogue has a category in "
            "the items table; map sources.items.columns.category and run jobs/ingest_items.py, or set it to null"
        )
    return spark.sparkContext.broadcast(cap)


def _seen_positions(past_events: DataFrame, positions: DataFrame) -> DataFrame:
    """Everything a user had, also what interactions leave out, so that discovery never shows it again."""
    had = past_events.join(positions, on=ITEM_ID, how="inner")
    return had.groupBy(USER_ID).agg(F.array_sort(F.collect_set(engine.POSITION)).alias(engine.SEEN))
