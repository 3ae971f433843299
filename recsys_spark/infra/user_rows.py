"""Rows of the tables that name users, by each column that holds them: find them and take them out."""

from __future__ import annotations

from functools import reduce

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.columns import KEY_HASH, NEIGHBOUR_USER_ID, USER_ID, USER_IDX
from recsys_spark.config import Config
from recsys_spark.data.erased import key_hash
from recsys_spark.infra import table_files, tables
from recsys_spark.infra.erased import Erased
from recsys_spark.schemas import TABLES

INDEX = "user_index"
ERASED_ID = "erased:"
"""What stands in the index before the number of an erased user, so that no number is given out twice."""


def not_erased(user_index: DataFrame) -> DataFrame:
    """Give the rows of the index that name a user: an erased one keeps its number only."""
    return user_index.where(F.col(USER_ID) != F.concat(F.lit(ERASED_ID), USER_IDX))


def has_column(name: str, column: str) -> bool:
    """Say whether a table has a column by its schema."""
    return column in TABLES[name].schema.fieldNames()


def tables_with(spark: SparkSession, config: Config, column: str) -> list[str]:
    """Give the names of the tables that have been written and have a column."""
    return [name for name in TABLES if has_column(name, column) and tables.table_exists(spark, config, name)]


def rows_of(spark: SparkSession, config: Config, name: str, users: DataFrame) -> list[DataFrame]:
    """Give the user_id of the rows of a table that name one of the users (user_id), a frame per column that holds users."""
    return [found.join(users, on=USER_ID, how="left_semi").select(USER_ID) for found in _users_of(spark, config, name)]


def users_by_hash(spark: SparkSession, config: Config, names: list[str], erased: Erased) -> DataFrame:
    """Give the distinct user_id in these tables whose salted hashes are among the erased."""
    everybody = [users.distinct() for name in names for users in _users_of(spark, config, name)]
    there = reduce(DataFrame.unionByName, everybody).distinct().withColumn(KEY_HASH, key_hash(USER_ID, erased.salt))
    return there.join(F.broadcast(erased.rows.select(KEY_HASH)), on=KEY_HASH, how="left_semi").select(USER_ID)


def remove_users(spark: SparkSession, config: Config, name: str, users: DataFrame) -> int:
    """Delete the rows of a table that name one of the users and give their number; in the index the id is replaced."""
    if name != INDEX:
        return sum(
            tables.delete_matching(spark, config, name, users.withColumnRenamed(USER_ID, column))
            for column in _user_columns(name)
        )
    renamed = {USER_ID: f"concat('{ERASED_ID}', t.{USER_IDX})"}
    return table_files.update_matching(spark, config, name, users, USER_ID, renamed)


def _users_of(spark: SparkSession, config: Config, name: str) -> list[DataFrame]:
    table = spark.table(tables.table_address(config, name))
    return [table.select(F.col(column).alias(USER_ID)) for column in _user_columns(name)]


def _user_columns(name: str) -> list[str]:
    return [column for column in (USER_ID, NEIGHBOUR_USER_ID) if has_column(name, column)]
