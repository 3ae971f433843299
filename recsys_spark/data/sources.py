"""Raw lines -> fields -> our columns, as the config of a source says. Nothing here knows events from items."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recsys_spark.columns import (
    ATTRIBUTES,
    DELIVERY_DATE,
    DETAIL,
    FIELDS,
    HEADER,
    LINE_HASH,
    RAW_LINE,
    REASON,
    SOURCE_FILE,
    Reason,
)
from recsys_spark.config_sources import ColumnConfig, SourceConfig
from recsys_spark.data.ids import BLANKS
from recsys_spark.errors import ConfigError, SchemaError

FILTER_RULE = "filter_rule"
BLANK_LINE = "blank_line"

_TEXT = "_text"
_CORRUPT = "_corrupt"
_FAULT = "_fault"
_RECORD = "_record"
_LINE = "_line_"
EXTRA_FIELD = "_extra_field_"
_BOM = "\ufeff"
_UNDECODABLE = "\ufffd"
_EPOCH_LIMIT = 10**11  # seconds; the year 5138: beyond it timestamp_seconds may overflow and stop the job
_WHOLE_ESCAPES = (
    r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a backslash, or two halves of a character
)
_JSON_OPTIONS = {"allowSingleQuotes": "false", "allowNonNumericNumbers": "false"}
_WORDS = re.compile(r"`((?:[^`]|``)+)`|([A-Za-z_]\w*)")


def parse_lines(lines: DataFrame, source: SourceConfig, header: str | None) -> DataFrame:
    """Split raw lines into fields.

    Needs: raw_line (binary), source_file, delivery_date. Gives these and line_hash, header, fields (map field -> text),
    filter_rule (`blank_line` or null), reason and detail (null when the line could be read). The header line itself is left out.
    """
    with_text = lines.withColumn(_TEXT, _without_carriage_return(_decoded(source)))
    if header is not None:
        with_text = with_text.where(F.col(_TEXT) != F.lit(header))
    record, fields, is_malformed = _json_record() if source.format != "csv" else _csv_record(source, header)
    is_too_long = F.octet_length(RAW_LINE) > source.max_line_bytes
    is_undecodable = ~F.is_valid_utf8(_TEXT) if _is_utf8(source) else F.contains(_TEXT, F.lit(_UNDECODABLE))
    reason = (
        F.when(is_too_long, Reason.TOO_LONG)
        .when(is_undecodable, Reason.INVALID_ENCODING)
        .when(F.contains(F.col(_TEXT), F.lit("\0")), Reason.NUL_BYTE)
        .when(is_malformed, Reason.MALFORMED)
        .when(F.contains(_TEXT, F.lit(r"\u")), _escape_fault(fields, source))  # one look at lines without any
    )
    # trimming looks at every character; nearly every line is told by its first
    is_blank = ~F.ascii(_TEXT).between(ord("!"), ord("~")) & (F.trim(F.col(_TEXT), F.lit(BLANKS)) == "")
    # the record is a column of its own, because Spark would parse the line again for every expression that uses it
    return with_text.withColumn(_RECORD, F.when(~is_too_long, record)).select(
        RAW_LINE, SOURCE_FILE, DELIVERY_DATE, fields.alias(FIELDS),
        _short_hash(F.col(RAW_LINE)).alias(LINE_HASH),
        F.lit(header).cast("string").alias(HEADER),
        F.when(is_blank, BLANK_LINE).alias(FILTER_RULE),
        F.when(~is_blank, reason).alias(REASON),
        F.lit(None).cast("string").alias(DETAIL),
    )  # fmt: skip


def damaged_files(files: DataFrame) -> DataFrame:
    """Give one line per damaged file, like `parse_lines` does, without text and with the reason `damaged_file`."""
    return files.select(
        RAW_LINE, SOURCE_FILE, DELIVERY_DATE, F.lit(None).cast("map<string,string>").alias(FIELDS),
        _short_hash(F.col(SOURCE_FILE).cast("binary")).alias(LINE_HASH),
        F.lit(None).cast("string").alias(HEADER),
        F.lit(None).cast("string").alias(FILTER_RULE),
        F.lit(Reason.DAMAGED_FILE).alias(REASON),
        F.lit(None).cast("string").alias(DETAIL),
    )  # fmt: skip


def map_columns(parsed: DataFrame, source: SourceConfig, extra_fields: tuple[str, ...] = ()) -> DataFrame:
    """Give one string column per configured column of ours beside the line's own columns.

    Needs the columns of `parse_lines`. Gives them with filter_rule set to the first named rule that holds, one column per
    key of source.columns (still text), the extra_fields as EXTRA_FIELD + their position, and attributes: the fields that no
    column uses. Raises ConfigError for a rule or expression that Spark cannot read, naming it.
    """
    # The fields that SQL may name become columns under their own names; ours step aside meanwhile.
    lines = parsed.select(*[F.col(name).alias(_LINE + name) for name in parsed.columns])
    flat = lines.select("*", *_fields_for_sql(source))
    is_readable = F.col(_LINE + REASON).isNull()
    rule = F.col(_LINE + FILTER_RULE)
    for name, condition in source.filters.items():
        with _sql_error_names(source, f"filter {name!r}"):
            # resolved on its own, so that an error can say which text it is about
            holds = F.expr(f"({condition})")
            found = flat.select(holds).schema[0].dataType
            if not isinstance(found, T.BooleanType):
                raise ConfigError(
                    f"source {source.name!r}: filter {name!r} is no condition: expected SQL that is true or false, found one of type "
                    f"{found.simpleString()}"
                )
        rule = F.coalesce(rule, F.when(is_readable & holds, name))
    origins = []
    for name, column in source.columns.items():
        with _sql_error_names(source, f"the expression of column {name!r}"):
            origins.append(_origin(column).alias(name))
            if column.expression is not None:
                flat.select(origins[-1])
    used = sorted({column.column for column in source.columns.values() if column.column})
    rest = F.map_filter(_LINE + FIELDS, lambda key, value: ~key.isin(used) & value.isNotNull())
    return flat.select(
        *[F.col(_LINE + name).alias(name) for name in parsed.columns if name not in (FILTER_RULE, FIELDS)],
        rule.alias(FILTER_RULE),
        *origins,
        *[_field(name).alias(f"{EXTRA_FIELD}{position}") for position, name in enumerate(extra_fields)],
        rest.alias(ATTRIBUTES),
    )


def name_first_fault(lines: DataFrame, checks: list[tuple[Column, str, str]]) -> DataFrame:
    """Set reason and detail to the first (condition, reason, detail) that holds; a line that has a reason keeps it."""
    # one chain gives both, because Spark would evaluate two chains one after the other for every line
    fault = F.when(F.col(REASON).isNotNull(), F.concat(REASON, F.lit(":")))
    for condition, reason, detail in checks:
        fault = fault.when(condition, f"{reason}:{detail}")
    parts = F.split(_FAULT, ":", 2)
    named = {REASON: parts.getItem(0), DETAIL: F.nullif(parts.getItem(1), F.lit(""))}
    return lines.withColumn(_FAULT, fault).withColumns(named).drop(_FAULT)


def is_missing(column: str) -> Column:
    """True where a required text is null or blank: of white space of any script only."""
    return F.col(column).isNull() | (F.trim(F.col(column), F.lit(BLANKS)) == "")


def as_double(column: str) -> Column:
    """Text -> double; null where it is no finite number."""
    number = F.col(column).try_cast("double")
    is_decimal = F.translate(column, "dDfFxX", "") == F.col(column)  # Java also reads "3d", "3f" and "0x3p1"
    return F.when(is_decimal & (F.abs(number) < float("inf")), number)  # Spark orders NaN above infinity


def as_integer_text(column: str) -> Column:
    """Text -> whole number as text without leading zeros or a point ("17850.0" -> "17850"); null where it is none."""
    number = F.col(column).try_cast(T.DecimalType(38, 18))  # 20 digits before the point: every 64-bit id, also unsigned
    return F.when(number == F.floor(number), F.floor(number).cast("string"))


def as_timestamp(column: str, timestamp_format: str | None) -> Column:
    """Text -> UTC timestamp; null where it does not fit the format. Null format: ISO 8601, at least a full date."""
    text = F.trim(column)
    if timestamp_format in ("epoch_seconds", "epoch_millis"):
        seconds = text.try_cast("double") / (1000 if timestamp_format == "epoch_millis" else 1)
        return F.when(F.abs(seconds) < _EPOCH_LIMIT, F.timestamp_micros((seconds * 1_000_000).try_cast("bigint")))
    if timestamp_format is None:
        # without this guard "12:30" would be read as half past twelve of today, and "2024" as its first day
        is_full_date = (F.length(text) >= len("2024-1-1")) & (F.substring(text, 5, 1) == "-")
        return F.when(is_full_date, text.try_cast("timestamp"))
    return F.try_to_timestamp(text, F.lit(timestamp_format))


def is_nested(column: str, source: SourceConfig, field: str | None) -> Column:
    """True where a JSON field that should be flat holds an object or a list. Text that merely starts with a brace is flat."""
    if source.format == "csv" or field is None:
        return F.lit(False)
    whole = F.try_parse_json(_decoded(source))
    quote = '"' if "'" in field else "'"
    path = f"$[{quote}{field}{quote}]"
    kind = F.schema_of_variant(F.try_variant_get(whole, path, "variant")) if quote not in field else F.lit(None)
    starts_like_one = F.startswith(column, F.lit("{")) | F.startswith(column, F.lit("["))
    # null, where the variant parser is stricter than from_json or no path can be written: rather quarantined than guessed
    return F.when(starts_like_one, F.coalesce(kind.rlike("^(OBJECT|ARRAY)"), F.lit(True))).otherwise(False)


def _origin(column: ColumnConfig) -> Column:
    if column.value is not None:
        return F.lit(column.value)
    if column.expression is not None:
        return F.expr(f"({column.expression})").cast("string")
    assert column.column is not None
    return _field(column.column)


def _field(name: str) -> Column:
    return F.col(_LINE + FIELDS).getItem(name)


def _fields_for_sql(source: SourceConfig) -> list[Column]:
    """Every field that a filter or an expression may name. Spark SQL does not tell `Date` from `date`: both give the one there is."""
    texts = [*source.filters.values(), *[c.expression for c in source.columns.values() if c.expression]]
    spellings: dict[str, set[str]] = defaultdict(set)
    for name in (name for text in texts for name in _names_in(text)):
        spellings[name.lower()].add(name)
    return [F.coalesce(*map(_field, sorted(names))).alias(name) for name, names in sorted(spellings.items())]


@contextmanager
def _sql_error_names(source: SourceConfig, what: str) -> Iterator[None]:
    try:
        yield
    except AnalysisException as error:
        first_line = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"source {source.name!r}: {what} is not valid Spark SQL over its fields: {first_line}"
        ) from error


def _names_in(expression: str) -> list[str]:
    """Every word of a SQL expression that may name a field; words that are functions just become unused columns."""
    without_literals = re.sub(r"'(?:[^'\\]|\\.|'')*'", "", expression)
    return [quoted.replace("``", "`") or word for quoted, word in _WORDS.findall(without_literals)]


def _short_hash(binary: Column) -> Column:
    """The first 128 bits of a SHA-256, as 32 hex digits."""
    return F.substring(F.sha2(binary, 256), 1, 32)


def _without_carriage_return(text: Column) -> Column:
    shorter = F.substring(text, F.lit(1), F.length(text) - 1)
    return F.when(F.endswith(text, F.lit("\r")), shorter).otherwise(text)


def _is_utf8(source: SourceConfig) -> bool:
    return source.format == "parquet" or source.encoding.replace("-", "").replace("_", "").lower() == "utf8"


def _decoded(source: SourceConfig) -> Column:
    """The line as text, without a byte order mark."""
    text = F.col(RAW_LINE).cast("string") if _is_utf8(source) else F.decode(RAW_LINE, source.encoding)
    return F.when(F.startswith(text, F.lit(_BOM)), F.substring(text, 2, 2**31 - 1)).otherwise(text)


def _escape_fault(fields: Column, source: SourceConfig) -> Column:
    """The fault of a line that holds escapes in JSON: the NUL character in a name or a value, or half of a character."""
    texts = F.concat(F.map_keys(fields), F.map_values(fields))
    has_nul = F.contains(_TEXT, F.lit("\\u0000")) & F.contains(F.array_join(texts, ""), F.lit("\0"))
    fault = F.when(has_nul, Reason.NUL_BYTE)
    if source.format != "json":
        return fault
    without_whole_ones = F.regexp_replace(F.col(_TEXT), _WHOLE_ESCAPES, "")
    # the parser would put a question mark there
    return fault.when(without_whole_ones.rlike(r"\\u[dD][89a-fA-F]"), Reason.INVALID_ENCODING)


def _json_record() -> tuple[Column, Column, Column]:
    # Inside brackets and before a null a line of two glued objects, or one with text or a bracket behind it, is malformed;
    # from_json alone would read the first object and drop the rest without a word.
    record = F.from_json(
        F.concat(F.lit("["), F.col(_TEXT), F.lit(",null]")), "array<map<string,string>>", _JSON_OPTIONS
    )
    fields = F.get(F.col(_RECORD), F.lit(0))
    is_one = (F.size(_RECORD) == 2) & fields.isNotNull() & F.get(F.col(_RECORD), F.lit(1)).isNull()
    # A name written twice has no agreed meaning, and tables hold no map with two equal keys. Building the map anew drops
    # copies (infra/session.py sets LAST_WIN); array_distinct would say the same in four times the time.
    names_differ = F.size(F.map_from_arrays(F.map_keys(fields), F.map_values(fields))) == F.size(fields)
    return record, fields, ~F.coalesce(is_one & names_differ, F.lit(False))


def _csv_record(source: SourceConfig, header: str | None) -> tuple[Column, Column, Column]:
    names = header_names(source, header)
    columns = [f"c{i}" for i in range(len(names))]
    schema = T.StructType([T.StructField(column, T.StringType()) for column in [*columns, _CORRUPT]])
    # an empty quote option would mean the default; the NUL character switches quoting off; a line of more columns than
    # maxColumns would stop the job
    options = {"sep": source.delimiter, "quote": source.quote or "\0", "escape": source.quote or "\0", "mode": "PERMISSIVE",
               "columnNameOfCorruptRecord": _CORRUPT, "maxColumns": str(source.max_line_bytes + 1)}  # fmt: skip
    record = F.from_csv(F.col(_TEXT), schema.simpleString(), options)
    values = F.array(*[F.col(f"{_RECORD}.{column}") for column in columns])
    is_malformed = F.col(f"{_RECORD}.{_CORRUPT}").isNotNull() | _has_open_quote(source)
    return record, F.map_from_arrays(F.array(*map(F.lit, names)), values), is_malformed


def _has_open_quote(source: SourceConfig) -> Column:
    """True where a field starts with a quote and the line's quotes do not pair up: the record goes on in the next line."""
    if not source.quote:
        return F.lit(False)
    num_quotes = F.length(_TEXT) - F.length(F.replace(F.col(_TEXT), F.lit(source.quote), F.lit("")))
    starts_quoted = F.contains(F.concat(F.lit(source.delimiter), _TEXT), F.lit(source.delimiter + source.quote))
    return (num_quotes % 2 == 1) & starts_quoted


