"""Jobs beside an erasure: what they wrote of users who were erased meanwhile goes out again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession

from recsys_spark.columns import USER_ID
from recsys_spark.config import Config
from recsys_spark.errors import RetryableError
from recsys_spark.infra import erased, table_files
from recsys_spark.infra.session import persisted
from recsys_spark.infra.user_rows import remove_users, tables_with, users_by_hash


@contextmanager
def erasures_respected(spark: SparkSession, config: Config) -> Iterator[None]:
    """Take rows of users who were erased while the block ran out of every table, bytes included, and raise RetryableError then.

    A job that began before the erasure may write rows of these users after erase_user has looked for the last time. Nothing is
    read but the version of the table `erased` where nobody was erased. Holds for a block that fails, too; not for a killed one.
    """
    before = erased.version(spark, config)
    try:
        yield
    finally:
        _erase_again(spark, config, before)


def _erase_again(spark: SparkSession, config: Config, before: int | None) -> None:
    if erased.version(spark, config) == before:
        return
    since = erased.users_since(spark, config, before)
    names = tables_with(spark, config, USER_ID)
    if since is None or not names:
        return
    with persisted(users_by_hash(spark, config, names, since)) as users:
        if not users.count():  # all of them, before the first table changes
            return
        removed = sum(remove_users(spark, config, name, users) for name in names)
        for name in names:
            table_files.forget_removed_rows(spark, config, name, config.maintain.vacuum_hours)
    raise RetryableError(
        f"users were erased while this job ran; {removed} rows of theirs that were in the tables at its end were removed again; run "
        "the same command again, and erase_user with the same users if broken lines may name them"
    )
