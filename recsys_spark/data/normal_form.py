"""Unicode normal forms of many texts at once. Free of Spark: this runs inside workers."""

from __future__ import annotations

import unicodedata
from typing import Literal

import pandas as pd

UnicodeForm = Literal["NFC", "NFKC"]


def in_normal_form(texts: pd.Series, form: UnicodeForm) -> pd.Series:
    """Give the texts in a normal form of Unicode Standard Annex 15; null stays null.

    NFC makes a letter with a combining accent and the letter with the accent built in the same text. NFKC also makes one of
    texts that look alike or mean the same, such as full-width and ordinary digits; it may join ids that were meant to differ.
    """
    return texts.map(lambda text: unicodedata.normalize(form, text), na_action="ignore").astype(object)
