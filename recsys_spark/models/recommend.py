"""The Spark edge of the top-K engine: users in, lists out. The numbers are made in top_k.py, in the workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import Broadcast
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from scipy import sparse

from recsys_spark.columns import ITEM_ID, RANK, SCORE, USER_ID, VALUE, VECTOR, WEIGHT
from recsys_spark.errors import ModelError
from recsys_spark.models.top_k import TopK, top_k_dot_product, top_k_linear, top_k_sparse

SEEN = "seen"
POSITION = "position"
WEIGHTS = "weights"
VIA = "via"
_LIST_SCHEMA = f"{USER_ID} string, {ITEM_ID} string, {SCORE} float, {RANK} int"


@dataclass(frozen=True)
class ItemMatrix:
    """Item vectors as the workers need them: row i belongs to the i-th id of the catalogue in UTF-8 order."""

    item_ids: list[str]
    vectors: np.ndarray  # (items, dimensions), float32; rows of items without a vector are 0 and excluded
    excluded: np.ndarray  # (items,), bool


def collect_catalogue(interactions: DataFrame) -> list[str]:
    """Give the distinct item ids in UTF-8 order. Runs a Spark job."""
    ids = interactions.select(ITEM_ID).distinct().toArrow()[ITEM_ID].to_pylist()
    return sorted(ids, key=str.encode)


def catalogue_positions(spark: SparkSession, item_ids: list[str]) -> DataFrame:
    """Give item_id, position (int) of ids in UTF-8 order: the numbers under which workers know the items."""
    if item_ids != sorted(set(item_ids), key=str.encode):
        raise ValueError("item_ids must be distinct and in UTF-8 order")
    table = pa.table({ITEM_ID: pa.array(item_ids, pa.string()), POSITION: np.arange(len(item_ids), dtype=np.int32)})
    return spark.createDataFrame(table)


def collect_item_matrix(item_vectors: DataFrame, item_ids: list[str]) -> ItemMatrix:
    """Bring item vectors (item_id, vector) to the driver, in the order of item_ids. Runs a Spark job.

    Items without a vector are excluded from every list; vectors of items that are not in item_ids are left out.
    """
    table = item_vectors.select(ITEM_ID, VECTOR).toArrow()
    found = table[ITEM_ID].to_pylist()
    flat = table[VECTOR].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    dimensions = len(flat) // len(found) if found else 1
    position = {item_id: i for i, item_id in enumerate(item_ids)}
    rows = np.array([position.get(item_id, -1) for item_id in found], dtype=np.int64)
    vectors, excluded = np.zeros((len(item_ids), dimensions), np.float32), np.ones(len(item_ids), bool)
    vectors[rows[rows >= 0]] = flat.reshape(-1, dimensions)[rows >= 0]
    excluded[rows[rows >= 0]] = False
    return ItemMatrix(item_ids, vectors, excluded)


def collect_evidence(evidence: DataFrame, num_rows: int, num_items: int) -> sparse.csr_matrix:
    """Bring via (row), position (item) and value to the driver, as the matrix of `recommend_by_neighbours`. Runs a Spark job."""
    table = evidence.select(VIA, POSITION, VALUE).toArrow()
    rows, columns, values = (table[name].to_numpy() for name in (VIA, POSITION, VALUE))
    return sparse.csr_matrix((values.astype(np.float64), (rows, columns)), shape=(num_rows, num_items))


def collect_item_weights(item_vectors: DataFrame, item_ids: list[str]) -> NDArray[np.float32]:
    """Bring vectors (item_id, vector) of one number per item to the driver, as rows in the order of item_ids.

    They come a partition at a time: together they may be more than spark.driver.maxResultSize. Raises ModelError when they
    belong to another catalogue than item_ids. Runs a Spark job per partition.
    """
    weights = np.empty((len(item_ids), len(item_ids)), np.float32)
    missing = {item_id: row for row, item_id in enumerate(item_ids)}
    packed = item_vectors.select(ITEM_ID, VECTOR).mapInArrow(_packed_vectors, f"{ITEM_ID} string, packed binary")
    num_other = 0
    for item_id, content in packed.toLocalIterator():
        vector = np.frombuffer(content, "<f4")
        if item_id in missing and len(vector) == len(item_ids):
            weights[missing.pop(item_id)] = vector
        else:
            num_other += 1
    if missing or num_other:
        raise ModelError(
            f"expected weights between the {len(item_ids)} items of the catalogue, found none of {len(missing)} of them and "
            f"{num_other} of another catalogue: the interactions were built anew since; train the model again"
        )
    return weights


def recommend_by_vectors(users: DataFrame, items: Broadcast[ItemMatrix], k: int, max_block_bytes: int) -> DataFrame:
    """List the k items with the highest dot product per user.

    Needs user_id, vector array<float>, seen array<int> (positions that may not be listed; null means none). Gives user_id,
    item_id, score, rank: at most k rows per user, equal scores by item_id as UTF-8.
    """

    def score(batch: pa.RecordBatch) -> TopK:
        vectors = _matrix(batch[VECTOR], items.value.vectors.shape[1])
        return top_k_dot_product(
            vectors,
            items.value.vectors,
            k,
            seen=_ragged(batch[SEEN]),
            excluded=items.value.excluded,
            max_block_bytes=max_block_bytes,
        )

    return _map_lists(users.select(USER_ID, VECTOR, _no_null(SEEN, "int")), items, lambda value: value.item_ids, score)


def recommend_by_neighbours(
    users: DataFrame, items: Broadcast[tuple[list[str], sparse.csr_matrix]], k: int, max_block_bytes: int
) -> DataFrame:
    """List the k items that neighbours speak for most: score = sum over the rows of a user of weight * value of the item there.

    Needs user_id, position array<int> and weights array<float> (the user's rows of the matrix), seen array<int>. items holds
    the ids and a float64 CSR matrix with a column per item. With neighbours of items its rows are items and its values
    similarities; with neighbours of users its rows are users and its values their weights. Gives the same columns as
    `recommend_by_vectors`; items whose score is not above 0 are left out.
    """

    def score(batch: pa.RecordBatch) -> TopK:
        evidence = items.value[1]
        # rounded to float32, sums of float64 do not depend on their order
        rows = _user_rows(batch, evidence.shape[0], np.float64)
        return top_k_sparse(rows, evidence, k, seen=_ragged(batch[SEEN]), max_block_bytes=max_block_bytes)

    return _map_lists(_with_histories(users), items, lambda value: value[0], score)


def recommend_by_item_weights(
    users: DataFrame, items: Broadcast[tuple[list[str], NDArray[np.float32]]], k: int, max_block_bytes: int
) -> DataFrame:
    """List the k best items of a linear model: score = sum over the user's items of weight * what that item says of the other.

    Needs the columns of `recommend_by_neighbours`, positions being items. items holds the ids and an (items, items) matrix of
    any sign. Gives the same columns as `recommend_by_vectors`; a user whose scores are all 0 gets no list.
    """

    def score(batch: pa.RecordBatch) -> TopK:
        weights = items.value[1]
        rows = _user_rows(batch, len(weights), np.float32)
        return top_k_linear(rows, weights, k, seen=_ragged(batch[SEEN]), max_block_bytes=max_block_bytes)

    return _map_lists(_with_histories(users), items, lambda value: value[0], score)


def with_arrays(histories: DataFrame, masked: DataFrame) -> DataFrame:
    """Turn rows of a user (user_id, via, weight) into the arrays of `recommend_by_neighbours`, with the seen items of masked."""
    pairs = F.array_sort(F.collect_list(F.struct(VIA, F.col(WEIGHT).cast("float").alias(WEIGHT))))
    arrays = histories.groupBy(USER_ID).agg(pairs.alias("pairs")).select(
        USER_ID, F.col(f"pairs.{VIA}").alias(POSITION), F.col(f"pairs.{WEIGHT}").alias(WEIGHTS)
    )  # fmt: skip
    return arrays.join(masked, on=USER_ID, how="left")


def _packed_vectors(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        offsets, values = _ragged(batch[VECTOR])
        buffers = [None, pa.py_buffer((offsets * 4).astype(np.int32)), pa.py_buffer(values.astype("<f4", copy=False))]
        packed = pa.Array.from_buffers(pa.binary(), batch.num_rows, buffers)
        yield pa.RecordBatch.from_arrays([batch[ITEM_ID], packed], names=[ITEM_ID, "packed"])


def _with_histories(users: DataFrame) -> DataFrame:
    return users.select(USER_ID, POSITION, WEIGHTS, _no_null(SEEN, "int"))


def _user_rows(batch: pa.RecordBatch, num_positions: int, dtype: type[np.floating]) -> sparse.csr_matrix:
    indptr, indices = _ragged(batch[POSITION])
    weights = batch[WEIGHTS].flatten().to_numpy(zero_copy_only=False).astype(dtype, copy=False)
    return sparse.csr_matrix((weights, indices, indptr), shape=(batch.num_rows, num_positions))


def _map_lists(
    users: DataFrame, items: Broadcast, ids_of: Callable[..., list[str]], score: Callable[[pa.RecordBatch], TopK]
) -> DataFrame:
    def lists(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows == 0:
                continue
            yield _as_rows(batch[USER_ID], score(batch), ids_of(items.value))

    return users.mapInArrow(lists, _LIST_SCHEMA)


def _as_rows(user_ids: pa.Array, top: TopK, item_ids: list[str]) -> pa.RecordBatch:
    user_rows, ranks = np.nonzero(top.positions >= 0)
    listed = top.positions[user_rows, ranks]
    return pa.RecordBatch.from_arrays(
        [
            user_ids.take(pa.array(user_rows)),
            pa.array([item_ids[position] for position in listed], pa.string()),
            pa.array(top.scores[user_rows, ranks].astype(np.float32)),
            pa.array(ranks.astype(np.int32) + 1),
        ],
        names=[USER_ID, ITEM_ID, SCORE, RANK],
    )


def _no_null(column: str, item_type: str) -> Column:
    return F.coalesce(F.col(column), F.array().cast(f"array<{item_type}>")).alias(column)


def _matrix(vectors: pa.ListArray, dimensions: int) -> np.ndarray:
    flat = vectors.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    if (np.diff(vectors.offsets.to_numpy()) != dimensions).any():  # a sum would let one short and one long vector pass
        raise ValueError(
            f"every user vector must have {dimensions} numbers as the item vectors have; train the model again"
        )
    return flat.reshape(-1, dimensions)


def _ragged(lists: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    """Give (offsets, values) of a list column without nulls; flatten and offsets both respect slices."""
    offsets = lists.offsets.to_numpy()
    return offsets - offsets[0], lists.flatten().to_numpy(zero_copy_only=False)
