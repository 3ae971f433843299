"""Exit codes, messages and options of jobs and of the `recsys` command. No Spark: the session is a stub."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import date

import pytest

from recsys_spark import demo_data
from recsys_spark.cli import PIPELINES, main, run_job
from recsys_spark.data.outcome import BUCKETS
from recsys_spark.errors import ConfigError, DataError, ModelError, RetryableError, SchemaError, TrainingError
from recsys_spark.infra import erased, session

pytestmark = pytest.mark.usefixtures("package_logger")


class StubSession:
    """Stands for a SparkSession and remembers whether it was stopped."""

    stopped = False

    def stop(self):
        self.stopped = True


@pytest.fixture
def spark_stub(monkeypatch):
    stub = StubSession()
    monkeypatch.setattr(session, "build_session", lambda config: stub)
    monkeypatch.setattr(erased, "version", lambda spark, config: None)  # nobody was ever erased
    return stub


@pytest.fixture
def no_spark(monkeypatch):
    def refuse(config):
        raise AssertionError("Spark was started")

    monkeypatch.setattr(session, "build_session", refuse)


def exit_code(call, *arguments):
    with pytest.raises(SystemExit) as stopped:
        call(*arguments)
    return stopped.value.code


def pipeline_raising(error):
    def pipeline(spark, config, run_date):
        """A pipeline that fails."""
        raise error

    return pipeline


# jobs


def test_job_gives_session_config_and_date_to_its_pipeline_and_ends_with_0(spark_stub, tmp_path):
    calls = []

    def pipeline(spark, config, run_date):
        """A pipeline."""
        calls.append((spark, config.als.rank, config.als.alpha, run_date))
        return {}

    path = tmp_path / "own.yaml"
    path.write_text("als: {rank: 8, alpha: 2.0}\n")
    arguments = ["--config", str(path), "--set", "als.rank=16", "--date", "2024-03-10"]
    assert exit_code(run_job, pipeline, arguments) == 0
    assert calls == [(spark_stub, 16, 2.0, date(2024, 3, 10))]
    assert spark_stub.stopped


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("c"), 2), (DataError("d"), 3), (SchemaError("s"), 3), (RetryableError("r"), 75),
        (ModelError("m"), 1), (TrainingError("t"), 1), (ValueError("v"), 1), (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)  # fmt: skip
def test_error_ends_the_job_with_its_exit_code_and_stops_spark(spark_stub, error, code):
    assert exit_code(run_job, pipeline_raising(error), []) == code
    assert spark_stub.stopped


def test_foreseen_error_prints_one_line_and_no_traceback(spark_stub, capsys):
    exit_code(run_job, pipeline_raising(DataError("expected files, found none; check the path")), [])
    printed = [line for line in capsys.readouterr().err.splitlines() if " INFO " not in line]
    assert printed == ["recsys: expected files, found none; check the path"]


def test_verbose_adds_the_traceback_of_a_foreseen_error(spark_stub, capsys):
    exit_code(run_job, pipeline_raising(DataError("found none")), ["-v"])
    printed = capsys.readouterr().err
    assert "Traceback (most recent call last)" in printed
    assert "recsys: found none" in printed


def test_unforeseen_error_prints_its_traceback(spark_stub, capsys):
    exit_code(run_job, pipeline_raising(ZeroDivisionError("somewhere deep")), [])
    printed = capsys.readouterr().err
    assert "Traceback (most recent call last)" in printed
    assert "ZeroDivisionError: somewhere deep" in printed


def test_interruption_says_that_a_rerun_is_safe(spark_stub, capsys):
    exit_code(run_job, pipeline_raising(KeyboardInterrupt()), [])
    assert "interrupted; every write is safe to repeat" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "als.rnak=8"], "unknown key als.rnak; did you mean als.rank?"),
        (["--set", "alss.rank=8"], "did you mean als?"),
        (["--set", "als.rank=0"], "als.rank: Input should be greater than or equal to 1 (found 0)"),
        (["--config", "no/such.yaml"], "config file no/such.yaml does not exist"),
    ],
)
def test_wrong_configuration_stops_before_spark_starts(no_spark, capsys, arguments, message):
    assert exit_code(run_job, pipeline_raising(AssertionError("the pipeline ran")), arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("text", ["2024-13-01", "yesterday", "01.03.2024", ""])
def test_wrong_date_is_a_wrong_argument(no_spark, capsys, text):
    assert exit_code(run_job, pipeline_raising(AssertionError("the pipeline ran")), ["--date", text]) == 2
    assert f"expected YYYY-MM-DD, found {text!r}" in capsys.readouterr().err


def test_first_log_line_is_the_whole_config(spark_stub, capsys):
    exit_code(run_job, lambda spark, config, run_date: {}, ["--set", "als.rank=7"])
    first = capsys.readouterr().err.splitlines()[0]
    config = json.loads(first.split(" config ", 1)[1])
    assert config["als"]["rank"] == 7
    assert config["ingest"]["horizon_days"] == 30


def test_json_logs_are_one_object_a_line(spark_stub, capsys):
    def pipeline(spark, config, run_date):
        """A pipeline that logs."""
        logging.getLogger("recsys_spark.pipelines.some").info("step seconds=1.0")

    exit_code(run_job, pipeline, ["--json-logs"])
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[-1]["message"] == "step seconds=1.0"
    assert {line["level"] for line in lines} == {"info"}


def test_jobs_have_these_options_and_no_others(capsys):
    assert exit_code(run_job, pipeline_raising(ValueError()), ["--help"]) == 0
    printed = capsys.readouterr().out
    assert {word for word in printed.replace("[", " ").replace("]", " ").replace(",", " ").split() if word.startswith("--")} == {
        "--help", "--config", "--set", "--date", "--verbose", "--json-logs",
    }  # fmt: skip
    assert exit_code(run_job, pipeline_raising(ValueError()), ["--rank", "8"]) == 2


# the recsys command


def test_recsys_knows_every_pipeline(no_spark, capsys):
    for name in (*PIPELINES, "main_job"):
        assert exit_code(main, ["run", name, "--set", "no.such=1"]) == 2
        assert "unknown key no" in capsys.readouterr().err
    assert exit_code(main, ["run", "no_such_pipeline"]) == 2


def test_recsys_without_a_command_shows_its_usage(capsys):
    assert exit_code(main, []) == 2
    assert "usage: recsys" in capsys.readouterr().err


def test_wrong_key_stops_the_demo_before_data_is_written(no_spark, monkeypatch, capsys):
    monkeypatch.setattr(demo_data, "write_demo_data", lambda *_: pytest.fail("data was written"))
    assert exit_code(main, ["demo", "--set", "recommend.kk=5"]) == 2
    assert "unknown key recommend.kk; did you mean recommend.k?" in capsys.readouterr().err


@pytest.mark.parametrize("data", ["ml-1m", "ml-1m=", "=folder", "netflix=/tmp", "ML-1M=/tmp"])
def test_data_option_names_what_it_knows(no_spark, capsys, data):
    assert exit_code(main, ["demo", "--data", data]) == 2
    printed = capsys.readouterr().err
    assert "NAME one of ml-100k, ml-10m, ml-1m, ml-20m, ml-25m" in printed
    assert repr(data) in printed


def test_data_folder_that_is_missing_is_named(no_spark, capsys, tmp_path):
    assert exit_code(main, ["demo", "--data", f"ml-1m={tmp_path}/none"]) == 2
    assert f"{tmp_path}/none is not a folder; unpack the publisher's archive" in capsys.readouterr().err


def test_data_file_that_is_missing_is_named_beside_what_is_there(no_spark, capsys, tmp_path):
    (tmp_path / "ratings.csv").write_text("")
    assert exit_code(main, ["demo", "--data", f"ml-1m={tmp_path}"]) == 2
    assert f"expected the file ratings.dat in {tmp_path}, which holds ratings.csv" in capsys.readouterr().err


@pytest.mark.parametrize("share", ["0", "-1", "1.5", "nan"])
def test_sample_outside_0_to_1_is_a_wrong_argument(no_spark, monkeypatch, tmp_path, share):
    monkeypatch.chdir(tmp_path)
    assert exit_code(main, ["demo", "--sample", share]) == 2


def test_sample_beside_own_data_is_refused(no_spark, capsys, tmp_path):
    assert exit_code(main, ["demo", "--sample", "0.5", "--data", f"ml-1m={tmp_path}"]) == 2
    assert "--sample" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tune", "--model", "als", "--set", "tune.spaces.als={als.rnak: {choices: [8]}}"], "did you mean als.rank?"),
        (["tune", "--model", "again"], "set tune.task to next"),
        (["tune", "--model", "als", "--study", "a/b"], "--study expects letters"),
        (["tune", "--model", "als", "--trials", "0"], "at least 1, found '0'"),
        (["tune"], "--model"),
        (["backtest", "--protocol", "by_item", "--windows", "3"], "--windows is for rolling_windows"),
        (["backtest", "--windows", "-1"], "at least 1, found '-1'"),
        (["backtest", "--protocol", "by_weekday"], "invalid choice: 'by_weekday'"),
    ],
)
def test_wrong_search_or_backtest_stops_before_spark_starts(
    no_spark, monkeypatch, tmp_path, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert exit_code(main, arguments) == 2
    assert message in capsys.readouterr().err


def test_of_several_config_files_later_ones_win(spark_stub, tmp_path):
    for name, text in (("shop.yaml", "als: {rank: 8, alpha: 2}\n"), ("best.yaml", "als: {rank: 96}\n")):
        (tmp_path / name).write_text(text)
    found = []
    pipeline = lambda spark, config, run_date: found.append((config.als.rank, config.als.alpha)) or {}  # noqa: E731
    files = ["--config", str(tmp_path / "shop.yaml"), "--config", str(tmp_path / "best.yaml")]
    assert exit_code(run_job, pipeline, [*files, "--set", "als.alpha=3"]) == 0
    assert found == [(96, 3.0)]


def test_wrong_key_of_a_job_never_imports_pyspark():
    code = (
        "import sys\n"
        "from recsys_spark.cli import run_job\n"
        "try:\n"
        "    run_job(lambda spark, config, run_date: {}, ['--set', 'als.rnak=8'])\n"
        "except SystemExit as stopped:\n"
        "    assert stopped.code == 2, stopped.code\n"
        "assert 'pyspark' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# recsys evaluate


@pytest.fixture
def evaluated(spark_stub, monkeypatch):
    """What `recsys evaluate` hands to evaluate_files, which is a stub."""
    from recsys_spark import evaluate_files

    calls = []

    class Result:
        def as_text(self):
            return "a table"

        def as_json(self):
            return '{"k": [5]}'

    def stub(spark, given, config):
        calls.append((given, config))
        return Result()

    monkeypatch.setattr(evaluate_files, "evaluate_files", stub)
    return calls


def test_evaluate_needs_no_configuration(evaluated, spark_stub, capsys):
    assert exit_code(main, ["evaluate", "--recommendations", "a.parquet", "b=b.csv", "--truth", "t.csv"]) == 0
    given, config = evaluated[0]
    assert (given.recommendations, given.truth, given.train) == (("a.parquet", "b=b.csv"), "t.csv", None)
    assert config.k == (10,)
    assert capsys.readouterr().out == "a table\n"
    assert spark_stub.stopped


def test_evaluate_takes_lengths_columns_and_keys(evaluated, capsys):
    options = ["-k", "5", "1", "5", "--user-column", "who", "--set", "evaluation.heavy_user_share=0.2", "--json"]
    assert exit_code(main, ["evaluate", "--recommendations", "a", "--truth", "t", *options]) == 0
    given, config = evaluated[0]
    assert (config.k, config.heavy_user_share) == ((5, 1), 0.2)
    assert (given.columns.user, given.columns.item) == ("who", "item_id")
    assert json.loads(capsys.readouterr().out) == {"k": [5]}  # nothing else on standard output


@pytest.mark.parametrize("k", ["0", "-3", "ten", "1.5"])
def test_evaluate_refuses_lengths_that_are_none(no_spark, capsys, k):
    assert exit_code(main, ["evaluate", "--recommendations", "a", "--truth", "t", f"-k={k}"]) == 2
    assert "expected a whole number of at least 1" in capsys.readouterr().err


# recsys quarantine and migrate


@pytest.fixture
def quarantined(spark_stub, monkeypatch):
    """What `recsys quarantine` asks of the pipeline; one line is quarantined."""
    import pandas as pd

    from recsys_spark.pipelines import replay_quarantine as pipeline

    calls = []

    def record(name, answer):
        def stub(_, *arguments):
            calls.append((name, *arguments))
            return answer

        monkeypatch.setattr(pipeline, name, stub)

    record("quarantine_of", "the rows")
    record("reason_counts", pd.DataFrame({"reason": ["malformed"], "lines": [1]}))
    record("list_lines", pd.DataFrame({"source_file": ["day.json"]}))
    nothing = dict.fromkeys(BUCKETS, 0.0)
    record("replay_quarantine", {**nothing, "read": 3.0, "inserted": 2.0, "quarantined": 1.0, "removed": 2.0})
    return calls


def test_quarantine_is_counted_and_listed_by_feed_and_reason(quarantined, spark_stub, capsys):
    assert exit_code(main, ["quarantine", "counts", "--feed", "items"]) == 0
    options = ["--reason", "malformed", "--limit", "5", "--date", "2024-03-10"]
    assert exit_code(main, ["quarantine", "list", *options]) == 0
    (of_items, counts, of_events, listed) = quarantined
    assert (of_items[2:], counts[1:]) == (("items", None), (None,))
    assert (of_events[2:], listed[1:]) == (("events", date(2024, 3, 10)), ("malformed", 5, False))
    assert capsys.readouterr().out.splitlines() == [
        "   reason  lines",
        "malformed      1",
        "source_file",
        "   day.json",
    ]
    assert spark_stub.stopped


def test_replay_says_where_the_lines_went(quarantined, capsys):
    assert exit_code(main, ["quarantine", "replay", "--date", "2024-03-10"]) == 0
    [(_, _, run_date, feeds)] = quarantined
    assert (run_date, feeds) == (date(2024, 3, 10), ("events", "items"))
    printed = capsys.readouterr().out
    assert "read 3 = inserted 2 + quarantined 1" in printed
    assert printed.endswith("left the quarantine: 2\n")


def test_replay_of_a_part_is_refused(no_spark, capsys):
    assert exit_code(main, ["quarantine", "replay", "--reason", "malformed"]) == 2
    assert "leave --reason and --show-lines out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("moved", "expected"),
    [({"events": (1, 3)}, "events: version 1 -> 3\n1 tables moved\n"), ({}, "every table has today's layout\n")],
    ids=["older", "of today"],
)
def test_migrate_names_the_tables_that_moved(spark_stub, monkeypatch, capsys, moved, expected):
    from recsys_spark.infra import migrate

    monkeypatch.setattr(migrate, "migrate_tables", lambda spark, config: moved)
    assert exit_code(main, ["migrate"]) == 0
    assert capsys.readouterr().out == expected
    assert spark_stub.stopped
