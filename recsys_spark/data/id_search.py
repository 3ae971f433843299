"""Find user ids in raw bytes: lines that could not be read, and reports. Knows no Spark: it runs in workers."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable

# A word of bytes: letters, digits, _ and -. Bytes from 0x80 on belong to it, whatever the character set.
_WORD = re.compile(rb"[0-9A-Za-z_\-\x80-\xff]+")

IdIndex = dict[bytes, tuple[tuple[bytes, bytes], ...]]
"""First word of an id -> what stands before and behind that word in the ids that begin with it."""


def index_ids(ids: Iterable[str], encodings: Iterable[str] = ()) -> IdIndex:
    """Give the index in which `names_one` looks ids up, whatever their number.

    Each id is known as UTF-8, as JSON escapes (in both cases) and in the encodings that Python knows; an id of digits also
    without its leading zeros. An id without any letter or digit cannot be told from punctuation and raises ValueError.
    """
    found: dict[bytes, set[tuple[bytes, bytes]]] = defaultdict(set)
    for user_id in ids:
        for written in _ways_to_write(user_id, tuple(encodings)):
            word = _WORD.search(written)
            if word is None:
                raise ValueError("expected every id to hold a letter or a digit, found one of other characters only")
            found[word.group()].add((written[: word.start()], written[word.end() :]))
    return {word: tuple(sorted(rests)) for word, rests in found.items()}


def names_one(text: bytes, index: IdIndex) -> bool:
    """Say whether an id stands in the bytes as a whole: not as part of a longer run of letters, digits, _ and -.

    The id 17850 is therefore found in `17850.0`, in `017850` and in `"17850"`, not in `178501` or in `u-17850`.
    """
    for word in _WORD.finditer(text):
        rests = index.get(word.group(), ())
        if word.group().isdigit():
            rests += index.get(word.group().lstrip(b"0"), ())
        if any(_stands_there(text, word.start(), word.end(), before, behind) for before, behind in rests):
            return True
    return False


def _stands_there(text: bytes, start: int, end: int, before: bytes, behind: bytes) -> bool:
    if text[max(start - len(before), 0) : start] != before or not text.startswith(behind, end):
        return False
    end += len(behind)
    ends_in_a_word = not behind or _WORD.fullmatch(behind[-1:])
    return not (ends_in_a_word and _WORD.match(text, end))


def _ways_to_write(user_id: str, encodings: tuple[str, ...]) -> set[bytes]:
    escaped = json.dumps(user_id)[1:-1]
    upper = re.sub(r"\\u[0-9a-f]{4}", lambda escape: r"\u" + escape.group()[2:].upper(), escaped)
    ways = {user_id.encode(), escaped.encode(), upper.encode(), json.dumps(user_id, ensure_ascii=False)[1:-1].encode()}
    if user_id.isdigit():
        ways.add((user_id.lstrip("0") or user_id).encode())
    for encoding in encodings:
        try:
            ways.add(user_id.encode(encoding))
        except (LookupError, UnicodeEncodeError):
            continue  # a character set that only Java knows, or one that cannot hold this id: no line of it can either
    return ways
