"""Read a YAML config: defaults <- file <- --set, with errors that name the file, the key and its nearest known neighbour."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from recsys_spark.config import Config
from recsys_spark.config_base import BaseConfig
from recsys_spark.errors import ConfigError

_SECRET = re.compile(r"secret|password|token|credential|access\.?key|account\.key", re.IGNORECASE)


# s3a://bucket/..., abfss://container@account/... hold no password: only a name and a password are taken for a login
_LOGIN = re.compile(r"//[^/@:\s]*:[^/@\s]*@")


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice; plain YAML would silently keep the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key_node, deep=True) for key_node, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"key {twice[0]!r} is written twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load_config(path: str | Path | Sequence[str | Path] | None = None, overrides: Sequence[str] = ()) -> Config:
    """Give the configuration of a YAML file (null: the defaults) with `dotted.key=value` overrides on top.

    Of several files later ones win, key by key. Raises ConfigError for a missing or malformed file, an unknown key (with its
    nearest neighbour) or a value out of range.
    """
    paths = [path] if isinstance(path, str | Path) else list(path or [])
    values: dict[str, Any] = {}
    for one in paths:
        _merge(values, _read_yaml(Path(one)))
    for override in overrides:
        _apply_override(values, override)
    return _validated(values, ", ".join(map(str, paths)) or "the defaults")


def with_values(config: Config, values: Mapping[str, Any], origin: str) -> Config:
    """Give the config with other values at some dotted keys, checked as a file's are; origin is named in the ConfigError."""
    changed = config.model_dump()
    for key, value in values.items():
        _put(changed, key, value, origin)
    return _validated(changed, origin)


def dump_values(values: Mapping[str, Any]) -> str:
    """Give values at dotted keys as YAML that `load_config` reads."""
    sections: dict[str, Any] = {}
    for key, value in values.items():
        _put(sections, key, value, key)
    return yaml.safe_dump(sections, sort_keys=False, allow_unicode=True)


def flatten_config(config: BaseModel, prefix: str = "") -> dict[str, str]:
    """Give every set leaf as `dotted.key` -> text, in the order of the config (for MLflow's parameters)."""
    flat: dict[str, str] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            flat.update(flatten_config(value, f"{prefix}{name}."))
        elif isinstance(value, dict):
            for key, entry in value.items():
                is_model = isinstance(entry, BaseModel)
                flat.update(
                    flatten_config(entry, f"{prefix}{name}.{key}.")
                    if is_model
                    else {f"{prefix}{name}.{key}": str(entry)}
                )
        elif value is not None:
            flat[f"{prefix}{name}"] = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return flat


def without_secrets(config: Config) -> Config:
    """Give the config as it may be logged.

    Secrets in spark.conf (found by their key), who logs in in an address (`scheme://user:password@host`), database URLs and a
    user's id are replaced by `***`.
    """
    conf = {key: "***" if _SECRET.search(key) else value for key, value in config.spark.conf.items()}
    shown: dict[str, BaseConfig] = {"spark": config.spark.model_copy(update={"conf": conf})}
    if config.evaluation.example_user not in (None, "median"):
        shown["evaluation"] = config.evaluation.model_copy(update={"example_user": "***"})
    shown["tracking"] = config.tracking.model_copy(update={"uri": _without_login(config.tracking.uri)})
    if config.tune.storage is not None:  # whose options may hold a password, too
        kind = config.tune.storage.partition("://")[0]
        shown["tune"] = config.tune.model_copy(update={"storage": f"{kind}://***"})
    sources = {
        feed: source.model_copy(update={"path": _without_login(source.path)})
        for feed, source in (("events", config.sources.events), ("items", config.sources.items))
    }
    shown["sources"] = config.sources.model_copy(update=sources)
    return config.model_copy(update={**shown, "data_root": _without_login(config.data_root)})


def _without_login(address: str | None) -> str | None:
    return _LOGIN.sub("//***@", address) if address else address


def dump_config(config: Config) -> str:
    """Give the whole configuration as YAML that `load_config` reads back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)


def _validated(values: dict[str, Any], origin: str) -> Config:
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(problem, origin) for problem in error.errors())) from None


def _merge(values: dict[str, Any], later: Mapping[str, Any]) -> None:
    for key, value in later.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = _UniqueKeyLoader(path.read_text(encoding="utf-8")).get_single_data()
    except FileNotFoundError:
        raise ConfigError(f"config file {path} does not exist; conf/ holds examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"config file {path} is not valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"config file {path} must hold keys and values, found {type(values).__name__}")
    return values


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set expects dotted.key=value, found {override!r}")
    try:
        value = yaml.safe_load(text) if text else None
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML: {error}") from None
    _put(values, key.strip(), value, f"--set {override!r}")


def _put(values: dict[str, Any], key: str, value: Any, origin: str) -> None:
    *parents, leaf = key.split(".")
    target = values
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise ConfigError(f"{origin}: {parent} holds a value, not keys")
    target[leaf] = value


def _explain(problem: Any, origin: str) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] != "extra_forbidden":
        return f"{origin}: {key or 'config'}: {problem['msg'].removeprefix('Value error, ')} (found {_short(problem['input'])})"
    known = _known_keys(location[:-1])
    near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
    hint = f"did you mean {'.'.join([*location[:-1], near[0]])}?" if near else f"known keys here: {', '.join(known)}"
    return f"{origin}: unknown key {key}; {hint}"


def _known_keys(path: Sequence[str]) -> list[str]:
    model: Any = Config
    for part in path:
        field = model.model_fields.get(part) if model else None
        model = _model_in(field.annotation) if field else model  # inside a dict of models the key names no field
    return list(model.model_fields) if model else []


def _model_in(annotation: Any) -> Any:
    """Give the config class that an annotation holds, looking into `X | None` and `dict[str, X]`; null when there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def conf_folder() -> Path:
    """Give the folder of the example configs: the checkout's, or the one that the wheel installs."""
    checkout = Path(__file__).resolve().parents[1] / "conf"
    return checkout if checkout.is_dir() else Path(sys.prefix) / "share" / "recsys_spark" / "conf"
