"""Events before the cutoff -> the two popularity models, over all time and over the last days."""

from recsys_spark.cli import run_job
from recsys_spark.pipelines.train_popular import train_popular

if __name__ == "__main__":
    run_job(train_popular)
