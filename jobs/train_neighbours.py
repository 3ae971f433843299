"""Interactions -> the nearest neighbours of every item."""

from recsys_spark.cli import run_job
from recsys_spark.pipelines.train_neighbours import train_neighbours

if __name__ == "__main__":
    run_job(train_neighbours)
