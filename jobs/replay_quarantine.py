"""Quarantined lines -> events and items, after the config or the file was mended."""

from recsys_spark.cli import run_job
from recsys_spark.pipelines.replay_quarantine import replay_quarantine

if __name__ == "__main__":
    run_job(replay_quarantine)
