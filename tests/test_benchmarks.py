"""Every benchmark still starts: the package's names that it imports are there, and its options are read."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
NEEDS = {"bench_encoder_gpu": "torch", "bench_ann": "faiss"}


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("bench_*.py")))
def test_a_benchmark_says_how_it_is_used(name, monkeypatch, capsys):
    pytest.importorskip(NEEDS.get(name, "numpy"))
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 0
    assert "usage: " in capsys.readouterr().out
