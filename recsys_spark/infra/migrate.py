"""Tables of an older layout -> today's, in place. The only code that changes a table's columns or properties."""

from __future__ import annotations

import logging

from pyspark.sql import SparkSession

from recsys_spark.config import Config
from recsys_spark.infra import tables
from recsys_spark.schemas import TABLES

_log = logging.getLogger(__name__)


def migrate_tables(spark: SparkSession, config: Config) -> dict[str, tuple[int, int]]:
    """Move every table that is there up to today's layout; give table -> (version found, version now) for those that moved.

    Tables are only widened: columns that today's layout has and the table lacks are added, null for old rows; nothing is
    dropped, renamed or rewritten. The version is set last, in the same commit as the other properties, so that a run that
    was stopped is repeated. Raises SchemaError for a table that a newer package wrote.
    """
    moved = {}
    for name, spec in TABLES.items():
        if not tables.table_exists(spark, config, name):
            continue
        found = tables.table_version(spark, config, name)
        if found >= spec.version:
            tables.check_version(spark, config, name)
            continue
        _widen(spark, config, name)
        moved[name] = (found, spec.version)
        _log.info("migrated table=%s from=%d to=%d", name, found, spec.version)
    return moved


def _widen(spark: SparkSession, config: Config, name: str) -> None:
    address = tables.table_address(config, name)
    properties = ", ".join(f"'{key}' = '{value}'" for key, value in tables.table_properties(name).items())

    def add_missing_columns() -> None:  # looked up in every try: another migration may have added them
        there = set(spark.table(address).columns)
        missing = [field for field in TABLES[name].schema.fields if field.name not in there]
        if missing:
            columns = ", ".join(f"`{field.name}` {field.dataType.simpleString()}" for field in missing)
            spark.sql(f"ALTER TABLE {address} ADD COLUMNS ({columns})")

    tables.retry_on_conflict(add_missing_columns, config, name)
    tables.retry_on_conflict(lambda: spark.sql(f"ALTER TABLE {address} SET TBLPROPERTIES ({properties})"), config, name)
