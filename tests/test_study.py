"""What a study says about itself: its name, the best settings as a file that loads, the table of trials."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from recsys_spark.config import Config
from recsys_spark.config_file import load_config, with_values
from recsys_spark.infra.search import Trial
from recsys_spark.search_space import space_of
from recsys_spark.study import Study, best_trial, best_yaml, settings_hash, study_of_json, trials_table

STUDY = Study(
    model="als", task="discovery", metric="ndcg", k=10, cutoff=date(2024, 3, 1), truth_end=date(2024, 3, 8),
    versions={"events": 12, "items": 3}, settings="abcd1234",
)  # fmt: skip
NOW = {"als.rank": 64, "als.alpha": 1.0}


def test_a_best_value_that_the_space_does_not_hold_today_is_written_also_when_it_is_null():
    best = Trial(
        1,
        {"als.rank": 64, "interactions.half_life_days": None},
        0.3,
        {"seconds": 1.0, "ci_low": 0.2, "ci_high": 0.4},
        None,
    )
    text = best_yaml(STUDY, "s", [best], {"als.rank": 64}, 0.95, "conf/demo.yaml")
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        "interactions:",
        "  half_life_days: null",
    ]


def trial(number, value, rank=64, alpha=1.0, error=None):
    facts = {} if value is None else {"seconds": 12.4, "ci_low": value - 0.01, "ci_high": value + 0.01}
    return Trial(number, {"als.rank": rank, "als.alpha": alpha}, value, facts, error)


TRIALS = [trial(0, 0.1), trial(1, 0.3, rank=32), trial(2, None, alpha=40.0, error="not finite"), trial(3, 0.3, rank=16)]


def test_study_survives_its_text():
    assert study_of_json(STUDY.as_json()) == STUDY


def test_name_differs_with_everything_that_forbids_a_comparison():
    others = [
        replace(STUDY, **{field: value}) for field, value in
        {"model": "neighbours", "task": "next", "metric": "hr", "k": 5, "cutoff": date(2024, 2, 1), "truth_end": date(2024, 3, 9),
         "versions": {"events": 13, "items": 3}, "settings": "other"}.items()
    ]  # fmt: skip
    assert len({study.name for study in [STUDY, *others]}) == 9
    assert STUDY.name == replace(STUDY).name
    assert STUDY.name.startswith("als-2024-03-01-")


@pytest.mark.parametrize(
    ("change", "is_other"),
    [
        ("als.rank=8", True), ("interactions.half_life_days=30", True), ("recommend.fallback=popular", True),
        ("tracking.experiment=x", False), ("data_root=elsewhere", False), ("spark.shuffle_partitions=8", False),
    ],
)  # fmt: skip
def test_settings_differ_where_a_trial_could(change, is_other):
    hashes = {settings_hash(config, space_of(Config(), "als")) for config in (Config(), load_config(None, [change]))}
    assert len(hashes) == 1 + is_other


def test_settings_differ_by_the_space():
    wider = load_config(None, ["tune.spaces.als={als.rank: {low: 8, high: 512}}"])
    assert settings_hash(Config(), space_of(wider, "als")) != settings_hash(Config(), space_of(Config(), "als"))


def test_best_trial_is_the_earliest_of_equal_ones():
    assert best_trial(TRIALS).number == 1
    assert best_trial([TRIALS[2]]) is None


def test_best_settings_hold_only_what_differs_and_load_on_top_of_the_file(tmp_path):
    text = best_yaml(STUDY, "my-study", TRIALS, NOW, 0.95, "conf/demo.yaml")
    first, best = tmp_path / "first.yaml", tmp_path / "best.yaml"
    first.write_text("als: {alpha: 1.0}\npopular: {recent_days: 9}\n", encoding="utf-8")
    best.write_text(text, encoding="utf-8")
    loaded = load_config([first, best])
    assert loaded == with_values(load_config(first), {"als.rank": 32}, origin="best")
    assert "alpha" not in text
    for said in ("0.3000 ± 0.0100", "95%", "trial 1 of 4 of study my-study", "conf/demo.yaml had 0.1000", "events 12, items 3",
                 "before 2024-03-01", "--config conf/demo.yaml --config best.yaml"):  # fmt: skip
        assert said in text


def test_best_settings_that_are_the_present_ones_are_an_empty_file(tmp_path):
    path = tmp_path / "best.yaml"
    path.write_text(best_yaml(STUDY, "s", TRIALS[:1], NOW, 0.95, "x"), encoding="utf-8")
    assert load_config(path) == Config()


def test_table_shows_the_best_first_and_why_others_failed():
    config = load_config(None, ["tune.spaces.als={als.rank: {low: 8, high: 64}, als.alpha: {low: 0.5, high: 40.0}}"])
    assert trials_table(STUDY, TRIALS, space_of(config, "als")).splitlines() == [
        "discovery, als, judged from 2024-03-01 to 2024-03-08",
        "trial          ndcg@10  seconds  rank  alpha",
        "    1  0.3000 ± 0.0100       12    32      1",
        "    3  0.3000 ± 0.0100       12    16      1",
        "    0  0.1000 ± 0.0100       12    64      1",
        "trial 2 failed: not finite",
    ]
