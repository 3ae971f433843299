"""`recsys quarantine` and `recsys migrate` on real tables, in the session of the tests."""

from __future__ import annotations

import json
from datetime import date

import pytest
from factories import EVENT_COLUMNS, event_line, make_config, write_lines

from recsys_spark.cli import main
from recsys_spark.infra import session
from recsys_spark.pipelines.ingest_events import ingest_events

pytestmark = pytest.mark.usefixtures("package_logger")


@pytest.fixture
def recsys(spark, monkeypatch, capsys):
    """Run the command and give its exit code and what it printed."""
    monkeypatch.setattr(session, "build_session", lambda config: spark)
    monkeypatch.setattr(type(spark), "stop", lambda self: None)

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        return stopped.value.code, capsys.readouterr().out

    return run


def test_quarantined_lines_are_counted_by_day_listed_replayed_and_gone(spark, tmp_path, recsys):
    for day in (5, 6):
        write_lines(
            tmp_path / "raw" / f"2024-03-0{day}.jsonl", event_line(event_id=f"e{day}", event_type="hover"), "torn"
        )
    source = {
        "name": "shop", "path": str(tmp_path / "raw"), "date_pattern": r"(\d{4}-\d{2}-\d{2})[^/]*$", "columns": EVENT_COLUMNS,
        "event_types": ["view"],
    }  # fmt: skip
    config = make_config(tmp_path / "lake", sources={"events": source}, ingest={"max_quarantined_share": 1.0})
    ingest_events(spark, config, date(2024, 3, 5))
    ingest_events(spark, config, date(2024, 3, 6))
    settings = tmp_path / "my.yaml"
    settings.write_text(json.dumps(config.model_dump(mode="json", exclude_none=True)))  # JSON is YAML
    own = ("--config", str(settings))

    code, printed = recsys("quarantine", "counts", *own, "--date", "2024-03-06")
    assert (code, printed.split()) == (
        0, ["reason", "detail", "lines", "files", "malformed", "None", "1", "1", "unknown_event_type", "event_type", "1", "1"],
    )  # fmt: skip
    code, printed = recsys("quarantine", "list", *own, "--reason", "malformed", "--limit", "1")
    assert (code, printed.count("2024-03-05.jsonl"), "torn" in printed) == (0, 1, False)
    code, printed = recsys("quarantine", "replay", *own, "--set", "sources.events.event_types=[view,hover]")
    assert code == 0
    assert printed.endswith("left the quarantine: 2\n")
    code, printed = recsys("quarantine", "counts", *own)
    assert (code, printed.split()[4:]) == (0, ["malformed", "None", "2", "2"])
    assert recsys("migrate", *own) == (0, "every table has today's layout\n")
