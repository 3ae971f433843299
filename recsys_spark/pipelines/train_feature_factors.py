"""Interactions and features of items and users -> vectors of users and items, cold ones included."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.columns import ITEM_ID, USER_ID, WEIGHT
from recsys_spark.config import Config
from recsys_spark.data.cleaning import without_robots
from recsys_spark.data.features import FEATURE, item_features, known_items, user_features
from recsys_spark.data.interactions import scaled_weight
from recsys_spark.data.split import count_events_per_day, events_before, split_dates
from recsys_spark.errors import ConfigError, DataError
from recsys_spark.infra import tables
from recsys_spark.log import log_step
from recsys_spark.models.driver import check_driver_memory, vectors_frame
from recsys_spark.models.feature_factors import fit_feature_factors, item_vectors, needed_bytes, user_vectors
from recsys_spark.models.feature_matrix import Side, build_side
from recsys_spark.models.version import model_version

MODEL = "feature_factors"


def train_feature_factors(spark: SparkSession, config: Config, run_date: date | None = None) -> dict[str, float]:
    """Replace the user and item vectors of feature_factors for one cutoff (null: the split's test_start).

    Trained are the interactions' users and items. Items and users without interactions get a vector, too, where they share
    a feature with trained ones; feature_factors.cold_items says whether such items are stored. Raises ConfigError when there
    is no items table to take features from or the driver's memory is too small, DataError for a feature that nothing has,
    and TrainingError for numbers that are not finite; the vectors of the run before are kept then.
    """
    events = tables.read_table(spark, config, "events", made_by="ingest_events")
    cutoff = run_date or split_dates(count_events_per_day(events), config.split).test_start
    interactions = tables.read_cutoff(spark, config, cutoff)
    settings, version = config.feature_factors, _version(spark, config, cutoff)
    with log_step("train_feature_factors", cutoff=cutoff, loss=settings.loss, epochs=settings.epochs) as facts:
        pairs = _collect_pairs(spark, config, interactions)
        users = _side(pairs, USER_ID, _user_features(config, events, cutoff), settings.user_features, settings.user_ids)
        items = _side(
            pairs,
            ITEM_ID,
            _item_features(spark, config, interactions, cutoff),
            settings.item_features,
            settings.item_ids,
        )
        embeddings = fit_feature_factors(users, items, pairs[WEIGHT].to_numpy(), settings)
        user_rows = _vectors_of(spark, USER_ID, users, user_vectors(users.features, embeddings.users))
        item_rows = _vectors_of(spark, ITEM_ID, items, item_vectors(items.features, embeddings.items))
        tables.replace_model(spark, config, "user_vectors", user_rows, MODEL, version, cutoff)
        tables.replace_model(spark, config, "item_vectors", item_rows, MODEL, version, cutoff)
        for name, side in (("users", users), ("items", items)):
            facts[name], facts[f"cold_{name}"] = side.num_warm, len(side.ids) - side.num_warm
    return {name: float(str(value)) for name, value in facts.items()}


def _version(spark: SparkSession, config: Config, cutoff: date) -> str:
    names = ("events", "items") if config.feature_factors.item_features else ("events",)
    versions = tuple(tables.delta_version(spark, config, name) for name in names)
    return model_version(MODEL, cutoff, versions, config.feature_factors, config.interactions, config.cleaning)


def _collect_pairs(spark: SparkSession, config: Config, interactions: DataFrame) -> pa.Table:
    """Bring user_id, item_id, weight to the driver, if training on them fits there."""
    settings = config.feature_factors
    sizes = interactions.agg(F.count("*"), F.count_distinct(USER_ID), F.count_distinct(ITEM_ID)).collect()[0]
    num_rows = sizes[1] + sizes[2]
    if settings.user_features:
        num_rows += tables.read_table(spark, config, "user_index", made_by="build_interactions").count()
    if settings.item_features:
        num_rows += _items(spark, config).count()
    needed = needed_bytes(sizes[0], num_rows, settings)
    knob = "feature_factors.max_driver_bytes"
    check_driver_memory(MODEL, needed, knob, settings.max_driver_bytes, "lower feature_factors.embedding_size")
    scaled = scaled_weight(settings.weight_scale).cast("float").alias(WEIGHT)
    return interactions.select(USER_ID, ITEM_ID, scaled).toArrow()


def _items(spark: SparkSession, config: Config) -> DataFrame:
    if not tables.table_exists(spark, config, "items"):
        raise ConfigError(
            f"feature_factors.item_features names {list(config.feature_factors.item_features)} of the items table, which does "
            "not exist; run jobs/ingest_items.py, or set feature_factors.item_features=[] to learn from ids alone"
        )
    return tables.read_table(spark, config, "items", made_by="ingest_items")


def _item_features(spark: SparkSession, config: Config, interactions: DataFrame, cutoff: date) -> DataFrame | None:
    settings = config.feature_factors
    if not settings.item_features:
        return None
    return item_features(known_items(_items(spark, config), interactions, settings, cutoff), settings)


def _user_features(config: Config, events: DataFrame, cutoff: date) -> DataFrame | None:
    if not config.feature_factors.user_features:
        return None
    people = without_robots(events_before(events, cutoff), config.cleaning)
    return user_features(people, config.feature_factors)


def _side(pairs: pa.Table, key: str, features: DataFrame | None, names: Sequence[str], own_ids: bool) -> Side:
    if features is None:
        nothing = pa.chunked_array([[]], pa.string())
        return build_side(pairs[key], nothing, nothing, own_ids)
    table = features.toArrow()
    side = build_side(pairs[key], table[key], table[FEATURE], own_ids)
    found = {feature.split("=", 1)[0] for feature in table[FEATURE].unique().to_pylist()}
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(
            f"feature_factors names the features {missing}, of which no {key.removesuffix('_id')} has a value before the cutoff; "
            f"found were values of {sorted(found)}; correct the names"
        )
    return side


def _vectors_of(spark: SparkSession, key: str, side: Side, vectors: np.ndarray) -> DataFrame:
    known = side.has_features()
    return vectors_frame(spark, key, side.ids.filter(pa.array(known)), vectors[known])
