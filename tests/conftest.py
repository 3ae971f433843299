"""One lazy Spark session for all tests: nothing starts a JVM while only fast tests run."""

from __future__ import annotations

import logging

import pytest
from factories import make_config

# Files that take a minute or more, the longest first: they start first, so that no process works on one while the others are done.
LONGEST_FILES = (
    "test_accidents.py", "test_recommend.py", "test_tune.py", "test_cluster.py", "test_main_job.py", "test_backtest.py",
    "test_evaluate.py", "test_ingest_events.py", "test_erase_user.py", "test_migrate.py", "test_ingest_state_machine.py",
    "test_jobs.py", "test_replay_quarantine.py", "test_no_future.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Mark every test that asks for `spark`, so that `-m "not spark"` is the fast part, and put the longest files first."""
    for item in items:
        if {"spark", "spark_session"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.spark)
    place = {name: number for number, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))  # stable: the others keep their order


@pytest.fixture(scope="session")
def spark_session(tmp_path_factory):
    """The session; tests ask for `spark`, which also cleans up behind them."""
    from recsys_spark.infra.session import build_session

    folder = tmp_path_factory.mktemp("spark")
    conf = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.adaptive.enabled": "false",  # on frames of ten rows it only costs time
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.local.dir": str(folder / "local"),
        "spark.driver.memory": "2g",
        "spark.driver.extraJavaOptions": "-Duser.timezone=UTC -XX:+UseParallelGC",  # the least work in all, pauses do no harm
    }
    config = make_config(folder, spark={"master": "local[2]", "shuffle_partitions": 2, "conf": conf})
    session = build_session(config)
    yield session
    session.stop()


@pytest.fixture
def spark(spark_session):
    """The running session, without caches and temporary views of other tests."""
    yield spark_session
    spark_session.catalog.clearCache()
    for table in spark_session.catalog.listTables():
        if table.isTemporary:
            spark_session.catalog.dropTempView(table.name)


@pytest.fixture
def config(tmp_path):
    """The default configuration with everything below tmp_path; `factories.make_config` makes others."""
    return make_config(tmp_path)


@pytest.fixture
def package_logger():
    """For tests of the command line, which takes the package's logger over; other tests get it back as it was."""
    logger = logging.getLogger("recsys_spark")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before
