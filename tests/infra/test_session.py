"""Settings that are changed around one step are what they were before it afterwards."""

from __future__ import annotations

import pytest

from recsys_spark.infra.session import arrow_batches_of


def test_workers_get_so_many_rows_at_once_and_the_setting_comes_back_after_an_error(spark):
    def only_large_batches(batches):
        for batch in batches:
            yield batch.slice(0, 0) if batch.num_rows <= 3 else batch

    rows = spark.range(0, 10, numPartitions=1)
    before = spark.conf.get("spark.sql.execution.arrow.maxRecordsPerBatch")
    assert rows.mapInArrow(only_large_batches, "id long").count() == 10
    with pytest.raises(KeyError), arrow_batches_of(spark, 3):
        assert rows.mapInArrow(only_large_batches, "id long").count() == 0
        raise KeyError
    assert spark.conf.get("spark.sql.execution.arrow.maxRecordsPerBatch") == before
