"""The part of the configuration that says how models of similar items and similar users are trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recsys_spark.config_base import BaseConfig, WeightScale


class NeighboursConfig(BaseConfig):
    """Item-item neighbours by shrunk cosine."""

    num_neighbours: int = Field(100, ge=1, le=10_000)
    """Neighbours kept per item."""
    shrink: float = Field(10.0, ge=0)
    """Added to the denominator, so that pairs seen together by few users count less."""
    max_block_bytes: int = Field(256 * 2**20, ge=2**20)
    """Limit on what one training task holds; below it items are compared in more and smaller blocks, and more is shuffled."""


class UserNeighboursConfig(BaseConfig):
    """User-user neighbours."""

    similarity: Literal["cosine", "pearson"] = "cosine"
    """Cosine of the users' weights, or their Pearson correlation over the whole catalogue."""
    num_neighbours: int = Field(50, ge=1, le=10_000)
    """Neighbours kept per user."""
    shrink: float = Field(10.0, ge=0)
    """Added to the denominator, so that users with little in common count less."""
    max_block_bytes: int = Field(256 * 2**20, ge=2**20)
    """Limit on what one training task holds, as for neighbours."""


class EaseConfig(BaseConfig):
    """EASE (Steck 2019): a linear model of all pairs of items, for catalogues that fit into memory twice over."""

    regularization: float = Field(400.0, gt=0)
    """Added to the diagonal of the items' Gram matrix; grows with the number of users."""
    weight_scale: WeightScale = "one"
    """Weight of a pair of user and item: as it is, log(1 + weight), or 1."""
    max_items: int = Field(20_000, ge=1)
    """Larger catalogues stop the job: items² x 8 bytes on the driver (x 12 above 16,384), x 4 in every worker; 4.8 and 1.6 GB here."""
