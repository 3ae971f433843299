"""Interactions -> ALS factors of users and items."""

from recsys_spark.cli import run_job
from recsys_spark.pipelines.train_als import train_als

if __name__ == "__main__":
    run_job(train_als)
