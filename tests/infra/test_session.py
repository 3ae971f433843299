"""Settings that are changed around one step are what they were before it afterwards."""

from __future__ import annotations

import pytest

from recsys_spark.infra.session import arrow_batches_of


def only_large_batches(batches):
    for batch in batches:
        yield batch.slice(0, 0) if batch.num_rows <= 3 else batch


def test_workers_get_so_many_rows_at_once_and_the_setting_comes_back_after_an_error(spark):
    large = spark.range(0, 10, numPartitions=1).mapInArrow(only_large_batches, "id long")
    before = spark.conf.get("spark.sql.execution.arrow.maxRecordsPerBatch")
    assert large.count() == 10

    def fail_with_small_batches():
        with arrow_batches_of(spark, 3):
            assert large.count() == 0
            raise KeyError

    with pytest.raises(KeyError):
        fail_with_small_batches()
    assert spark.conf.get("spark.sql.execution.arrow.maxRecordsPerBatch") == before
