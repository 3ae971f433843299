"""Recommendation platform on Spark, Delta and MLflow."""

__version__ = "0.1.0"
