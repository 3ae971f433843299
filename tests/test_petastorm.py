"""What the second lock is for: petastorm reads every row of what its Spark writes. `make test-petastorm` runs it."""

from __future__ import annotations

import pytest

petastorm = pytest.importorskip("petastorm", reason="petastorm is in requirements/petastorm.txt: make test-petastorm")

NUM_ROWS = 10_000


def test_every_row_of_a_written_table_reaches_torch_in_every_epoch(spark, tmp_path):
    from petastorm import make_batch_reader
    from petastorm.pytorch import BatchedDataLoader

    rows = spark.range(NUM_ROWS).selectExpr("id user_idx", "id * 7 % 1000 item_idx", "cast(id % 5 as float) weight")
    rows.repartition(5).write.parquet(f"file://{tmp_path}/interactions")
    files = [path.as_uri() for path in sorted((tmp_path / "interactions").glob("*.parquet"))]
    for _ in range(2):
        with make_batch_reader(files, num_epochs=1, workers_count=2) as reader:
            batches = list(BatchedDataLoader(reader, batch_size=512))
        assert sorted(number for batch in batches for number in batch["user_idx"].tolist()) == list(range(NUM_ROWS))
        assert sum(float(batch["weight"].sum()) for batch in batches) == sum(number % 5 for number in range(NUM_ROWS))
