"""Late events -> events: what came after the horizon joins the table when somebody decides so."""

from recsys_spark.cli import run_job
from recsys_spark.pipelines.merge_late_events import merge_late_events

if __name__ == "__main__":
    run_job(merge_late_events)
