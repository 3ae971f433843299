"""The part of the configuration that says how lists are made with an approximate index instead of all dot products."""

from __future__ import annotations

from pydantic import Field

from recsys_spark.config_base import BaseConfig


class ApproximateConfig(BaseConfig):
    """The index of `recommend.index: approximate`: items in cells by direction, of which a search visits the nearest."""

    cells: int | None = Field(None, ge=1, le=1_000_000)
    """Number of cells; null takes 4 times the root of the number of items. Fewer where cells would hold under 39 items."""
    probes: int = Field(32, ge=1)
    """Cells that a search visits: more find more and take longer."""
    overfetch: float = Field(2.0, ge=1, le=1000)
    """A search fetches this many times k items, so that k remain without what was seen; shorter lists are made exactly."""
    min_recall: float = Field(0.95, ge=0, le=1)
    """Share of the exact first 10 that the index must find on the sample, or the job fails before it writes a list."""
    sample_users: int = Field(1000, ge=1)
    """Users on whom every run measures that share."""
    seed: int = 42
    """Start of the clustering that makes the cells."""
