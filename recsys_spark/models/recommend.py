"""The Spark edge of the top-K engine: users in, lists out. The numbers are made in top_k.py, in the workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import Broadcast, SparkFiles
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from scipy import sparse

from recsys_spark.columns import CATEGORY, ITEM_ID, RANK, SCORE, USER_ID, VALUE, VECTOR, WEIGHT
from recsys_spark.config import Config
from recsys_spark.errors import ModelError
from recsys_spark.models.approximate import IndexRecall, measure_recall, open_index, top_k_approximate, write_index
from recsys_spark.models.category_cap import CategoryCap
from recsys_spark.models.selection import TopK
from recsys_spark.models.top_k import top_k_dot_product, top_k_linear, top_k_sparse

SEEN = "seen"
POSITION = "position"
WEIGHTS = "weights"
VIA = "via"
_MAX_LIST_ROWS = 2**20  # in one batch that a worker hands back: some 60 MB with ids of usual length
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


def collect_category_cap(categories: DataFrame, item_ids: list[str], limit: int) -> CategoryCap:
    """Bring the categories of items (item_id, category) to the driver, in the order of item_ids. Runs a Spark job.

    Items that are not there, or without a category, are not limited.
    """
    table = categories.select(ITEM_ID, CATEGORY).toArrow()
    by_item = dict(zip(table[ITEM_ID].to_pylist(), table[CATEGORY].to_pylist(), strict=True))
    codes, _ = pd.factorize(np.array([by_item.get(item_id) for item_id in item_ids], dtype=object))
    return CategoryCap(codes.astype(np.int32), limit)


def recommend_by_vectors(
    users: DataFrame,
    items: Broadcast[ItemMatrix],
    k: int,
    max_block_bytes: int,
    cap: Broadcast[CategoryCap] | None = None,
) -> DataFrame:
    """List the k items with the highest dot product per user.

    Needs user_id, vector array<float>, seen array<int> (positions that may not be listed; null means none). Gives user_id,
    item_id, score, rank: at most k rows per user, equal scores by item_id as UTF-8. cap limits the items of one category.
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
            cap=None if cap is None else cap.value,
        )

    with_seen = users.select(USER_ID, VECTOR, _no_null(SEEN, "int"))
    return _map_lists(with_seen, items, lambda value: value.item_ids, score, k)


def measure_index(
    users: DataFrame, items: ItemMatrix, index: Any, config: Config, cap: CategoryCap | None = None
) -> IndexRecall:
    """Compare approximate lists with exact ones on a sample of users, on the driver. Runs a Spark job.

    Needs user_id, vector, seen as `recommend_by_vectors` does. The sample is the config's number of users by hash of their id.
    """
    settings, k, max_block_bytes = config.approximate, config.recommend.k, config.recommend.max_block_bytes
    by_hash = users.orderBy(F.xxhash64(F.lit(settings.seed), USER_ID), USER_ID).limit(settings.sample_users)
    batches = by_hash.select(VECTOR, _no_null(SEEN, "int")).toArrow().combine_chunks().to_batches()
    if not batches:
        return IndexRecall(1.0, 0.0, 0)
    vectors, seen = _matrix(batches[0][VECTOR], items.vectors.shape[1]), _ragged(batches[0][SEEN])
    lists, is_exact = top_k_approximate(
        index, vectors, items.vectors, k, settings.overfetch, seen, items.excluded, cap, max_block_bytes
    )
    exact = top_k_dot_product(vectors, items.vectors, k, seen, items.excluded, max_block_bytes, cap)
    return measure_recall(lists, is_exact, exact)


def share_index(spark: SparkSession, index: Any, name: str) -> str:
    """Make an index a file that every worker has, and give its name for `recommend_by_index`."""
    # Spark serves the file from where it lies as long as the session lives, and deletes this folder when it ends
    path = Path(SparkFiles.getRootDirectory()) / f"{name}-{uuid4().hex}.index"
    write_index(index, path)
    spark.sparkContext.addFile(str(path))
    return path.name


def recommend_by_index(
    users: DataFrame,
    items: Broadcast[ItemMatrix],
    index_file: str,
    k: int,
    overfetch: float,
    max_block_bytes: int,
    cap: Broadcast[CategoryCap] | None = None,
) -> DataFrame:
    """List about the k items with the highest dot product per user, from an approximate index.

    Needs and gives what `recommend_by_vectors` does. index_file is the name of an index over the same items that was given to
    SparkContext.addFile; every worker opens it once.
    """

    def score(batch: pa.RecordBatch) -> TopK:
        lists, _ = top_k_approximate(
            open_index(SparkFiles.get(index_file)),
            _matrix(batch[VECTOR], items.value.vectors.shape[1]),
            items.value.vectors,
            k,
            overfetch,
            seen=_ragged(batch[SEEN]),
            excluded=items.value.excluded,
            cap=None if cap is None else cap.value,
            max_block_bytes=max_block_bytes,
        )
        return lists

    with_seen = users.select(USER_ID, VECTOR, _no_null(SEEN, "int"))
    return _map_lists(with_seen, items, lambda value: value.item_ids, score, k)


def recommend_by_neighbours(
    users: DataFrame,
    items: Broadcast[tuple[list[str], sparse.csr_matrix]],
    k: int,
    max_block_bytes: int,
    cap: Broadcast[CategoryCap] | None = None,
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
        own_cap = None if cap is None else cap.value
        return top_k_sparse(rows, evidence, k, seen=_ragged(batch[SEEN]), max_block_bytes=max_block_bytes, cap=own_cap)

    return _map_lists(_with_histories(users), items, lambda value: value[0], score, k)


def recommend_by_item_weights(
    users: DataFrame,
    items: Broadcast[tuple[list[str], NDArray[np.float32]]],
    k: int,
    max_block_bytes: int,
    cap: Broadcast[CategoryCap] | None = None,
) -> DataFrame:
    """List the k best items of a linear model: score = sum over the user's items of weight * what that item says of the other.

    Needs the columns of `recommend_by_neighbours`, positions being items. items holds the ids and an (items, items) matrix of
    any sign. Gives the same columns as `recommend_by_vectors`; a user whose scores are all 0 gets no list.
    """

    def score(batch: pa.RecordBatch) -> TopK:
        weights = items.value[1]
        rows = _user_rows(batch, len(weights), np.float32)
        own_cap = None if cap is None else cap.value
        return top_k_linear(rows, weights, k, seen=_ragged(batch[SEEN]), max_block_bytes=max_block_bytes, cap=own_cap)

    return _map_lists(_with_histories(users), items, lambda value: value[0], score, k)


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
    users: DataFrame,
    items: Broadcast,
    ids_of: Callable[..., list[str]],
    score: Callable[[pa.RecordBatch], TopK],
    k: int,
) -> DataFrame:
    users_at_once = max(1, _MAX_LIST_ROWS // k)

    def lists(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        item_ids = pa.array(ids_of(items.value), pa.string())
        for batch in batches:
            for start in range(0, batch.num_rows, users_at_once):
                part = batch.slice(start, users_at_once)
                yield _as_rows(part[USER_ID], score(part), item_ids)

    return users.mapInArrow(lists, _LIST_SCHEMA)


def _as_rows(user_ids: pa.Array, top: TopK, item_ids: pa.Array) -> pa.RecordBatch:
    user_rows, ranks = np.nonzero(top.positions >= 0)
    return pa.RecordBatch.from_arrays(
        [
            user_ids.take(pa.array(user_rows)),
            item_ids.take(pa.array(top.positions[user_rows, ranks])),
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
