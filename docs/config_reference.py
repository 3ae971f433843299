"""Print the reference of every configuration key, made from recsys_spark/config.py.

    .venv/bin/python docs/config_reference.py > docs/guide/config.md
    .venv/bin/python docs/config_reference.py --yaml > conf/base.yaml

tests/test_docs.py and tests/test_base_config.py fail when either file is not what this prints.
"""

from __future__ import annotations

import json
import sys
import textwrap
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from recsys_spark.config import Config
from recsys_spark.config_sources import ColumnConfig

_WIDTH = 120
_SIGNS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_LENGTHS = {"min_length": "length at least", "max_length": "length at most"}


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Give the config class that an annotation holds, also inside `X | None` and `dict[str, X]`; null when there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := model_in(part))), None)


def leaves(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Give (dotted key, field) of every key that holds a value; NAME, and KEY below it, stand for the keys of maps."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        inner = model_in(field.annotation)
        if inner is None or not isinstance(field.annotation, type):
            yield key, field
        if inner is not None:
            names = [name for name, depth in (("NAME.", 1), ("KEY.", 2)) if _map_depth(field.annotation) >= depth]
            yield from leaves(inner, f"{key}.{''.join(names)}")


def _map_depth(annotation: Any) -> int:
    return 1 + _map_depth(get_args(annotation)[1]) if get_origin(annotation) is dict else 0


def as_markdown() -> str:
    """Give docs/guide/config.md."""
    parts = [_HEAD]
    top = [(name, field) for name, field in Config.model_fields.items() if model_in(field.annotation) is None]
    parts.append(_table([(name, field) for name, field in top]))
    for name, field in Config.model_fields.items():
        inner = model_in(field.annotation)
        if inner is None:
            continue
        if name == "sources":
            for feed, feed_field in inner.model_fields.items():
                parts.append(_section(f"sources.{feed}", model_in(feed_field.annotation)))
        else:
            parts.append(_section(name, inner))
    return "\n".join(parts)


def as_yaml() -> str:
    """Give conf/base.yaml."""
    return _YAML_HEAD + "\n".join(_yaml_lines(Config(), 0)) + "\n"


def type_text(annotation: Any) -> str:
    """Give a type in words of YAML."""
    if annotation is type(None):
        return "null"
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(type_text(part) for part in parts)
    if origin is tuple:
        return f"list of {type_text(parts[0])}"
    if origin is dict:
        return f"map of {type_text(parts[1])}"
    if hasattr(annotation, "__metadata__"):
        return type_text(annotation.__origin__)
    names = {str: "text", int: "integer", float: "number", bool: "true or false"}
    return names.get(annotation, "keys below" if model_in(annotation) else annotation.__name__)


def range_text(field: FieldInfo) -> str:
    """Give the limits of a field in words; empty without limits."""
    found = []
    for limit in field.metadata:
        for signs in (_SIGNS, _LENGTHS):
            found += [f"{words} {getattr(limit, sign):,}" for sign, words in signs.items() if hasattr(limit, sign)]
        if getattr(limit, "pattern", None):
            found.append(f"pattern `{limit.pattern}`")
    return ", ".join(found)


def choices_text(field: FieldInfo) -> str:
    """Give the allowed words of a field, also of a list's entries; empty when it is no choice."""
    parts = [part for part in (field.annotation, *get_args(field.annotation)) if get_origin(part) is Literal]
    word = "one of" if parts and parts[0] is field.annotation else "any of"
    return f"{word} {', '.join(map(str, get_args(parts[0])))}" if parts else ""


def default_text(field: FieldInfo) -> str:
    """Give the default as one line of YAML."""
    return "required" if field.is_required() else f"`{_inline(_plain(field.get_default(call_default_factory=True)))}`"


def _plain(value: Any) -> Any:
    if isinstance(value, ColumnConfig):
        return value.column if value.column is not None else value.model_dump(exclude_none=True)
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_inline(entry)}" for name, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, str):
        return value if value.replace("_", "").replace("/", "").replace("-", "").isalnum() else json.dumps(value)
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _sentence(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _section(prefix: str, model: type[BaseModel] | None) -> str:
    assert model is not None
    about = " ".join((model.__doc__ or "").split())
    return f"## {prefix}\n\n{about}\n\n{_table(list(leaves(model, f'{prefix}.')))}"


def _table(rows: list[tuple[str, FieldInfo]]) -> str:
    lines = ["| key | type and range | default | meaning |", "|---|---|---|---|"]
    for key, field in rows:
        kind = ", ".join(filter(None, (type_text(field.annotation), range_text(field))))
        cells = (f"`{key}`", kind, default_text(field), _sentence(field))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _yaml_lines(config: BaseModel, depth: int) -> list[str]:
    lines: list[str] = []
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if depth == 0 and lines:
            lines.append("")
        limits = choices_text(field) or range_text(field)
        lines += _comment(_sentence(field) + (f" ({limits[0].upper()}{limits[1:]}.)" if limits else ""), depth)
        if isinstance(value, BaseModel):
            lines += [f"{'  ' * depth}{name}:", *_yaml_lines(value, depth + 1)]
            continue
        described = model_in(field.annotation)
        if described is not None:
            lines += _keys_as_comment(described, depth)
        plain = _plain(value)
        if isinstance(plain, dict) and plain:
            lines.append(f"{'  ' * depth}{name}:")
            lines += [f"{'  ' * (depth + 1)}{key}: {_inline(entry)}" for key, entry in plain.items()]
        else:
            lines.append(f"{'  ' * depth}{name}: {_inline(plain)}")
    return lines


def _keys_as_comment(model: type[BaseModel], depth: int) -> list[str]:
    """Keys of a class that the defaults hold no instance of in full: as comments, so that the file names every key."""
    lines: list[str] = []
    for name, field in model.model_fields.items():
        default = "" if field.is_required() else f" (default: {default_text(field).strip('`')})"
        lines += _comment(f"  {name}: {_sentence(field)}{default}", depth)
    return lines


def _comment(text: str, depth: int) -> list[str]:
    start = "  " * depth + "# "
    hang = start + "    " if text.startswith("  ") else start
    return textwrap.wrap(text, _WIDTH, initial_indent=start, subsequent_indent=hang, drop_whitespace=True,
                         break_long_words=False, break_on_hyphens=False)  # fmt: skip


_HEAD = """\
# Configuration

Printed by `docs/config_reference.py` from [config.py](../../recsys_spark/config.py); do not edit by hand.

A YAML file holds only what differs from the defaults; [conf/base.yaml](../../conf/base.yaml) holds every key. A job applies the
defaults, then the file of `--config`, then every `--set dotted.key=value` in its order (the value is read as YAML; an empty one
is null). A list or a map in a file replaces the default as a whole; sections are merged key by key. `--config` may be given
several times: later files win key by key, in maps too. Unknown keys, keys written twice and values out of range stop the job
with exit code 2 before Spark starts.

`NAME` in a key stands for one of our columns, for example `sources.events.columns.user_id.type` (a plain text is short for
`column: that text`); below `cleaning` for `value` or an
attribute; below `checks.*.null_share` for a column or an attribute, below `quarantined_share` for a reason; below `tune.spaces`
for a model, and `KEY` for a dotted key of this page.
"""

_YAML_HEAD = """\
# Every key with its default. Printed by docs/config_reference.py from recsys_spark/config.py; do not edit by hand.
# Your own file needs only what differs: `.venv/bin/recsys run main_job --config my.yaml`. This file as it is equals no file.

"""

if __name__ == "__main__":
    sys.stdout.write(as_yaml() if "--yaml" in sys.argv[1:] else as_markdown())
