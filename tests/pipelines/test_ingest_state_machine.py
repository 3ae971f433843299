"""Ingest against a plain model of its contract: two short random histories; benchmarks/bench_state_machine.py runs long ones."""

from __future__ import annotations

import pytest
from ingest_machine import IngestMachine, UpkeepMachine, run_machine


@pytest.mark.parametrize(("machine", "number", "steps"), [(IngestMachine, 40, 7), (UpkeepMachine, 28, 4)])
def test_any_history_gives_what_the_contract_says(spark, tmp_path, machine, number, steps):
    run_machine(spark, tmp_path, number, steps, machine)
