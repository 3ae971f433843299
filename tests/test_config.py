"""The typed configuration: ranges, rules between fields, and that nothing can change it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from recsys_spark.config import AlsConfig, Config, InteractionsConfig, SplitConfig
from recsys_spark.config_file import load_config
from recsys_spark.config_sources import ColumnConfig, EventSourceConfig, ItemSourceConfig
from recsys_spark.errors import ConfigError

COLUMNS = {name: name for name in ("event_id", "user_id", "item_id", "event_type", "timestamp")}


def test_a_config_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Config().als.rank = 3


def test_model_settings_can_be_keys_of_a_cache():
    assert len({AlsConfig(), AlsConfig(), AlsConfig(rank=8)}) == 2


@pytest.mark.parametrize(
    "values",
    [
        {"als": {"rank": 0}},
        {"als": {"reg_param": -0.1}},
        {"als": {"alpha": float("nan")}},
        {"als": {"alpha": float("inf")}},
        {"ingest": {"max_quarantined_share": 1.01}},
        {"ingest": {"horizon_days": -1}},
        {"ingest": {"near_duplicate_seconds": float("nan")}},
        {"tables": {"merge_attempts": 0}},
        {"interactions": {"event_weights": {"view": float("nan")}}},
        {"interactions": {"event_weights": {"view": -1}}},
        {"interactions": {"half_life_days": 0}},
        {"split": {"test_share": 0.5}},
        {"recommend": {"models": ["popular", "magic"]}},
        {"recommend": {"models": ["als", "als"]}},
        {"recommend": {"models": []}},
        {"recommend": {"tasks": []}},
        {"evaluation": {"k": []}},
        {"sources": {"events": {"name": "two words"}}},
        {"sources": {"events": {"format": "xml"}}},
        {"sources": {"events": {"quote": '""'}}},
        {"sources": {"events": {"event_id": {"hash_of": []}}}},
        {"sources": {"events": {"timestamp_min": "yesterday"}}},
        {"cleaning": {"robots": {"max_events_per_hour": 0}}},
        {"cleaning": {"missing": {"value": {"method": "guess"}}}},
        {"cleaning": {"missing": {"value": {"method": "mean", "by": ["session_id"]}}}},
        {"cleaning": {"ratings": {"column": " "}}},
        {"ingest": {"unicode_form": "NFD"}},
    ],
    ids=str,
)
def test_a_value_out_of_range_is_refused(values):
    with pytest.raises(ValidationError):
        Config.model_validate(values)


def test_a_plain_string_is_short_for_a_source_field():
    source = EventSourceConfig.model_validate({"columns": {**COLUMNS, "user_id": "customer"}})
    assert source.columns["user_id"] == ColumnConfig(column="customer")


@pytest.mark.parametrize(
    "origin", [{}, {"column": "a", "value": "b"}, {"expression": "a", "value": "b"}, {"type": "integer"}]
)
def test_a_column_has_exactly_one_origin(origin):
    with pytest.raises(ValidationError, match="exactly one of column, expression, value"):
        ColumnConfig.model_validate(origin)


@pytest.mark.parametrize("missing", ["event_id", "user_id", "item_id", "event_type", "timestamp"])
def test_every_required_column_of_events_needs_an_origin(missing):
    columns = {name: origin for name, origin in COLUMNS.items() if name != missing}
    with pytest.raises(ValidationError, match=missing):
        EventSourceConfig.model_validate({"columns": columns})


def test_event_id_needs_no_origin_when_it_is_hashed():
    columns = {name: origin for name, origin in COLUMNS.items() if name != "event_id"}
    assert EventSourceConfig.model_validate({"columns": columns, "event_id": {"hash_of": ["user_id"]}}).event_id


def test_columns_that_are_not_ours_are_named():
    with pytest.raises(ValidationError, match="colour"):
        EventSourceConfig.model_validate({"columns": {**COLUMNS, "colour": "colour"}})
    with pytest.raises(ValidationError, match="item_id"):
        ItemSourceConfig.model_validate({"columns": {"title": "title"}})


@pytest.mark.parametrize("test_start", ["2024-03-01", "2024-02-01"])
def test_validation_comes_before_test(test_start):
    with pytest.raises(ValidationError, match="must be before"):
        SplitConfig.model_validate({"validation_start": "2024-03-01", "test_start": test_start})


def test_every_knob_has_a_sentence():
    def silent(model, path="config"):
        for name, field in model.model_fields.items():
            if not field.description:
                yield f"{path}.{name}"
            if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
                yield from silent(field.annotation, f"{path}.{name}")

    assert list(silent(Config)) == []


def test_the_default_weights_are_those_of_the_documentation():
    assert InteractionsConfig().default_weight == 1.0
    assert Config().ingest.max_quarantined_share == 0.05


@pytest.mark.parametrize("encoding", ["UTF-16", "utf_16_le", "UTF-32BE"])
def test_encodings_whose_newline_is_no_single_byte_are_refused(encoding):
    with pytest.raises(ConfigError, match=r"sources\.events\.encoding: lines are split at the byte of a newline"):
        load_config(None, [f"sources.events.encoding={encoding}"])


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("[", "no regular expression"),
        (r"\d{4}-\d{2}-\d{2}", "a group"),
        (r"(?P<day>\d{4}-\d{2}-\d{2})", r"expected a plain group.*found \(\?P of Python"),
    ],
)
def test_a_date_pattern_that_finds_no_date_is_refused(pattern, problem):
    with pytest.raises(ConfigError, match=rf"sources\.events\.date_pattern: .*{problem}"):
        load_config(None, [f"sources.events.date_pattern='{pattern}'"])


def test_lists_too_short_for_the_metrics_are_refused():
    with pytest.raises(ConfigError, match=r"evaluation\.k asks for 20 items but lists hold recommend\.k = 10"):
        load_config(None, ["recommend.k=10"])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"missing": {"value": {"method": "default"}}}, "expects `default`"),
        ({"missing": {"value": {"method": "drop", "default": 0}}}, "expected no `default`"),
        ({"missing": {"value": {"method": "drop", "by": ["user_id"]}}}, r"no `by`, found \['user_id'\]"),
        ({"outliers": {"value": {"method": "z_score", "limit": 3, "low": 0.1}}}, "neither `low` nor `high`"),
        ({"outliers": {"value": {"method": "quantile", "limit": 3}}}, "`low`, `high` or both, and no `limit`"),
        ({"outliers": {"value": {"method": "quantile"}}}, "`low`, `high` or both"),
        ({"outliers": {"value": {"method": "quantile", "low": 0.9, "high": 0.1}}}, r"low 0\.9 must be below high 0\.1"),
        ({"missing": {"timestamp": {"method": "drop"}}}, "expected value or the name of an attribute"),
    ],
)
def test_a_cleaning_rule_says_what_its_method_expects(rule, message):
    with pytest.raises(ValidationError, match=message):
        Config.model_validate({"interactions": {"weight_column": "value"}, "cleaning": rule})


def test_cleaning_a_number_that_no_model_reads_is_refused():
    rule = {"missing": {"dwell": {"method": "mean"}, "value": {"method": "drop"}}}
    with pytest.raises(
        ValidationError, match=r"cleaning changes \['dwell'\], which no model reads: .*weight_column is value"
    ):
        Config.model_validate({"cleaning": rule, "interactions": {"weight_column": "value"}})
    assert Config.model_validate({"cleaning": rule, "interactions": {"weight_column": "dwell"}})
