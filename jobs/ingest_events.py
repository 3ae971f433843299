"""Raw behaviour logs -> events, with every physical line accounted for."""

from recsys_spark.cli import run_job
from recsys_spark.pipelines.ingest_events import ingest_events

if __name__ == "__main__":
    run_job(ingest_events)
