"""Lists, truth and history from anybody's tables: made to fit the metrics, with errors that say what is wrong with them.

Ids become text: whole numbers as they are written, also where a column holds them as decimals (1.0 is 1). Nobody's ids
stand in an error; where the ids of two tables do not meet, the messages show their form (a9 for u123).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recsys_spark.columns import CATEGORY, ITEM_ID, MODEL, RANK, SCORE, TASK, USER_ID
from recsys_spark.errors import DataError, SchemaError

_FORM = "_form"


@dataclass(frozen=True)
class GivenColumns:
    """What the columns are called in the given tables."""

    user: str = USER_ID
    item: str = ITEM_ID
    score: str = SCORE
    rank: str = RANK
    model: str = MODEL
    category: str = CATEGORY


def given_lists(table: DataFrame, columns: GivenColumns, model: str, source: str) -> DataFrame:
    """Give model, user_id, item_id, rank and score of a table of lists; a missing one of rank and score is null.

    The model is the table's own column where it has one, else the name given. SchemaError names the columns that are missing,
    or of a type that cannot be read; a column whose name is not the usual one has to be there.
    """
    defaults = ((columns.rank, RANK), (columns.score, SCORE), (columns.model, MODEL))
    named = [name for name, default in defaults if name != default]  # what somebody asks for by name has to be there
    found = _find(table, [columns.user, columns.item, *named], source)[:2]
    optional = {name: _position(table, name) for name in (columns.rank, columns.score, columns.model)}
    if optional[columns.rank] is None and optional[columns.score] is None:
        raise SchemaError(
            f"{source}: expected a column {columns.rank!r} or {columns.score!r} that orders the lists, found {table.columns}; "
            "name it with --rank-column or --score-column"
        )
    numbers = [
        _number(table, name, source).alias(alias)
        if optional[name] is not None
        else F.lit(None).cast("double").alias(alias)
        for name, alias in ((columns.rank, RANK), (columns.score, SCORE))
    ]
    own_model = F.lit(model) if optional[columns.model] is None else _id(table, columns.model, source)
    return table.select(own_model.alias(MODEL), *_ids(table, found, source), *numbers)


def given_pairs(table: DataFrame, columns: GivenColumns, source: str) -> DataFrame:
    """Give user_id and item_id of a table of truth or history; a missing id is null."""
    return table.select(*_ids(table, _find(table, [columns.user, columns.item], source), source))


def given_categories(table: DataFrame, columns: GivenColumns, source: str) -> DataFrame:
    """Give item_id and category of a table of items; of several rows of an item the category that sorts first counts."""
    item, category = _find(table, [columns.item, columns.category], source)
    rows = table.select(_id(table, item, source).alias(ITEM_ID), _id(table, category, source).alias(CATEGORY))
    return rows.where(F.col(ITEM_ID).isNotNull()).groupBy(ITEM_ID).agg(F.min(CATEGORY).alias(CATEGORY))


def ranked_lists(lists: DataFrame, task: str) -> DataFrame:
    """Number each list 1, 2, ...: by rank, then falling score, then item id as UTF-8. Gives task, model, user_id, item_id, rank."""
    best_first = W.partitionBy(MODEL, USER_ID).orderBy(
        F.col(RANK).asc_nulls_last(), F.col(SCORE).desc_nulls_last(), ITEM_ID
    )
    return lists.select(F.lit(task).alias(TASK), MODEL, USER_ID, ITEM_ID, F.row_number().over(best_first).alias(RANK))


def check_lists(lists: DataFrame, has_rank: bool, has_score: bool, source: str) -> list[str]:
    """Raise DataError for lists that cannot be measured, with the number of rows at fault; give the models. Runs Spark jobs.

    At fault are missing ids, ranks or scores that are missing, NaN or no number (a score is optional beside a rank), and an
    item that comes twice in a list.
    """
    faults = {
        "without a user": F.col(USER_ID).isNull(),
        "without an item": F.col(ITEM_ID).isNull(),
        "without a model": F.col(MODEL).isNull(),
    }
    if has_rank:
        faults["whose rank is missing, NaN or no number"] = F.col(RANK).isNull() | F.isnan(RANK)
    if has_score:
        missing = F.lit(False) if has_rank else F.col(SCORE).isNull()
        faults["whose score is missing, NaN or no number"] = F.isnan(SCORE) | missing
    counted = [F.count_if(fault).alias(f"f{place}") for place, fault in enumerate(faults.values())]
    rows = lists.groupBy(MODEL, USER_ID, ITEM_ID).agg(F.count("*").alias("_rows"), *counted)
    sums = [F.sum(f"f{place}") for place in range(len(faults))]
    by_model = rows.groupBy(MODEL).agg(F.sum("_rows"), F.sum(F.col("_rows") - 1), *sums).orderBy(MODEL).collect()
    if not by_model:
        raise DataError(f"{source}: expected lists, found no row; check the file and --where")
    totals = [sum(row[place] for row in by_model) for place in range(1, len(faults) + 3)]
    num_rows, num_again, *found = totals
    for fault, number in zip(faults, found, strict=True):
        if number:
            raise DataError(f"{source}: {number:,} of {num_rows:,} rows {fault}; correct them or leave them out")
    if num_again:
        raise DataError(
            f"{source}: {num_again:,} of {num_rows:,} rows repeat an item of the same list (user and model); keep one row each, or "
            "choose one of several runs, tasks or dates in the table with --where"
        )
    return [str(row[MODEL]) for row in by_model]


def id_form(column: str) -> Column:
    """Give the form of an id: every run of digits is 9, every run of letters a; anything else stays."""
    letters = F.regexp_replace(column, r"\p{L}+", "a")
    return F.regexp_replace(letters, r"\p{N}+", "9")


def common_forms(ids: DataFrame, column: str) -> str:
    """Give the two most common forms of a column of ids, for people. Runs a Spark job."""
    forms = ids.groupBy(id_form(column).alias(_FORM)).count().orderBy(F.desc("count"), _FORM).limit(2).collect()
    return " or ".join(repr(row[_FORM]) for row in forms) or "nothing"


def _find(table: DataFrame, names: Sequence[str], source: str) -> list[str]:
    missing = [name for name in names if _position(table, name) is None]
    if missing:
        raise SchemaError(
            f"{source}: expected columns {list(names)}, found {table.columns or 'none'}; {missing} are missing: name them with "
            "--user-column, --item-column and so on"
        )
    return list(names)


def _position(table: DataFrame, name: str) -> int | None:
    """Where a column stands; Spark does not tell upper from lower case, so neither does this."""
    lowered = [column.lower() for column in table.columns]
    return lowered.index(name.lower()) if name.lower() in lowered else None


def _ids(table: DataFrame, names: Sequence[str], source: str) -> list[Column]:
    return [_id(table, name, source).alias(alias) for name, alias in zip(names, (USER_ID, ITEM_ID), strict=True)]


def _column(name: str) -> Column:
    quoted = name.replace("`", "``")
    return F.col(f"`{quoted}`")


def _type_of(table: DataFrame, name: str) -> T.DataType:
    place = _position(table, name)
    assert place is not None
    return table.schema[place].dataType


def _id(table: DataFrame, name: str, source: str) -> Column:
    kind, column = _type_of(table, name), _column(name)
    if isinstance(kind, (T.StringType, T.IntegralType, T.DateType)):
        return F.nullif(column.cast("string"), F.lit(""))
    if isinstance(kind, T.FractionalType):  # whole numbers that went through a column with gaps
        whole = column.try_cast(T.DecimalType(38, 0))
        return F.when(
            ~F.isnan(column.cast("double")),
            F.when(whole == column, whole.cast("string")).otherwise(column.cast("string")),
        )
    raise SchemaError(f"{source}: expected text or numbers in the column {name!r}, found {kind.simpleString()}")


def _number(table: DataFrame, name: str, source: str) -> Column:
    kind = _type_of(table, name)
    if not isinstance(kind, (T.StringType, T.NumericType)):
        raise SchemaError(f"{source}: expected numbers in the column {name!r}, found {kind.simpleString()}")
    return _column(name).try_cast("double")
