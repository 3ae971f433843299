"""Events -> train and truth by other rules than one global date: rolling windows, last events, held-out users, cold items.

Every splitter is a function of the rows alone: the same rows in other files, partitions or order give the same parts. A row
ends in exactly one part. `leakage.find_leaks` says what each protocol promises, and whether it was kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from recsys_spark.columns import EVENT_ID, ITEM_ID, TIMESTAMP, USER_ID
from recsys_spark.config_split import WindowsConfig
from recsys_spark.errors import DataError

_FROM_END = "_from_end"
_NUM_ROWS = "_num_rows"
_BUCKETS = 2**32


@dataclass(frozen=True)
class TimeWindow:
    """Models learn from the days of train_start up to the cutoff (left out); truth is truth_start to truth_end (left out)."""

    train_start: date | None
    """Null: from the first event on."""
    cutoff: date
    truth_start: date
    truth_end: date


class TrainTest(NamedTuple):
    """What is learned from, and what lists are compared with."""

    train: DataFrame
    test: DataFrame


class UserParts(NamedTuple):
    """Events of users that models learn from; of the held-out users, what lists may be made from and what they must find."""

    train: DataFrame
    history: DataFrame
    truth: DataFrame


def rolling_windows(first_day: date, end: date, config: WindowsConfig) -> list[TimeWindow]:
    """Give the windows in the order of time; the last truth ends at `end` (left out), each one before it step_days earlier.

    first_day is that of the first event. Raises DataError when the first window would have no day to learn from.
    """
    step = config.step_days or config.test_days
    windows = []
    for number in reversed(range(config.count)):
        truth_end = end - timedelta(days=number * step)
        truth_start = truth_end - timedelta(days=config.test_days)
        cutoff = truth_start - timedelta(days=config.gap_days)
        train_start = None if config.train_days is None else cutoff - timedelta(days=config.train_days)
        windows.append(TimeWindow(train_start, cutoff, truth_start, truth_end))
    needed = windows[0].train_start or windows[0].cutoff - timedelta(days=1)
    if needed < first_day:
        raise DataError(
            f"{config.count} windows that end on {end} need events from {needed} on, there are some from {first_day} on; lower "
            "split.windows.count, test_days, step_days or train_days"
        )
    return windows


def leave_last_k(rows: DataFrame, k: int, order_by: tuple[str, ...] = (TIMESTAMP, EVENT_ID)) -> TrainTest:
    """Give the last k rows of every user to test, the rows before them to train.

    Needs user_id and the columns of order_by, which together name every row of a user once: equal times are ordered by the
    rest (for interactions: last_timestamp and item_id). Users with k rows or fewer stay in train as a whole. Gives the
    columns of rows. Users are cut at different times, so train holds events from after other users' truth: numbers may be
    compared with papers that cut like this, not with what a model can do tomorrow.
    """
    _check_at_least_one(k)
    own = W.partitionBy(USER_ID)
    latest_first = own.orderBy(*[F.col(column).desc() for column in order_by])
    numbered = rows.withColumns({
        _FROM_END: F.row_number().over(latest_first), _NUM_ROWS: F.count("*").over(own),
    })  # fmt: skip
    is_test = (F.col(_FROM_END) <= k) & (F.col(_NUM_ROWS) > k)
    return TrainTest(numbered.where(~is_test).select(*rows.columns), numbered.where(is_test).select(*rows.columns))


def by_user(
    rows: DataFrame, share: float, seed: int, k: int, order_by: tuple[str, ...] = (TIMESTAMP, EVENT_ID)
) -> UserParts:
    """Hold out about `share` of the users: nothing is learned from them, their last k rows are truth, those before are history.

    Who is held out depends on user_id and seed alone. Needs and gives the same columns as `leave_last_k`; a held-out user with
    k rows or fewer has history only. Strong generalisation, as in Liang et al. 2018, "Variational Autoencoders for
    Collaborative Filtering".
    """
    is_held_out = _is_held_out(USER_ID, share, seed)
    history, truth = leave_last_k(rows.where(is_held_out), k, order_by)
    return UserParts(rows.where(~is_held_out), history, truth)


def by_item(rows: DataFrame, share: float, seed: int) -> TrainTest:
    """Hold out about `share` of the items with all their rows, as if they were new in the shop: test is their rows.

    Which are held out depends on item_id and seed alone. Rows without an item (searches) stay in train. Gives the columns
    of rows.
    """
    is_held_out = F.coalesce(_is_held_out(ITEM_ID, share, seed), F.lit(False))
    return TrainTest(rows.where(~is_held_out), rows.where(is_held_out))


def _is_held_out(column: str, share: float, seed: int) -> Column:
    """The first 32 bits of SHA-256 of `seed:id` as a number below share * 2^32; null for null."""
    if not 0 < share < 1:
        raise ValueError(f"expected a share between 0 and 1, found {share}")
    # not CRC: it is linear, so that two seeds would hold out the same ids or exactly the others
    digest = F.substring(F.sha2(F.concat(F.lit(f"{seed}:"), F.col(column)), 256), 1, 8)
    return F.conv(digest, 16, 10).cast("long") < F.lit(share * _BUCKETS)


def _check_at_least_one(k: int) -> None:
    if k < 1:
        raise ValueError(f"expected k >= 1, found {k}")
