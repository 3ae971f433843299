"""What a study of `recsys tune` is about, and what it found: the best settings as YAML and a table of its trials."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from recsys_spark.config import Config
from recsys_spark.config_file import dump_values
from recsys_spark.infra.search import Trial
from recsys_spark.search_space import FIXED, Space

_TABLE_ROWS = 20


@dataclass(frozen=True)
class Study:
    """Everything that must stay the same for trials to be compared. It is kept with the trials."""

    model: str
    task: str
    metric: str
    k: int
    cutoff: date
    """Trials learn from the events before it and are judged by those from it on."""
    truth_end: date
    """The first day that they are no longer judged by: test begins there at the latest."""
    versions: dict[str, int]
    """Delta versions of events and items."""
    settings: str
    """Hash of the configuration and the space."""

    @property
    def name(self) -> str:
        """Give a name that only the same search on the same data has."""
        return f"{self.model}-{self.cutoff}-{_short_hash(asdict(self))}"

    def as_json(self) -> str:
        """Give the study as text for the database."""
        return json.dumps(asdict(self), default=str)


def study_of_json(text: str) -> Study:
    """Give the study that `Study.as_json` wrote."""
    fields = json.loads(text)
    return Study(**{**fields, **{key: date.fromisoformat(fields[key]) for key in ("cutoff", "truth_end")}})


def settings_hash(config: Config, space: Space) -> str:
    """Give a hash of all that changes a trial's value: the space, and the config without what is stored where and logged how."""
    settings = {key: part for key, part in config.model_dump(mode="json").items() if key not in FIXED}
    settings["fallback"] = config.recommend.fallback
    return _short_hash([settings, {key: parameter.model_dump(mode="json") for key, parameter in space.items()}])


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """Give the trial of the largest value, the earliest of equal ones; null when none has a value."""
    ranked = _ranked(trials)
    return ranked[0] if ranked else None


def best_yaml(
    study: Study, name: str, trials: Sequence[Trial], now: Mapping[str, Any], confidence: float, file: str
) -> str:
    """Give the best trial's settings that differ from those of now, under a comment that says where they come from.

    file is the config that the search was given, as a reader would name it.
    """
    best = best_trial(trials)
    assert best is not None
    start = next((trial for trial in trials if trial.values == now and trial.value is not None), None)
    lines = [
        f"{study.model}, {study.task}, {study.metric} at {study.k}: {_with_interval(best)} ({confidence:.0%} over users), "
        f"trial {best.number} of {len(trials)} of study {name}.",
        *([f"The settings of {file} had {_with_interval(start)}."] if start else []),
        f"Learned from events before {study.cutoff}, judged by those from there to {study.truth_end} (left out). The best of many "
        "looks better than it is: measure it on test, once.",
        "Delta versions: " + ", ".join(f"{table} {version}" for table, version in study.versions.items()) + ".",
        f"Holds what differs from {file}; use both: --config {file} --config best.yaml",
    ]  # fmt: skip
    changed = {key: value for key, value in best.values.items() if key not in now or value != now[key]}
    return "".join(f"# {line}\n" for line in lines) + dump_values(changed)


def trials_table(study: Study, trials: Sequence[Trial], space: Space) -> str:
    """Give the best trials, and at the end the failed ones, as text: value with interval, seconds, settings."""
    done = _ranked(trials)
    failed = [trial for trial in trials if trial.value is None]
    header = ["trial", f"{study.metric}@{study.k}", "seconds", *(key.split(".", 1)[1] for key in space)]
    rows = [header]
    rows += [
        [str(trial.number), _with_interval(trial), f"{trial.facts['seconds']:.0f}", *(_short(trial.values.get(key)) for key in space)]
        for trial in done[:_TABLE_ROWS]
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    if len(done) > _TABLE_ROWS:
        lines.append(f"... and {len(done) - _TABLE_ROWS} more")
    lines += [f"trial {trial.number} failed: {trial.error}" for trial in failed]
    return "\n".join([f"{study.task}, {study.model}, judged from {study.cutoff} to {study.truth_end}", *lines])


def _ranked(trials: Sequence[Trial]) -> list[Trial]:
    with_value = [(-trial.value, trial.number, trial) for trial in trials if trial.value is not None]
    return [trial for *_, trial in sorted(with_value, key=lambda entry: entry[:2])]


def _with_interval(trial: Trial) -> str:
    return f"{trial.value:.4f} ± {(trial.facts['ci_high'] - trial.facts['ci_low']) / 2:.4f}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _short_hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:8]
