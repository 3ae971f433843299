"""Texts of known length -> batches with little padding. numpy only: runs in a worker."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_MAX_PADDING = 0.05
_SMALLEST_SHARE = 1 / 16


def token_batches(lengths: NDArray[np.int64], max_tokens: int) -> Iterator[NDArray[np.int64]]:
    """Give the places of texts, longest first, in batches of at most max_tokens when every text is padded to the batch's longest.

    A batch ends before padding becomes more than 5 % of it, once it has a sixteenth of max_tokens: below that a device idles,
    and a little padding costs less. Equal lengths stay in the order they came in. A text longer than max_tokens is a batch of
    its own. The longest come first, so that memory that does not suffice shows at once. Raises ValueError for lengths below 1
    and max_tokens below 1.
    """
    if max_tokens < 1 or (len(lengths) and lengths.min() < 1):
        raise ValueError(
            f"expected max_tokens and lengths of at least 1, found {max_tokens} and {lengths.min(initial=1)}"
        )
    order = np.argsort(-lengths, kind="stable")
    useful = np.concatenate([[0], np.cumsum(lengths[order])])
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        rows = min(max(1, max_tokens // longest), len(order) - start)
        sizes = np.arange(1, rows + 1) * longest
        is_padded = useful[start + 1 : start + rows + 1] - useful[start] < (1 - _MAX_PADDING) * sizes
        too_padded = np.flatnonzero(is_padded & (sizes > _SMALLEST_SHARE * max_tokens))
        if len(too_padded):  # without the first text that is too short, as long as something is left
            rows = max(1, int(too_padded[0]))
        yield order[start : start + rows]
        start += rows
