"""conf/base.yaml holds every knob with its default."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import yaml
from pydantic import BaseModel

from recsys_spark import config as config_module
from recsys_spark.config import Config
from recsys_spark.config_file import load_config

ROOT = Path(__file__).parent.parent
BASE = ROOT / "conf" / "base.yaml"


def test_the_file_equals_the_defaults():
    assert load_config(BASE) == Config()


def test_the_file_is_what_its_script_prints():
    script = runpy.run_path(str(ROOT / "docs" / "config_reference.py"), run_name="config_reference")
    hint = "run .venv/bin/python docs/config_reference.py --yaml > conf/base.yaml"
    assert BASE.read_text(encoding="utf-8") == script["as_yaml"](), hint


def test_every_key_of_the_defaults_is_written_out():
    def check(config, values, path):
        assert list(values) == list(type(config).model_fields), path
        for name, value in values.items():
            if isinstance(getattr(config, name), BaseModel):
                check(getattr(config, name), value, f"{path}.{name}")

    check(Config(), yaml.safe_load(BASE.read_text(encoding="utf-8")), "config")


def test_every_field_of_every_config_class_is_named():
    """Keys without a default instance (a column's, event_id's) stand as comments."""
    named = set(re.findall(r"^[ #]*([a-z_]+):", BASE.read_text(encoding="utf-8"), re.MULTILINE))
    classes = [
        value
        for value in vars(config_module).values()
        if isinstance(value, type) and issubclass(value, config_module.BaseConfig)
    ]
    for config_class in classes:
        assert set(config_class.model_fields) <= named, config_class.__name__
