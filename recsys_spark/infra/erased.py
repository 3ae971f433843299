"""The table `erased`: salted hashes of users and lines that must not come back. It holds no id."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.columns import ERASED_AT, KEY_HASH, KIND
from recsys_spark.config import Config
from recsys_spark.data.erased import USER, key_hash
from recsys_spark.errors import SchemaError
from recsys_spark.infra import tables

TABLE = "erased"
SALT_PROPERTY = "recsys.erased_salt"


@dataclass(frozen=True)
class Erased:
    """The rows of the table (kind, key_hash, erased_at) and the salt of their hashes."""

    rows: DataFrame
    salt: str


def read_erased(spark: SparkSession, config: Config) -> Erased | None:
    """Give what was erased, or null when nothing was: then ingest has nothing to look up."""
    if not tables.table_exists(spark, config, TABLE):
        return None
    rows = tables.read_table(spark, config, TABLE, made_by="erase_user")
    return None if rows.isEmpty() else Erased(rows, _salt(spark, config))


def version(spark: SparkSession, config: Config) -> int | None:
    """Give the table's Delta version, or null when nothing was ever erased."""
    return tables.delta_version(spark, config, TABLE) if tables.table_exists(spark, config, TABLE) else None


def users_since(spark: SparkSession, config: Config, before: int | None) -> Erased | None:
    """Give the users who were erased, or erased once more, after a version of the table (null: before it was there)."""
    now = read_erased(spark, config)
    if now is None:
        return None
    users = now.rows.where(F.col(KIND) == USER)
    if before is not None:
        known = tables.read_table(spark, config, TABLE, made_by="erase_user", version=before)
        users = users.join(known, on=users.columns, how="left_anti")
    return Erased(users, now.salt)


def remember(spark: SparkSession, config: Config, kind: str, keys: DataFrame, erased_at: datetime) -> None:
    """Add the hashes of the keys (a frame of one text column). A later erasure moves erased_at (UTC) of a known key up."""
    salt = _salt(spark, config)
    hashed = keys.select(
        F.lit(kind).alias(KIND),
        key_hash(keys.columns[0], salt).alias(KEY_HASH),
        F.lit(erased_at).cast("timestamp").alias(ERASED_AT),
    )
    tables.upsert(spark, config, TABLE, hashed.distinct(), f"s.{ERASED_AT} > t.{ERASED_AT}")


def _salt(spark: SparkSession, config: Config) -> str:
    """Give the salt of the table, which is made with it and never changed."""
    tables.ensure_table(spark, config, TABLE, {SALT_PROPERTY: secrets.token_hex(32)})
    rows = spark.sql(f"SHOW TBLPROPERTIES {tables.table_address(config, TABLE)}").collect()
    salt = {row["key"]: row["value"] for row in rows}.get(SALT_PROPERTY)
    if salt is None:
        raise SchemaError(
            f"table {tables.table_address(config, TABLE)} lacks the property {SALT_PROPERTY}, without which its hashes mean nothing; "
            "restore the property from a backup, or remove the table and erase the users again"
        )
    return str(salt)
