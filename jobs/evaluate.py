"""Recommendations against what came afterwards -> metrics, an MLflow run and a report."""

from recsys_spark.cli import run_job
from recsys_spark.pipelines.evaluate import evaluate

if __name__ == "__main__":
    run_job(evaluate)
