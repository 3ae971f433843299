"""Item feed -> items: new ones inserted, newer ones replaced, with every physical line accounted for."""

from recsys_spark.cli import run_job
from recsys_spark.pipelines.ingest_items import ingest_items

if __name__ == "__main__":
    run_job(ingest_items)
