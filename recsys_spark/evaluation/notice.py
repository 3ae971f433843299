"""What stands in place of a report that showed a user who was erased since."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Collection
from datetime import date

_SHOWN_USER = re.compile(r"<h2>One user: (.*?)</h2>", re.DOTALL)
_CONFIGURED_USER = re.compile(r"^(\s*example_user:\s*)(['\"]?)(.*?)\2\s*$", re.MULTILINE)


def erased_page(erased_on: date) -> str:
    """Give the page that replaces a report."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Report removed</title></head>\n'
        f"<body><p>This report showed a user who was erased on {erased_on}. Run evaluate for its date to make it anew.</p></body></html>\n"
    )


def rewrite_if_named(
    ids: Collection[str], erased_on: date, names_one: Callable[[bytes], bool]
) -> Callable[[str, str], str | None]:
    """Give a function (file name, text) -> the text without any of the ids, or null where none is in it.

    A report becomes the notice when it shows one of the users, or when names_one says so of its text (UTF-8, entities
    replaced); a config loses its evaluation.example_user.
    """
    users = set(ids)

    def rewrite(file: str, text: str) -> str | None:
        if file.endswith(".yaml"):
            changed = _CONFIGURED_USER.sub(lambda m: m[1] + ("null" if m[3] in users else m[2] + m[3] + m[2]), text)
            return changed if changed != text else None
        plain = html.unescape(text)
        shown = {html.unescape(name).strip() for name in _SHOWN_USER.findall(text)}
        configured = {match[3] for match in _CONFIGURED_USER.finditer(plain)}
        is_named = bool(users & (shown | configured)) or names_one(plain.encode())
        return erased_page(erased_on) if is_named else None

    return rewrite
