"""Items and events -> features of items and of users, each a text such as `category=Drama`."""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.columns import ATTRIBUTES, BRAND, CATEGORY, ITEM_ID, PRICE, UPDATED_AT, USER_ID
from recsys_spark.config_feature_factors import FeatureFactorsConfig

FEATURE = "feature"
_EDGES = "_edges"
_IS_WARM = "_is_warm"


def item_features(items: DataFrame, config: FeatureFactorsConfig) -> DataFrame:
    """Give the distinct features of items by config.item_features.

    Needs item_id, category, brand, price, attributes. Gives item_id, feature; an item without any value has no row. A text is
    cut at config.separator into several features. `price` becomes the number of its bucket: of about equally many items each,
    from 0; equal prices share one.
    """
    texts = {CATEGORY: F.col(CATEGORY), BRAND: F.col(BRAND), PRICE: _bucket(config)}
    columns = {name: texts.get(name, _attribute(name)) for name in config.item_features}
    if PRICE in columns:
        shares = [number / config.price_buckets for number in range(1, config.price_buckets)]
        edges = items.agg(F.percentile(PRICE, shares).alias(_EDGES))
        items = items.crossJoin(F.broadcast(edges))
    return _exploded(items, ITEM_ID, columns, config.separator)


def known_items(items: DataFrame, interactions: DataFrame, config: FeatureFactorsConfig, cutoff: date) -> DataFrame:
    """Give the items that have interactions and, where config.cold_items is set, those that were there at the cutoff.

    Needs item_id, updated_at, and item_id of the interactions. An item without interactions whose row is younger than midnight
    UTC of the cutoff may not have existed then and is left out. The table keeps one row per item, so the values of an item
    are today's in any case.
    """
    warm = interactions.select(ITEM_ID).distinct()
    if not config.cold_items:
        return items.join(warm, on=ITEM_ID, how="left_semi")
    marked = items.join(warm.withColumn(_IS_WARM, F.lit(True)), on=ITEM_ID, how="left")
    was_there = F.col(UPDATED_AT).isNull() | (F.col(UPDATED_AT) <= F.lit(cutoff).cast("timestamp"))
    return marked.where(F.col(_IS_WARM).isNotNull() | was_there).select(*items.columns)


def user_features(events: DataFrame, config: FeatureFactorsConfig) -> DataFrame:
    """Give the distinct features of users by config.user_features: the most frequent value of an attribute.

    Needs user_id, attributes, of events of every type before the cutoff. Gives user_id, feature; of equally frequent values
    the first in UTF-8 order counts. A user without any value has no row.
    """
    names = config.user_features
    most_frequent = [
        F.mode(_attribute(name), deterministic=True).alias(f"_{number}") for number, name in enumerate(names)
    ]
    users = events.groupBy(USER_ID).agg(*most_frequent)
    columns = {name: F.col(f"_{number}") for number, name in enumerate(names)}
    return _exploded(users, USER_ID, columns, config.separator)


def _exploded(rows: DataFrame, key: str, columns: dict[str, Column], separator: str) -> DataFrame:
    features = F.flatten(F.array(*[_features(name, text, separator) for name, text in columns.items()]))
    return rows.select(key, F.explode(features).alias(FEATURE)).distinct()


def _features(name: str, text: Column, separator: str) -> Column:
    """The features that a text holds as an array; no element of it is null or an empty text."""
    parts = F.split(text, f"\\Q{separator}\\E") if separator else F.array(text)
    trimmed = F.transform(
        F.coalesce(parts, F.array()), lambda part: F.trim(part)
    )  # trim itself would be given the index
    trimmed = F.filter(trimmed, lambda part: part != "")
    return F.transform(trimmed, lambda part: F.concat(F.lit(f"{name}="), part))


def _bucket(config: FeatureFactorsConfig) -> Column:
    above = F.size(F.filter(_EDGES, lambda edge: edge <= F.col(PRICE)))
    return F.when(F.col(PRICE).isNotNull(), above).cast("string")


def _attribute(name: str) -> Column:
    return F.col(f"{ATTRIBUTES}.`{name.replace('`', '``')}`")
