"""Lists made by joins are those of the engine, with the order of ties and the masks of the contract."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from recsys_spark.models.joined_lists import recommend_by_join
from recsys_spark.models.recommend import (
    catalogue_positions,
    collect_category_cap,
    collect_evidence,
    recommend_by_neighbours,
    with_arrays,
)

pytestmark = pytest.mark.spark


def random_problem(num_users, num_rows, num_items):
    """Histories over num_rows rows of evidence and items with ids of several scripts, with many equal scores."""
    rng = np.random.default_rng(11)
    item_ids = sorted((f"{'zZé😀'[i % 4]}{i}" for i in range(num_items)), key=str.encode)
    user, via = np.nonzero(rng.random((num_users, num_rows)) < 0.2)
    row, position = np.nonzero(rng.random((num_rows, num_items)) < 0.3)
    weights = rng.choice(np.float32([0.1, 0.3, 0.7]), len(user))
    values = rng.choice(np.float32([-0.2, 0.1, 0.3, 1.1]), len(row))
    histories = pa.table({"user_id": [f"u{i}" for i in user], "via": via.astype(np.int32), "weight": weights})
    evidence = pa.table({"via": row.astype(np.int32), "position": position.astype(np.int32), "value": values})
    seen = {f"u{i}": rng.choice(num_items, size=i % num_items, replace=False).tolist() for i in range(0, num_users, 2)}
    return item_ids, histories, evidence, seen


def rows_of(frame):
    assert frame.dtypes == [("user_id", "string"), ("item_id", "string"), ("score", "float"), ("rank", "int")]
    return sorted(map(tuple, frame.collect()), key=lambda row: (row[0], row[3]))


@pytest.mark.parametrize("limit", [None, 2], ids=["no cap", "cap"])
def test_joined_lists_are_the_engines_lists_to_the_bit(spark, limit):
    item_ids, histories, evidence, seen = random_problem(num_users=40, num_rows=30, num_items=25)
    histories, evidence = spark.createDataFrame(histories), spark.createDataFrame(evidence)
    masked = spark.createDataFrame(list(seen.items()), "user_id string, seen array<int>")
    items, cap = catalogue_positions(spark, item_ids), None
    if limit is not None:
        category = F.when(F.col("position") % 4 > 0, F.concat(F.lit("c"), F.col("position") % 4))
        items = items.withColumn("category", category)
        cap = spark.sparkContext.broadcast(collect_category_cap(items, item_ids, limit))
    joined = rows_of(recommend_by_join(histories, evidence, masked, items, 7, limit))
    shared = spark.sparkContext.broadcast((item_ids, collect_evidence(evidence, 30, 25)))
    engine = rows_of(recommend_by_neighbours(with_arrays(histories, masked), shared, 7, 2**20, cap))
    assert joined == engine
    scores = {(user, score) for user, _, score, _ in joined}
    assert len(scores) < len(joined), "the problem has ties"
    assert all(score > 0 for _, _, score, _ in joined)
