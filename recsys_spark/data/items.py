"""Source lines -> items: typed columns, one text per item, and the newest row of each item in a batch."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from recsys_spark.columns import (
    ATTRIBUTES,
    BRAND,
    BUCKET,
    CATEGORY,
    DELIVERY_DATE,
    DETAIL,
    HEADER,
    ITEM_ID,
    LINE_HASH,
    PRICE,
    RAW_LINE,
    REASON,
    SOURCE,
    SOURCE_FILE,
    TEXT,
    TEXT_HASH,
    TITLE,
    UPDATED_AT,
    Bucket,
    Reason,
)
from recsys_spark.config import IngestConfig
from recsys_spark.config_sources import ItemSourceConfig
from recsys_spark.data import sources
from recsys_spark.data.ids import clean_ids, cleaned_mark

_RAW = "_raw_"
_TEXTS = (TITLE, TEXT, CATEGORY, BRAND)
_CONTENT = (TITLE, TEXT, CATEGORY, BRAND, PRICE)

# SQL over the stored row t and the incoming row s: it says something else and is not older (without times the last
# delivery wins), so that an old delivery that arrives late does not undo a newer row
IS_NEWER = (
    "NOT (" + " AND ".join(f"t.{name} <=> s.{name}" for name in _CONTENT)
    + f" AND array_sort(map_entries(t.{ATTRIBUTES})) <=> array_sort(map_entries(s.{ATTRIBUTES})))"
    + f" AND (s.{UPDATED_AT} IS NULL OR t.{UPDATED_AT} IS NULL OR s.{UPDATED_AT} >= t.{UPDATED_AT})"
)  # fmt: skip
_ALL = (ITEM_ID, *_TEXTS, PRICE, UPDATED_AT)


def parse_items(parsed: DataFrame, source: ItemSourceConfig, ingest: IngestConfig | None = None) -> DataFrame:
    """Type the fields of parsed lines and name what is wrong with a line.

    Needs the columns of `sources.parse_lines`. Gives raw_line, header, source_file, line_hash, delivery_date, filter_rule,
    reason, detail (null when the line is an item) and the columns of the items table up to source. text is title, category
    and brand unless the source has one; updated_at is the delivery date unless the source has one; text_hash covers text only.
    """
    ingest = ingest or IngestConfig()
    mapped = clean_ids(sources.map_columns(parsed, source), [ITEM_ID], ingest.trim_ids, ingest.unicode_form)
    nothing = F.lit(None).cast("string")
    mapped = mapped.withColumns({_RAW + name: F.col(name) if name in source.columns else nothing for name in _ALL})
    typed = mapped.withColumns({name: _typed(name, source) for name in _ALL})
    checked = sources.name_first_fault(typed, _checks(source))
    own_text = F.concat_ws(". ", TITLE, CATEGORY, BRAND)
    checked = checked.withColumn(TEXT, F.coalesce(TEXT, own_text)).withColumn(TEXT_HASH, F.sha2(TEXT, 256))
    return checked.select(
        RAW_LINE, HEADER, SOURCE_FILE, LINE_HASH, DELIVERY_DATE, sources.FILTER_RULE, REASON, DETAIL,
        ITEM_ID, TITLE, TEXT, CATEGORY, BRAND, PRICE, ATTRIBUTES,
        F.coalesce(UPDATED_AT, F.col(DELIVERY_DATE).cast("timestamp")).alias(UPDATED_AT),
        TEXT_HASH, F.lit(source.name).alias(SOURCE), *cleaned_mark(checked),
    )  # fmt: skip


def keep_newest(items: DataFrame) -> DataFrame:
    """Add bucket: of the rows of one item the newest updated_at wins (no time is oldest), ties by hash of the raw line."""
    is_item = F.col(REASON).isNull() & F.col(sources.FILTER_RULE).isNull()
    key = F.when(is_item, F.concat(F.lit("i"), ITEM_ID)).otherwise(F.concat(F.lit("l"), LINE_HASH))
    newest_first = W.partitionBy("_key").orderBy(F.col(UPDATED_AT).desc_nulls_last(), LINE_HASH)
    bucket = (
        F.when(F.col(sources.FILTER_RULE).isNotNull(), Bucket.FILTERED)
        .when(F.col(REASON).isNotNull(), Bucket.QUARANTINED)
        .when(F.row_number().over(newest_first) > 1, Bucket.DUPLICATE)
        .otherwise(Bucket.INSERTED)
    )
    return items.withColumn("_key", key).withColumn(BUCKET, bucket).drop("_key")


def _typed(name: str, source: ItemSourceConfig) -> Column:
    raw, column = _RAW + name, source.columns.get(name)
    if name == UPDATED_AT:
        return sources.as_timestamp(raw, column.timestamp_format if column else None)
    if name == PRICE:
        return sources.as_double(raw)
    if column is not None and column.type == "integer":
        return sources.as_integer_text(raw)
    return F.col(raw) if name == ITEM_ID else F.nullif(F.trim(raw), F.lit(""))


def _checks(source: ItemSourceConfig) -> list[tuple[Column, str, str]]:
    checks = [
        (sources.is_nested(_RAW + name, source, column.column), Reason.NESTED_VALUE, name)
        for name, column in source.columns.items()
    ]
    checks.append((sources.is_missing(_RAW + ITEM_ID), Reason.MISSING_FIELD, ITEM_ID))
    for name in (ITEM_ID, PRICE, UPDATED_AT):
        reason = Reason.BAD_TIMESTAMP if name == UPDATED_AT else Reason.WRONG_TYPE
        checks.append((~sources.is_missing(_RAW + name) & F.col(name).isNull(), reason, name))
    return checks
