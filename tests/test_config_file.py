"""YAML files and --set: what overrides what, and errors that say where to look."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from recsys_spark.config import Config
from recsys_spark.config_file import dump_config, dump_values, flatten_config, load_config, with_values, without_secrets
from recsys_spark.errors import ConfigError

CONF = Path(__file__).parent.parent / "conf"


def write(tmp_path, text):
    path = tmp_path / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_the_defaults_hold():
    assert load_config() == Config()


def test_an_empty_file_changes_nothing(tmp_path):
    assert load_config(write(tmp_path, "# nothing yet\n")) == Config()


def test_a_file_holds_only_what_differs_and_set_comes_last(tmp_path):
    path = write(tmp_path, "als:\n  rank: 8\n  alpha: 3\nsplit:\n  test_start: 2024-03-01\n")
    config = load_config(path, ["als.rank=16", "recommend.models=[als, popular]", "tables.catalog=main.shop"])
    assert (config.als.rank, config.als.alpha, config.als.seed) == (16, 3.0, Config().als.seed)
    assert config.split.test_start == date(2024, 3, 1)
    assert config.recommend.models == ("als", "popular")
    assert config.tables.catalog == "main.shop"


def test_an_empty_value_in_set_is_null(tmp_path):
    path = write(tmp_path, "tables: {catalog: main.shop}")
    assert load_config(path, ["tables.catalog="]).tables.catalog is None


def test_set_keeps_what_stands_behind_a_second_equals_sign():
    config = load_config(None, ["sources.events.filters.returned=quantity = '0'"])
    assert config.sources.events.filters == {"returned": "quantity = '0'"}


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("als: {ranks: 8}", "unknown key als.ranks; did you mean als.rank?"),
        ("alz: {rank: 8}", "unknown key alz; did you mean als?"),
        ("sources: {events: {delimeter: ';'}}", "did you mean sources.events.delimiter?"),
        ("sources: {items: {columns: {item_id: {colum: sku}}}}", "did you mean sources.items.columns.item_id.column?"),
        ("tables: {zzz: 1}", "known keys here: catalog, merge_attempts"),
    ],
)
def test_an_unknown_key_names_its_nearest_neighbour(tmp_path, text, hint):
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path, text))
    assert hint in str(error.value)
    assert "job.yaml" in str(error.value)


def test_all_problems_are_named_at_once(tmp_path):
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path, "als: {rank: 0, alfa: 2}\nrecommend: {k: many}"))
    assert len(str(error.value).splitlines()) == 3
    assert "als.rank: Input should be greater than or equal to 1 (found 0)" in str(error.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("als:\n  rank: 8\n  rank: 9\n", "'rank' is written twice"),
        ("als: {}\nals: {}\n", "'als' is written twice"),
        ("als: [1, 2", "not valid YAML"),
        ("- a\n- b\n", "must hold keys and values, found list"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("als: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_malformed_file_is_a_config_error(tmp_path, text, problem):
    with pytest.raises(ConfigError, match=r"job\.yaml") as error:
        load_config(write(tmp_path, text))
    assert problem in str(error.value)


def test_a_file_that_is_not_text_or_not_there_is_a_config_error(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for path, problem in [("binary.yaml", "cannot be read"), ("none.yaml", "does not exist"), (".", "cannot be read")]:
        with pytest.raises(ConfigError, match=problem):
            load_config(tmp_path / path)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("als.rank", "expects dotted.key=value"),
        ("=3", "expects dotted.key=value"),
        ("als.rank=[1", "not valid YAML"),
        ("als.rank.deep=1", "unknown key|valid integer"),
        ("als.rnak=3", "did you mean als.rank"),
    ],
)
def test_a_malformed_set_is_a_config_error(override, problem):
    with pytest.raises(ConfigError, match=problem):
        load_config(None, [override])


def test_set_does_not_step_through_a_value(tmp_path):
    with pytest.raises(ConfigError, match="rank holds a value"):
        load_config(write(tmp_path, "als: {rank: 3}"), ["als.rank.deep=1"])


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.name)
def test_every_file_in_conf_loads_and_survives_a_round_trip(path, tmp_path):
    config = load_config(path)
    assert load_config(write(tmp_path, dump_config(config))) == config


def test_a_dumped_config_is_read_back_to_an_equal_one(tmp_path):
    config = load_config(
        None,
        [
            "split.test_start=2024-03-01", "sources.events.header=[a, b]", "sources.events.filters={价格: \"x = '1'\"}",
            "interactions.event_weights={view: 1, buy: 3}", "sources.events.event_id.hash_of=[a]",
        ],
    )  # fmt: skip
    assert load_config(write(tmp_path, dump_config(config))) == config


def test_the_flat_form_names_every_set_leaf():
    flat = flatten_config(load_config(None, ["interactions.event_weights.buy=3", "recommend.models=[als]"]))
    assert flat["als.rank"] == "64"
    assert flat["interactions.event_weights.buy"] == "3.0"
    assert flat["recommend.models"] == "als"
    assert flat["sources.events.columns.user_id.column"] == "user_id"
    assert "tables.catalog" not in flat


def test_secrets_of_spark_settings_are_not_shown():
    config = load_config(
        None,
        [
            "spark.conf={spark.hadoop.fs.s3a.secret.key: hush, spark.hadoop.fs.s3a.access.key: quiet, spark.ui.enabled: 'false'}"
        ],
    )
    shown = without_secrets(config).spark.conf
    assert list(shown.values()) == ["***", "***", "false"]
    assert config.spark.conf["spark.hadoop.fs.s3a.secret.key"] == "hush"


def test_a_login_in_an_address_is_not_logged():
    config = load_config(
        None, ["tracking.uri=postgresql://anna:hush@db/mlflow", "sources.events.path=s3a://key:hush@b/raw"]
    )
    shown = without_secrets(config)
    assert shown.tracking.uri == "postgresql://***@db/mlflow"
    assert shown.sources.events.path == "s3a://***@b/raw"
    container = "abfss://raw@account.dfs.example/x"
    assert without_secrets(load_config(None, [f"sources.events.path={container}"])).sources.events.path == container


def test_a_configured_user_is_not_logged():
    for shown, config_value in (("***", "u-17"), ("median", "median"), (None, None)):
        config = Config.model_validate({"evaluation": {"example_user": config_value}})
        assert without_secrets(config).evaluation.example_user == shown


# several files, and values from a search


def test_later_files_win_key_by_key(tmp_path):
    first, second = tmp_path / "shop.yaml", tmp_path / "best.yaml"
    first.write_text("als: {rank: 8, alpha: 3}\nrecommend: {models: [als, popular]}\n", encoding="utf-8")
    second.write_text("als: {rank: 96}\nrecommend: {models: [als]}\n", encoding="utf-8")
    config = load_config([first, second], ["als.seed=7"])
    assert (config.als.rank, config.als.alpha, config.als.seed) == (96, 3.0, 7)
    assert config.recommend.models == ("als",)
    assert load_config([second, first]).als.rank == 8


def test_an_error_in_one_of_several_files_names_all_of_them(tmp_path):
    path = write(tmp_path, "als: {rank: 0}")
    with pytest.raises(ConfigError, match=r"demo\.yaml, .*job\.yaml: als\.rank"):
        load_config([CONF / "demo.yaml", path])


def test_values_at_dotted_keys_are_checked_like_a_files():
    config = load_config(CONF / "demo.yaml")
    changed = with_values(config, {"als.rank": 96, "interactions.event_weights.view": 0.5}, origin="trial 3")
    assert (changed.als.rank, changed.als.alpha) == (96, config.als.alpha)
    assert changed.interactions.event_weights == {"view": 0.5}
    assert with_values(config, {}, origin="nothing") == config
    with pytest.raises(ConfigError, match=r"trial 3: als\.rank: .*found 0"):
        with_values(config, {"als.rank": 0}, origin="trial 3")
    with pytest.raises(ConfigError, match=r"trial 3: unknown key als\.rnak; did you mean als\.rank\?"):
        with_values(config, {"als.rnak": 8}, origin="trial 3")
    with pytest.raises(ConfigError, match=r"trial 3: rank holds a value, not keys"):
        with_values(config, {"als.rank.low": 8}, origin="trial 3")


def test_values_at_dotted_keys_become_a_file(tmp_path):
    values = {"als.rank": 96, "als.reg_param": 1e-05, "interactions.half_life_days": None}
    path = write(tmp_path, dump_values(values))
    assert load_config(path) == with_values(Config(), values, origin="x")


def test_password_of_a_studies_database_is_not_shown():
    config = load_config(None, ["tune.storage=postgresql://tuner:hunter2@db.example/studies"])
    assert "hunter2" not in dump_config(without_secrets(config))
    assert without_secrets(config).tune.storage == "postgresql://***"
