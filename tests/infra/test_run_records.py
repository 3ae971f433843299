"""The record of an ingest run: a row whatever its end, checks before and after the write, gauges and an MLflow run on request."""

from __future__ import annotations

import logging
from datetime import date, timedelta

import pytest
from factories import make_config, utc
from mlflow.tracking import MlflowClient

from recsys_spark.columns import Bucket
from recsys_spark.data.checks import KNOWN_ELSEWHERE
from recsys_spark.errors import ConfigError, DataError
from recsys_spark.infra import run_records, tables, tracking

DAY = date(2024, 3, 5)
SCHEMA = (
    "bucket string, reason string, detail string, filter_rule string, event_id string, user_id string, item_id string, "
    "event_type string, timestamp timestamp, attributes map<string,string>"
)


def batch(spark, num_lines=4, day=DAY, attributes=None, bucket=Bucket.INSERTED):
    rows = [
        (bucket, None, None, None, f"e{i}", "u1", "i1", "view", utc(f"{day} 10:00"), attributes or {})
        for i in range(num_lines)
    ]
    return spark.createDataFrame(rows, SCHEMA)


def clock(start="2024-03-06 02:00"):
    """A clock that stands at the start, then 90 seconds later."""
    times = iter([utc(start), utc(start) + timedelta(seconds=90)])
    return lambda: next(times)


def run(spark, config, lines, day=DAY, name="run", counts=None, start="2024-03-06 02:00"):
    """What a pipeline does; counts are those that only the table can tell."""
    with run_records.recorded(spark, config, "events", day, name, now=clock(start)) as record:
        found = run_records.profile_batch(record, lines)
        run_records.check_batch(record)
        run_records.check_written(record, {**found, **(counts or {}), "read": record.counts["read"]})


def rows(spark, config):
    return {
        row.ingest_run: row
        for row in tables.read_table(spark, config, "ingest_runs", made_by="ingest_events").collect()
    }


def shop(tmp_path, **sections):
    return make_config(tmp_path, sources={"events": {"name": "shop"}}, **sections)


def test_a_run_is_one_row(spark, tmp_path):
    config = shop(tmp_path)
    run(spark, config, batch(spark, attributes={"colour": "red"}), counts={"conflicts": 1})
    (row,) = tables.read_table(spark, config, "ingest_runs", made_by="ingest_events").collect()
    assert (row.source, row.feed, row.run_date, row.status, row.is_written) == ("shop", "events", DAY, "ok", True)
    assert row.seconds == 90
    assert (row.counts["read"], row.counts["inserted"], row.counts["late"], row.counts["conflicts"]) == (4, 4, 0, 1)
    assert row.fields == {}  # no check asks for them
    assert row.checks == {"duplicate_share": "ok"}
    times = tables.read_table(spark, config, "ingest_runs", "ingest_events").selectExpr(
        "string(started_at)", "string(finished_at)", "string(first_timestamp)", "string(last_timestamp)"
    )
    assert tuple(times.collect()[0]) == (
        "2024-03-06 02:00:00", "2024-03-06 02:01:30", "2024-03-05 10:00:00", "2024-03-05 10:00:00",
    )  # fmt: skip


def test_volume_and_drift_are_judged_by_the_runs_before_and_a_failed_run_is_no_basis(spark, tmp_path, caplog):
    limits = {
        "volume_low": {"warn": 0.9, "fail": 0.5}, "volume_min_weeks": 1, "vanished_field": {"warn": 0}, "duplicate_share": {"fail": 0.5},
    }  # fmt: skip
    config = shop(tmp_path, checks={"events": limits})
    week = DAY - timedelta(weeks=1)
    run(spark, config, batch(spark, 8, week, {"colour": "red"}), week, "before")
    with (
        pytest.raises(
            DataError, match=r"'shop': volume_low: 2 lines, 0.25 of the 8 .* no events were written"
        ) as error,
        caplog.at_level(logging.WARNING, "recsys_spark"),
    ):
        run(spark, config, batch(spark, 2), name="few")
    assert error.value.exit_code == 3
    assert "colour (100.0%)" in caplog.text  # the warning beside the failure
    few = rows(spark, config)["few"]
    assert (few.status, few.is_written, few.counts["read"]) == ("failed", False, 2)
    assert few.checks == {"volume_low": "fail", "volume_high": "ok", "vanished_field": "warn"}
    assert set(few.fields) == {"event_id", "user_id", "item_id", "event_type", "timestamp"}
    # the same day again, complete: compared with the week before, not with the failed try; now only the table can object
    counts = {Bucket.INSERTED: 2, Bucket.DUPLICATE: 6, KNOWN_ELSEWHERE: 6}
    with pytest.raises(DataError, match=r"duplicate_share: 6 of 8 .* are written; a rerun is safe"):
        run(spark, config, batch(spark, 8, attributes={"colour": "blue"}), name="complete", counts=counts)
    complete = rows(spark, config)["complete"]
    assert (complete.status, complete.is_written, complete.counts[KNOWN_ELSEWHERE]) == ("failed", True, 6)
    assert complete.checks == {
        "volume_low": "ok",
        "volume_high": "ok",
        "vanished_field": "ok",
        "duplicate_share": "fail",
    }


