"""Tables -> the same rows in fewer files, files no longer used deleted, and the sizes of the day in table_stats."""

from recsys_spark.cli import run_job
from recsys_spark.pipelines.maintain_tables import maintain_tables

if __name__ == "__main__":
    run_job(maintain_tables)
