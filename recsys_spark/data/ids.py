"""Raw ids in one spelling, so that those of events and of items meet."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.data.normal_form import UnicodeForm, in_normal_form

IS_CLEANED = "is_cleaned"
_BEFORE = "_before_"
# everything that Python calls white space, and two marks of no width that are left over at the ends of exported fields
BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\u200b\ufeff"


def clean_ids(frame: DataFrame, names: Sequence[str], trim: bool, unicode_form: UnicodeForm | None) -> DataFrame:
    """Give the frame with the named text columns in a Unicode normal form first, and then without white space at both ends.

    With trim an id that is blank becomes null, that is, missing; without it ids keep their blanks. A row is looked at on
    its own, so the result does not depend on how a delivery is split. Adds is_cleaned, true where an id was changed. With trim
    false and no form the frame is given back as it came, at no cost. Raises ValueError for a column that the frame lacks.
    """
    missing = sorted(set(names) - set(frame.columns))
    if missing:
        raise ValueError(f"clean_ids expects columns of the frame, found {missing}; it has {frame.columns}")
    if not trim and unicode_form is None:
        return frame
    frame = frame.withColumns({_BEFORE + name: F.col(name) for name in names})
    cleaned = {name: F.col(name) for name in names}
    if unicode_form is not None:
        cleaned = {name: _normalised(text, unicode_form) for name, text in cleaned.items()}
    if trim:
        cleaned = {name: F.nullif(F.trim(text, F.lit(BLANKS)), F.lit("")) for name, text in cleaned.items()}
    is_cleaned = F.lit(False)
    for name in names:
        is_cleaned = is_cleaned | ~F.col(name).eqNullSafe(F.col(_BEFORE + name))
    cleaned_frame = frame.withColumns(cleaned).withColumn(IS_CLEANED, is_cleaned)
    return cleaned_frame.drop(*[_BEFORE + name for name in names])


def cleaned_mark(frame: DataFrame) -> list[str]:
    """Give the name of the column that `clean_ids` added to a frame, as a list; empty where nothing was to be cleaned."""
    return [IS_CLEANED] if IS_CLEANED in frame.columns else []


def _normalised(text: Column, form: UnicodeForm) -> Column:
    """Spark has no function for normal forms. ASCII is in every one of them, so only other texts travel to a Python worker."""

    @F.pandas_udf("string")  # type: ignore[call-overload]  # its stub asks for the old function type beside the hints
    def normalise(texts: pd.Series) -> pd.Series:
        return in_normal_form(texts, form)

    is_ascii = F.octet_length(text) == F.length(text)
    return F.coalesce(normalise(F.when(~is_ascii, text)), text)
