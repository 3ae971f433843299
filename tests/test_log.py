"""Log lines: one JSON object a line on request, one handler, key=value messages."""

from __future__ import annotations

import json
import logging

import pytest

from recsys_spark.log import JsonFormatter, configure_logging, key_values, log_step, progress_bar


@pytest.fixture
def package_logger():
    """The package's logger, put back as it was."""
    logger = logging.getLogger("recsys_spark")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield logger
    logger.handlers[:], logger.level, logger.propagate = before


def test_json_lines_parse_whatever_the_message_holds(package_logger, capsys):
    configure_logging(json_lines=True)
    package_logger.info("event user=%s", 'a "quoted"\nline 用户')
    try:
        raise ValueError("broken\nvalue")
    except ValueError:
        package_logger.exception("failed")
    first, second = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert first["message"] == 'event user=a "quoted"\nline 用户'
    assert (first["level"], first["logger"]) == ("info", "recsys_spark")
    assert "ValueError: broken" in second["traceback"]


def test_time_in_json_lines_has_its_offset():
    record = logging.LogRecord("x", logging.INFO, "f", 1, "m", (), None)
    assert json.loads(JsonFormatter().format(record))["time"][-5] in "+-"


def test_configuring_again_does_not_print_twice(package_logger, capsys):
    configure_logging()
    configure_logging()
    package_logger.info("once")
    assert capsys.readouterr().err.count("once") == 1


@pytest.mark.parametrize(
    ("flags", "shown"),
    [({}, {"info", "warning"}), ({"verbose": True}, {"debug", "info", "warning"}), ({"quiet": True}, {"warning"})],
)
def test_flags_choose_the_level(package_logger, capsys, flags, shown):
    configure_logging(**flags)
    for level in ("debug", "info", "warning"):
        getattr(package_logger, level)(f"message-{level}")
    printed = capsys.readouterr().err
    assert {level for level in ("debug", "info", "warning") if f"message-{level}" in printed} == shown


def test_a_step_logs_its_seconds_and_facts_once_it_is_done(package_logger, caplog):
    package_logger.propagate = True
    with caplog.at_level(logging.INFO, "recsys_spark"), log_step("ingest", source="shop") as facts:
        facts["read"] = 12.0
    (line,) = caplog.messages
    assert line.startswith("ingest seconds=")
    assert line.endswith("source=shop read=12")


def test_a_step_that_failed_says_so_by_its_error_only(package_logger, caplog):
    package_logger.propagate = True
    with caplog.at_level(logging.INFO, "recsys_spark"), pytest.raises(KeyError), log_step("ingest"):
        raise KeyError("x")
    assert caplog.messages == []


def test_key_values():
    assert key_values({"a": 1, "b": 2.0, "c": 0.5, "d": "x"}) == "a=1 b=2 c=0.5 d=x"
    assert key_values({"a": float("inf"), "b": float("nan")}) == "a=inf b=nan"


def test_progress_is_silent_where_stderr_is_no_terminal(capsys):
    with progress_bar(3) as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""
