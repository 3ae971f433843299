"""Interactions -> the nearest neighbours of every user."""

from recsys_spark.cli import run_job
from recsys_spark.pipelines.train_user_neighbours import train_user_neighbours

if __name__ == "__main__":
    run_job(train_user_neighbours)