def test_an_error_of_ours_is_recorded_and_goes_on_and_others_are_not_touched(spark, tmp_path, monkeypatch):
    config = shop(tmp_path)
    with pytest.raises(DataError, match="quarantined"), run_records.recorded(spark, config, "events", None, "ours"):
        raise DataError("too much is quarantined")
    assert (rows(spark, config)["ours"].status, rows(spark, config)["ours"].run_date) == ("failed", None)
    for error in (KeyError("bug"), ConfigError("no delivery is to blame")):
        with pytest.raises(type(error)), run_records.recorded(spark, config, "events", None, "other"):
            raise error
    assert set(rows(spark, config)) == {"ours"}
    monkeypatch.setattr(tables, "append_rows", lambda *_: 1 / 0)
    with pytest.raises(DataError, match="first") as error, run_records.recorded(spark, config, "events", None, "twice"):
        raise DataError("first")
    assert error.value.__notes__ == ["the run could not be recorded either: division by zero"]


def test_gauges_and_an_mlflow_run_are_written_on_request(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "append_rows", lambda *_: 1)
    folder = tmp_path / "prom"
    config = shop(tmp_path, monitoring={"prometheus_dir": str(folder)}, tracking={"log_ingest": True},
                  checks={"events": {"freshness_hours": {"warn": 24, "fail": 48}}})  # fmt: skip
    with pytest.raises(ConfigError, match="prometheus_dir"):
        run(spark, config, batch(spark))
    folder.mkdir()
    run(spark, config, batch(spark))
    assert sorted(path.name for path in folder.iterdir()) == [
        "recsys_ingest_events_shop.prom",
        "recsys_ingest_success_events_shop.prom",
    ]
    success = (folder / "recsys_ingest_success_events_shop.prom").read_text()
    labels = 'feed="events",source="shop"'
    finished = int(utc("2024-03-06 02:01:30").timestamp())
    assert f"recsys_ingest_last_success_timestamp_seconds{{{labels}}} {finished}\n" in success
    newest = int(utc(f"{DAY} 10:00").timestamp())
    lines = (folder / "recsys_ingest_events_shop.prom").read_text().splitlines()
    assert {
        f'recsys_ingest_lines{{{labels},bucket="inserted"}} 4',
        f"recsys_ingest_read_lines{{{labels}}} 4",
        f"recsys_ingest_seconds{{{labels}}} 90",
        f'recsys_ingest_status{{{labels},status="ok"}} 1',
        f'recsys_ingest_check{{{labels},check="freshness_hours",level="ok"}} 1',
        f'recsys_ingest_check{{{labels},check="freshness_hours",level="fail"}} 0',
        f"recsys_ingest_newest_event_timestamp_seconds{{{labels}}} {newest}",
    } <= set(lines)

    with pytest.raises(DataError, match="freshness"):
        run(spark, config, batch(spark, day=DAY - timedelta(days=3)), name="stale", start="2024-03-06 03:00")
    assert (folder / "recsys_ingest_success_events_shop.prom").read_text() == success
    assert (
        f'recsys_ingest_status{{{labels},status="failed"}} 1' in (folder / "recsys_ingest_events_shop.prom").read_text()
    )

    client = MlflowClient(tracking.tracking_uri(config))
    runs = client.search_runs([client.get_experiment_by_name("recsys_spark").experiment_id])
    found = {run.data.tags["ingest_run"]: run for run in runs}
    assert (found["stale"].data.tags["status"], found["run"].data.tags["run_date"]) == ("failed", "2024-03-05")
    assert found["run"].info.run_name == "ingest_events 2024-03-05"
    metrics = found["stale"].data.metrics
    assert (metrics["read"], metrics["seconds"], metrics["check.freshness_hours.level"]) == (4, 90, 2)


def test_a_tracking_server_that_is_down_does_not_make_a_written_run_look_lost(spark, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    config = shop(tmp_path, tracking={"log_ingest": True, "uri": "http://127.0.0.1:9"})  # nobody listens there
    run(spark, config, batch(spark))
    assert [row.status for row in rows(spark, config).values()] == ["ok"]
    assert "ingest_run_not_in_mlflow run=run" in caplog.text


def test_two_sources_and_feeds_share_a_folder(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "append_rows", lambda *_: 1)
    (tmp_path / "prom").mkdir()
    for name in ("shop", "app"):
        config = make_config(
            tmp_path, sources={"events": {"name": name}}, monitoring={"prometheus_dir": str(tmp_path / "prom")}
        )
        with run_records.recorded(spark, config, "items", None, f"items {name}"):
            pass
        with run_records.recorded(spark, config, "events", None, f"events {name}"):
            pass
    names = {path.name for path in (tmp_path / "prom").iterdir()}
    assert names == {
        f"recsys_ingest_{kind}{feed}.prom"
        for kind in ("", "success_")
        for feed in ("events_shop", "events_app", "items_default")
    }
