"""Trained models -> top-K lists of every user, task and model."""

from recsys_spark.cli import run_job
from recsys_spark.pipelines.recommend import recommend

if __name__ == "__main__":
    run_job(recommend)
