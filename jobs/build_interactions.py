"""Events before the cutoff -> interactions, and the indexes grown by the users and items seen so far."""

from recsys_spark.cli import run_job
from recsys_spark.pipelines.build_interactions import build_interactions

if __name__ == "__main__":
    run_job(build_interactions)
