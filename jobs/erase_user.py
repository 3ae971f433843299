"""Users by a file of ids -> out of every table, its files and its reports, with a receipt that names nobody."""

from recsys_spark.cli import run_job
from recsys_spark.pipelines.erase_user import erase_user

if __name__ == "__main__":
    run_job(erase_user)
