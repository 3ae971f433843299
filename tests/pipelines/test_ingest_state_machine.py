"""Ingest against a plain model of its contract: two short random histories; benchmarks/bench_state_machine.py runs long ones."""

from __future__ import annotations

from ingest_machine import RULES, IngestMachine, UpkeepMachine, run_machine

# Drawn by this version of Hypothesis from these seeds; another version draws others, and the last assertion asks for new seeds.
HISTORIES = ((IngestMachine, 723, 10), (UpkeepMachine, 133, 5))
EVERY_RULE = {
    "deliver", "deliver_days_one_by_one", "deliver_crash_and_rerun", "repeat", "repeat_in_other_files", "merge_late",
    "optimise_and_vacuum", "replay", "maintain", "erase",
}  # fmt: skip


def test_any_history_gives_what_the_contract_says(spark, tmp_path):
    RULES.clear()
    for machine, seed, steps in HISTORIES:
        run_machine(spark, tmp_path, seed, steps, machine)
    assert set(RULES) >= EVERY_RULE, f"these seeds draw no {EVERY_RULE - set(RULES)}: choose others"
