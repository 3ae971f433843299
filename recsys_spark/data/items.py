"""Source lines -> items: typed columns, one text per item, and the newest row of each item in a batch."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from recsys_spark import columns as C
from recsys_spark.columns import Bucket, Reason
from recsys_spark.config import ItemSourceConfig
from recsys_spark.data import sources

_RAW = "_raw_"
_TEXTS = (C.TITLE, C.TEXT, C.CATEGORY, C.BRAND)
_CONTENT = (C.TITLE, C.TEXT, C.CATEGORY, C.BRAND, C.PRICE)

# SQL over the stored row t and the incoming row s: it says something else and is not older (without times the last
# delivery wins), so that an old delivery that arrives late does not undo a newer row
IS_NEWER = (
    "NOT (" + " AND ".join(f"t.{name} <=> s.{name}" for name in _CONTENT)
    + f" AND array_sort(map_entries(t.{C.ATTRIBUTES})) <=> array_sort(map_entries(s.{C.ATTRIBUTES})))"
    + f" AND (s.{C.UPDATED_AT} IS NULL OR t.{C.UPDATED_AT} IS NULL OR s.{C.UPDATED_AT} >= t.{C.UPDATED_AT})"
)  # fmt: skip
_ALL = (C.ITEM_ID, *_TEXTS, C.PRICE, C.UPDATED_AT)


def parse_items(parsed: DataFrame, source: ItemSourceConfig) -> DataFrame:
    """Type the fields of parsed lines and name what is wrong with a line.

    Needs the columns of `sources.parse_lines`. Gives raw_line, source_file, line_hash, filter_rule, reason, detail (null when
    the line is an item) and the columns of the items table up to source. text is title, category and brand unless the source
    has one; updated_at is the delivery date unless the source has one; text_hash covers text only.
    """
    mapped = sources.map_columns(parsed, source)
    for name in _ALL:
        mapped = mapped.withColumn(_RAW + name, F.col(name) if name in source.columns else F.lit(None).cast("string"))
    typed = mapped.withColumns({name: _typed(name, source) for name in _ALL})
    checked = sources.name_first_fault(typed, _checks(source))
    own_text = F.concat_ws(". ", C.TITLE, C.CATEGORY, C.BRAND)
    checked = checked.withColumn(C.TEXT, F.coalesce(C.TEXT, own_text)).withColumn(C.TEXT_HASH, F.sha2(C.TEXT, 256))
    return checked.select(
        C.RAW_LINE, C.SOURCE_FILE, C.LINE_HASH, sources.FILTER_RULE, C.REASON, C.DETAIL,
        C.ITEM_ID, C.TITLE, C.TEXT, C.CATEGORY, C.BRAND, C.PRICE, C.ATTRIBUTES,
        F.coalesce(C.UPDATED_AT, F.col(C.DELIVERY_DATE).cast("timestamp")).alias(C.UPDATED_AT),
        C.TEXT_HASH, F.lit(source.name).alias(C.SOURCE),
    )  # fmt: skip


def keep_newest(items: DataFrame) -> DataFrame:
    """Add bucket: of the rows of one item the newest updated_at wins (no time is oldest), ties by hash of the raw line."""
    is_item = F.col(C.REASON).isNull() & F.col(sources.FILTER_RULE).isNull()
    key = F.when(is_item, F.concat(F.lit("i"), C.ITEM_ID)).otherwise(F.concat(F.lit("l"), C.LINE_HASH))
    newest_first = W.partitionBy("_key").orderBy(F.col(C.UPDATED_AT).desc_nulls_last(), C.LINE_HASH)
    bucket = (
        F.when(F.col(sources.FILTER_RULE).isNotNull(), Bucket.FILTERED)
        .when(F.col(C.REASON).isNotNull(), Bucket.QUARANTINED)
        .when(F.row_number().over(newest_first) > 1, Bucket.DUPLICATE)
        .otherwise(Bucket.INSERTED)
    )
    return items.withColumn("_key", key).withColumn(C.BUCKET, bucket).drop("_key")


def _typed(name: str, source: ItemSourceConfig) -> Column:
    raw, column = _RAW + name, source.columns.get(name)
    if name == C.UPDATED_AT:
        return sources.as_timestamp(raw, column.timestamp_format if column else None)
    if name == C.PRICE:
        return sources.as_double(raw)
    if column is not None and column.type == "integer":
        return sources.as_integer_text(raw)
    return F.col(raw) if name == C.ITEM_ID else F.nullif(F.trim(raw), F.lit(""))


def _checks(source: ItemSourceConfig) -> list[tuple[Column, str, str]]:
    checks = [
        (sources.is_nested(_RAW + name, source, column.column), Reason.NESTED_VALUE, name)
        for name, column in source.columns.items()
    ]
    checks.append((sources.is_missing(_RAW + C.ITEM_ID), Reason.MISSING_FIELD, C.ITEM_ID))
    for name in (C.ITEM_ID, C.PRICE, C.UPDATED_AT):
        reason = Reason.BAD_TIMESTAMP if name == C.UPDATED_AT else Reason.WRONG_TYPE
        checks.append((~sources.is_missing(_RAW + name) & F.col(name).isNull(), reason, name))
    return checks
