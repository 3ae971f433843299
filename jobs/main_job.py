"""The main job: the pipelines in their order, from raw logs to a report."""

from recsys_spark.cli import run_job
from recsys_spark.main_job import main_job

if __name__ == "__main__":
    run_job(main_job)
