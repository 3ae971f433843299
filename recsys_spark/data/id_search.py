"""Find user ids in raw bytes: lines that could not be read, and reports. Knows no Spark: it runs in workers."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable

# Words of bytes: letters, digits, _ and -. An id is looked for both ways: as a word among those that other scripts' bytes
# (from 0x80 on) belong to, and as one that such a byte may stand beside, since in a broken line it may be anything.
_WORDS = (re.compile(rb"[0-9A-Za-z_\-\x80-\xff]+"), re.compile(rb"[0-9A-Za-z_\-]+"))
# what may stand right before an id without belonging to it: a byte order mark, and the escapes of JSON
_MARKS = re.compile(rb"\xef\xbb\xbf|\\[bfnrt]|\\u[0-9A-Fa-f]{4}")

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
            words = [word for pattern in _WORDS if (word := pattern.search(written))]
            if not words:
                raise ValueError("expected every id to hold a letter or a digit, found one of other characters only")
            for word in words:
                found[word.group()].add((written[: word.start()], written[word.end() :]))
    return {word: tuple(sorted(rests)) for word, rests in found.items()}


def names_one(text: bytes, index: IdIndex) -> bool:
    """Say whether an id stands in the bytes as a whole: not as part of a longer run of ASCII letters, digits, _ and -.

    The id 17850 is therefore found in `17850.0`, in `017850` and in `"17850"`, not in `178501` or in `u-17850`. Bytes of
    other scripts beside an id of ASCII letters do not hide it; an id of such bytes only is found as a whole run of them. A
    byte order mark or an escape of JSON before the id does not hide it either.
    """
    texts = {text, _MARKS.sub(b" ", text)}
    return any(_names_one(each, pattern, index) for each in texts for pattern in _WORDS)


def _names_one(text: bytes, pattern: re.Pattern[bytes], index: IdIndex) -> bool:
    for word in pattern.finditer(text):
        rests = index.get(word.group(), ())
        if word.group().isdigit():
            rests += index.get(word.group().lstrip(b"0"), ())
        if any(_stands_there(text, word, pattern, before, behind) for before, behind in rests):
            return True
    return False


def _stands_there(text: bytes, word: re.Match[bytes], pattern: re.Pattern[bytes], before: bytes, behind: bytes) -> bool:
    start, end = word.start() - len(before), word.end() + len(behind)
    if start < 0 or text[start : word.start()] != before or not text.startswith(behind, word.end()):
        return False
    # an id that begins or ends in punctuation may stand right beside a word
    goes_on_before = _WORDS[0].match(before) and pattern.match(text[max(start - 1, 0) : start])
    goes_on_behind = (not behind or _WORDS[0].match(behind[-1:])) and pattern.match(text, end)
    return not (goes_on_before or goes_on_behind)


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
