"""Figures as a file for a Prometheus textfile collector; the only code that knows the exposition format."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys_spark.errors import ConfigError

_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


@dataclass(frozen=True)
class Gauge:
    """One metric with its samples: label values by label name, and a number. No two samples have the same labels."""

    name: str
    help: str
    samples: Sequence[tuple[Mapping[str, str], float]]


def check_folder(folder: str) -> None:
    """Raise ConfigError unless the folder is there and can be written, so that a run does not learn it at its end."""
    if not os.path.isdir(folder):
        raise ConfigError(
            f"monitoring.prometheus_dir: expected an existing local folder, found {folder!r}; create it, or set the key to null"
        )
    if not os.access(folder, os.W_OK):
        raise ConfigError(
            f"monitoring.prometheus_dir: the folder {folder!r} cannot be written; change its owner or mode"
        )


def write_gauges(folder: str, name: str, gauges: Sequence[Gauge]) -> Path:
    """Replace the file `name.prom` in one step, so that the collector never reads half of it; give its path."""
    path = Path(folder) / f"{name}.prom"
    # in the same folder, because a rename is atomic within one file system only; the collector reads *.prom
    unfinished = path.with_name(f".{name}.{os.getpid()}.tmp")
    try:
        unfinished.write_text(exposition(gauges), encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def exposition(gauges: Sequence[Gauge]) -> str:
    """Give the text format, version 0.0.4. Gauges without samples are left out. ValueError for a name that it does not allow."""
    lines: list[str] = []
    for gauge in gauges:
        if not _METRIC_NAME.fullmatch(gauge.name):
            raise ValueError(
                f"metric name {gauge.name!r} may hold letters, digits, _ and : only, and starts with no digit"
            )
        if gauge.samples:
            lines.append(f"# HELP {gauge.name} {_escaped(gauge.help)}")
            lines.append(f"# TYPE {gauge.name} gauge")
        lines += [f"{gauge.name}{_labels(labels)} {_number(value)}" for labels, value in gauge.samples]
    return "".join(f"{line}\n" for line in lines)


def _labels(labels: Mapping[str, str]) -> str:
    for name in labels:
        if not _LABEL_NAME.fullmatch(name):
            raise ValueError(f"label name {name!r} may hold letters, digits and _ only, and starts with no digit")
    pairs = [f'{name}="{_escaped(value).replace(chr(34), chr(92) + chr(34))}"' for name, value in labels.items()]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if float(value).is_integer() else repr(float(value))
