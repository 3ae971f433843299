"""The part of the configuration that concerns the factorisation of features."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from recsys_spark.config_base import BaseConfig, WeightScale


def _feature_name(name: str) -> str:
    if not name.strip() or "=" in name:
        raise ValueError(f"expected the name of a column or an attribute, without `=`, found {name!r}")
    return name


FeatureName = Annotated[str, AfterValidator(_feature_name)]


class FeatureFactorsConfig(BaseConfig):
    """Factorisation of features of items and users (Kula 2015), in the driver's memory."""

    item_features: tuple[FeatureName, ...] = ()
    """Columns of the items table (category, brand, price) or attributes of items whose values become features."""
    user_features: tuple[FeatureName, ...] = ()
    """Attributes of events; a user's most frequent value before the cutoff becomes a feature."""
    separator: str = "|"
    """Cuts one text into several features, as in Comedy|Drama; empty: texts are not cut."""
    price_buckets: int = Field(10, ge=2, le=1000)
    """Buckets of about equally many items that the feature price is made of."""
    item_ids: bool = True
    """The id of an item with interactions is one of its features; without it items with the same features are the same item."""
    user_ids: bool = True
    """The id of a user with interactions is one of the user's features."""
    cold_items: bool = True
    """Items without interactions get a vector from their features, so that they are recommended, too."""
    loss: Literal["warp", "bpr"] = "warp"
    """warp: the first drawn item that stands too high, weighted by how few tries it took; bpr: all drawn items, pairwise logistic."""
    embedding_size: int = Field(64, ge=1, le=1024)
    """Numbers per feature, beside the bias."""
    epochs: int = Field(10, ge=1, le=1000)
    """Passes over the interactions."""
    learning_rate: float = Field(0.05, gt=0)
    """Step size of Adagrad."""
    regularization: float = Field(0.0, ge=0)
    """Half of it times the squared length of the embeddings of an interaction's user and item is added to its loss."""
    batch_size: int = Field(1024, ge=1)
    """Interactions per step."""
    num_negatives: int = Field(500, ge=1, le=100_000)
    """Items drawn per batch and shared by its interactions: the most tries of warp, the size of the mean of bpr."""
    weight_scale: WeightScale = "log"
    """How much an interaction counts: its weight as it is, log(1 + weight), or 1."""
    max_driver_bytes: int = Field(4 * 2**30, gt=0)
    """What training may take of the driver's memory; more stops the job before anything is collected."""
    seed: int = Field(42, ge=0)
    """Start values, order of the interactions and drawn items."""

    @model_validator(mode="after")
    def _is_of_something(self) -> FeatureFactorsConfig:
        if not (self.item_ids or self.item_features):
            raise ValueError("items have neither ids nor features; set item_ids: true, or name item_features")
        if not (self.user_ids or self.user_features):
            raise ValueError("users have neither ids nor features; set user_ids: true, or name user_features")
        return self
