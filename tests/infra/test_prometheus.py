"""The Prometheus text file, read back by a parser that was written from the format's description alone."""

from __future__ import annotations

import os
import re
import stat

import pytest

from recsys_spark.errors import ConfigError
from recsys_spark.infra.prometheus import Gauge, check_folder, exposition, write_gauges

SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)')
LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\\n]|\\["\\n])*)"')
ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


def parse(text):
    """Give {(metric, ((label, value), ...)): number}; every metric must have its HELP and TYPE before its samples, once."""
    assert text.endswith("\n")
    found, described, typed = {}, [], []
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            described.append(line.split(" ")[2])
        elif line.startswith("# TYPE "):
            assert line.split(" ")[3] == "gauge"
            typed.append(line.split(" ")[2])
        else:
            name, labels, number = SAMPLE.fullmatch(line).groups()
            assert name == described[-1] == typed[-1]
            unescaped = [
                (key, re.sub(r'\\[\\"n]', lambda e: ESCAPES[e[0]], value)) for key, value in LABEL.findall(labels or "")
            ]
            key = (name, tuple(unescaped))
            assert key not in found
            found[key] = float(number)
    assert described == typed
    assert len(set(described)) == len(described)
    return found


def test_what_is_written_is_read_back_with_all_that_labels_may_hold():
    odd = 'a "quoted"\\ back\nslash, {brace}=用户'
    gauges = [
        Gauge("recsys_lines", "Lines\nof a \\ run.", [({"source": "shop", "rule": odd}, 12.0), ({"source": "b", "rule": ""}, 0.25)]),
        Gauge("recsys_seconds", 'Seconds of "it".', [({}, 1e-7)]),
        Gauge("recsys_nothing", "No samples.", []),
        Gauge("recsys_large", "Large.", [({}, 1_709_683_199.123456), ({"x": "inf"}, float("inf"))]),
    ]  # fmt: skip
    text = exposition(gauges)
    assert "recsys_nothing" not in text
    assert parse(text) == {
        ("recsys_lines", (("source", "shop"), ("rule", odd))): 12,
        ("recsys_lines", (("source", "b"), ("rule", ""))): 0.25,
        ("recsys_seconds", ()): 1e-7,
        ("recsys_large", ()): 1_709_683_199.123456,
        ("recsys_large", (("x", "inf"),)): float("inf"),
    }
    assert '# HELP recsys_lines Lines\\nof a \\\\ run.\n# TYPE recsys_lines gauge\nrecsys_lines{source="shop"' in text


@pytest.mark.parametrize("gauge", [Gauge("1st", "x", []), Gauge("a-b", "x", []), Gauge("a", "x", [({"b-c": ""}, 1)])])
def test_names_that_the_format_does_not_allow_are_refused(gauge):
    with pytest.raises(ValueError, match="may hold letters"):
        exposition([gauge])


def test_a_file_is_replaced_as_a_whole_and_others_stay(tmp_path):
    write_gauges(str(tmp_path), "one", [Gauge("a", "A.", [({}, 1)]), Gauge("b", "B.", [({}, 1)])])
    write_gauges(str(tmp_path), "two", [Gauge("a", "A.", [({"x": "y"}, 1)])])
    path = write_gauges(str(tmp_path), "one", [Gauge("a", "A.", [({}, 2)])])
    assert parse(path.read_text()) == {("a", ()): 2}
    assert sorted(os.listdir(tmp_path)) == ["one.prom", "two.prom"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask  # the collector runs as another user


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_gauges(str(tmp_path), "one", [Gauge("a", "A.", [({}, 1)])])
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        write_gauges(str(tmp_path), "one", [Gauge("a", "A.", [({}, 2)])])
    assert parse(path.read_text()) == {("a", ()): 1}
    assert os.listdir(tmp_path) == ["one.prom"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    check_folder(str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"prometheus_dir: expected an existing local folder, found '.*nowhere'; create it"
    ):
        check_folder(str(tmp_path / "nowhere"))
