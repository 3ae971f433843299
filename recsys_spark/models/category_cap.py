"""At most so many items of one category in a list. Numpy only: it runs inside the top-K engine, in a worker or a service."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NO_CATEGORY = -1


class CategoryCap(NamedTuple):
    """How many items of one category a list may hold, and the category of every item."""

    categories: NDArray[np.int32]
    """One code per item position, from 0 and below the number of items, shape (items,). NO_CATEGORY is not limited: nobody
    knows whether two such items are alike."""
    limit: int
    """Items of one category per list, at least 1."""


def checked_cap(cap: CategoryCap | None, num_items: int) -> CategoryCap | None:
    """Give the cap, or raise ValueError where it does not fit the items."""
    if cap is None:
        return None
    categories: NDArray[Any] = np.asarray(cap.categories)
    is_codes = categories.shape == (num_items,) and categories.dtype.kind in "iu"
    if not is_codes or (num_items and not NO_CATEGORY <= categories.min() <= categories.max() < num_items):
        raise ValueError(
            f"expected a category code from {NO_CATEGORY} to below {num_items} for each of {num_items} items, "
            f"found {categories.dtype} {categories.shape}"
        )
    if cap.limit < 1:
        raise ValueError(f"expected a limit of at least 1 item of one category, found {cap.limit}")
    return CategoryCap(categories.astype(np.int32, copy=False), cap.limit)


def within_cap(positions: NDArray[np.int32], cap: CategoryCap) -> NDArray[np.bool_]:
    """Mask of the places that remain when each list is walked from its best item down and full categories are skipped.

    positions holds item positions, best first, shape (users, width), -1 where a list has ended (masked out here). An item
    remains exactly when it is among the first `limit` of its category, so every list is walked at once: places are sorted
    by category and numbered within it.
    """
    rows, width = positions.shape
    codes = np.where(positions >= 0, cap.categories[positions], NO_CATEGORY)
    # one number per place, so that one sort puts equal categories together and keeps the order of the list within them
    keys = codes.astype(np.int64) << 32 | np.arange(width)
    keys.sort(axis=1)
    codes, places = keys >> 32, keys & 0xFFFFFFFF
    is_first = np.ones((rows, width), dtype=np.bool_)
    is_first[:, 1:] = codes[:, 1:] != codes[:, :-1]
    columns = np.arange(width)
    number = columns - np.maximum.accumulate(np.where(is_first, columns, 0), axis=1)
    remains = np.empty((rows, width), dtype=np.bool_)
    np.put_along_axis(remains, places, (number < cap.limit) | (codes == NO_CATEGORY), axis=1)
    return remains & (positions >= 0)