def header_names(source: SourceConfig, header: str | None) -> list[str]:
    """Give the field names of a CSV source: the configured list, or the header line split. Raises SchemaError for doubtful ones."""
    if isinstance(source.header, tuple):
        names = list(source.header)
    elif header is None:
        raise SchemaError(
            f"source {source.name!r}: a CSV without a header line needs sources.*.header as a list of names"
        )
    elif len(source.delimiter) == 1:
        names = next(csv.reader([header], delimiter=source.delimiter, quotechar=source.quote or None,
                                quoting=csv.QUOTE_MINIMAL if source.quote else csv.QUOTE_NONE), [])  # fmt: skip
    else:
        names = header.split(source.delimiter)
    names = [name.strip() for name in names]
    # what is found is told by its place: without a header the first line is somebody's data
    twice = [place for place, name in enumerate(names, start=1) if name in names[: place - 1]]
    wanted = sorted({column.column for column in source.columns.values() if column.column})
    if twice:
        raise SchemaError(
            f"source {source.name!r}: expected a name of its own for each of the {len(names)} fields in the header line, found "
            f"repeats at fields {twice}; give sources.*.header as a list of names"
        )
    if wanted and not set(wanted) & set(names):
        raise SchemaError(
            f"source {source.name!r}: expected a header line that names the configured fields {wanted}, found one of {len(names)} "
            "fields that names none of them; check sources.*.columns and delimiter, or list the names in sources.*.header"
        )
    return names
