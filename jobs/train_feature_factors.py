"""Interactions and features of items and users -> vectors of users and items, cold ones included."""

from recsys_spark.cli import run_job
from recsys_spark.pipelines.train_feature_factors import train_feature_factors

if __name__ == "__main__":
    run_job(train_feature_factors)
