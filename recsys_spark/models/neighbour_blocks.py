"""The Spark edge of neighbours.py: the entries of a matrix in, the nearest rows of every row out, block against block.

Every block of rows is one task. It holds its own block and reads all blocks, itself included, one after the other; a shuffle
brings them there, packed to a few kilobytes a row. So nothing of the size of the data is in one place, and what a task holds
does not grow with the data. What is shuffled does: entries x blocks x 12 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, groupby
from operator import itemgetter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.models.neighbours import BYTES_PER_PAIR, BYTES_PER_PLACE, Pairs, Similarity, nearest_rows

ROW = "row"
COLUMN = "col"
VALUE = "value"
NEIGHBOUR = "neighbour"
SIMILARITY = "similarity"

_ENTRY = np.dtype([(ROW, "<i4"), (COLUMN, "<i4"), (VALUE, "<f4")])
_ENTRIES_PER_PACK = 512  # Spark hands 10,000 rows at once to a worker: 60 MB
_ENTRIES_PACKED_AT_ONCE = 2**18
_SMALLEST_BLOCK = 50_000  # entries: smaller ones cost more to start and to shuffle than their work
_TASKS_PER_CORE = 4
_COUNTED_RANGES = 100_000
_OWN = -1  # sorts before the blocks to compare with
_FOUND = {ROW: "int", NEIGHBOUR: "int", SIMILARITY: "float"}


def nearest_neighbours(
    entries: DataFrame, starts: NDArray[np.int64], num_neighbours: int, similarity: Similarity, max_bytes: int
) -> DataFrame:
    """Find the nearest rows of every row.

    Needs row, col (int), value (float, positive), distinct by row and col, and starts as `block_starts` gives them for the
    same num_neighbours and max_bytes. Gives row, neighbour (int), similarity (float): at most num_neighbours per row; equal
    similarities at the cut go to the lower neighbour. The answer does not depend on the blocks.
    """

    def pack(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return _packed(batches, starts)

    def compare(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _, blocks in groupby(_whole_blocks(batches), key=itemgetter(0)):
            pairs = map(itemgetter(1), blocks)
            columns = nearest_rows(next(pairs), pairs, num_neighbours, similarity, max_bytes // 4)
            yield pa.RecordBatch.from_arrays([pa.array(column) for column in columns], names=list(_FOUND))

    packed = entries.select(ROW, COLUMN, VALUE).mapInArrow(pack, "block int, packed binary")
    tasks = F.sequence(F.lit(0), F.lit(len(starts) - 1))
    to_all = F.transform(tasks, lambda task: F.struct(task.alias("task"), F.col("block").alias("turn")))
    to_itself = F.array(F.struct(F.col("block").alias("task"), F.lit(_OWN).alias("turn")))
    sent = packed.select(F.explode(F.concat(to_itself, to_all)).alias("to"), "packed")
    ordered = sent.select("to.*", "packed").repartition(len(starts), "task").sortWithinPartitions("task", "turn")
    return ordered.mapInArrow(compare, ", ".join(f"{name} {kind}" for name, kind in _FOUND.items()))


def block_starts(entries: DataFrame, num_rows: int, num_neighbours: int, max_bytes: int) -> NDArray[np.int64]:
    """Cut the rows 0 to num_rows - 1 into ranges of about equally many entries; give the first row with entries of each.

    Two blocks fit into half of max_bytes, the neighbours found for the rows of one into a quarter; a single row is never cut, so
    its entries always have to fit. Small data is cut further, so that there are a few tasks for every core. Runs a Spark job.
    """
    num_tasks = _TASKS_PER_CORE * entries.sparkSession.sparkContext.defaultParallelism
    step = num_rows // _COUNTED_RANGES + 1
    counted = entries.groupBy(F.floor(F.col(ROW) / step).cast("long").alias("range")).count().orderBy("range").toArrow()
    ranges, counts = (counted[name].to_numpy() for name in ("range", "count"))
    total = int(counts.sum())
    size = max(1, min(max_bytes // 2 // BYTES_PER_PAIR, max(_SMALLEST_BLOCK, -(-total // num_tasks))))
    max_rows = max(1, max_bytes // 4 // (BYTES_PER_PLACE * num_neighbours))
    # of a block: entries by its size or rows by theirs, whichever fill it first; a range has at most a row for each entry
    filled = np.maximum(counts / size, np.minimum(counts, step) / max_rows)
    block = (np.cumsum(filled) - filled).astype(np.int64)
    starts: NDArray[np.int64] = ranges[np.flatnonzero(np.diff(block, prepend=-1))] * step
    return starts


def _packed(batches: Iterator[pa.RecordBatch], starts: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    """Put the entries of one block together, a few kilobytes a row: what is shuffled and sorted are these rows."""
    for table in _gathered(batches):
        entries = np.empty(table.num_rows, _ENTRY)
        for name in (ROW, COLUMN, VALUE):
            entries[name] = table[name].to_numpy()
        block = np.searchsorted(starts, entries[ROW], side="right") - 1
        order = np.argsort(block, kind="stable")
        firsts = np.flatnonzero(np.diff(block[order], prepend=-1))
        ends = np.append(firsts[1:], len(order))
        cuts = [np.arange(first, end, _ENTRIES_PER_PACK) for first, end in zip(firsts, ends, strict=True)]
        offsets = np.append(np.concatenate(cuts), len(order))
        buffers = [None, pa.py_buffer((offsets * _ENTRY.itemsize).astype(np.int32)), pa.py_buffer(entries[order])]
        packed = pa.Array.from_buffers(pa.binary(), len(offsets) - 1, buffers)
        blocks = pa.array(block[order][offsets[:-1]].astype(np.int32))
        yield pa.RecordBatch.from_arrays([blocks, packed], names=["block", "packed"])


def _gathered(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(part.num_rows for part in held) >= _ENTRIES_PACKED_AT_ONCE:
            yield pa.Table.from_batches(held)
            held = []
    if any(part.num_rows for part in held):
        yield pa.Table.from_batches(held)


def _whole_blocks(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, Pairs]]:
    """Give (task, entries) of every block that a task reads, its own first."""
    runs = chain.from_iterable(_runs(batch) for batch in batches)
    for (task, _), parts in groupby(runs, key=itemgetter(0)):
        entries = np.concatenate([part for _, part in parts])
        yield task, Pairs(entries[ROW], entries[COLUMN], entries[VALUE])


def _runs(batch: pa.RecordBatch) -> Iterator[tuple[tuple[int, int], NDArray[np.void]]]:
    """Give ((task, turn), entries) of the rows that stand together in a batch; the entries are views of its memory."""
    task, turn = (batch[name].to_numpy() for name in ("task", "turn"))
    if batch.num_rows == 0:
        return
    packed = batch["packed"].cast(pa.binary())  # Spark may be set to offsets of 8 bytes
    offsets = np.frombuffer(packed.buffers()[1], np.int32)[packed.offset : packed.offset + len(packed) + 1]
    entries = np.frombuffer(packed.buffers()[2], _ENTRY, count=int(offsets[-1]) // _ENTRY.itemsize)
    firsts = np.flatnonzero((np.diff(task, prepend=-1) != 0) | (np.diff(turn, prepend=-2) != 0))
    for first, end in zip(firsts, np.append(firsts[1:], len(task)), strict=True):
        part = slice(int(offsets[first]) // _ENTRY.itemsize, int(offsets[end]) // _ENTRY.itemsize)
        yield (int(task[first]), int(turn[first])), entries[part]
