"""Interactions -> EASE's weights between all items."""

from recsys_spark.cli import run_job
from recsys_spark.pipelines.train_ease import train_ease

if __name__ == "__main__":
    run_job(train_ease)
