"""The whole line, and the shipped configs of other data sets, on a few lines in the publishers' own layouts."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from factories import event_fields, make_config, table_rows, write_lines

from recsys_spark.config_file import load_config
from recsys_spark.infra import tables
from recsys_spark.main_job import run_main_job
from recsys_spark.pipelines.evaluate import report_path
from recsys_spark.pipelines.ingest_events import ingest_events
from recsys_spark.pipelines.ingest_items import ingest_items

pytestmark = [pytest.mark.spark, pytest.mark.slow]

CONF = Path(__file__).resolve().parents[1] / "conf"


def read(spark, config, name):
    return tables.read_table(spark, config, name, made_by="this test")


# the whole line

CUTOFF = date(2024, 3, 8)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Ten days of a shop with 12 users and 8 items: 240 good lines, 4 of them twice, 3 broken ones, and an item feed."""
    folder = tmp_path_factory.mktemp("shop")
    lines = [
        json.dumps(event_fields(
            event_id=f"{user}-{day}-{turn}", user_id=f"u{user}", item_id=f"i{(user % 2) * 4 + (user + day * 3 + turn) % 4}",
            timestamp=f"2024-03-{day:02d}T1{turn}:00:00",
        ))
        for day in range(1, 11) for user in range(12) for turn in range(2)
    ]  # fmt: skip
    broken = ["{", json.dumps(event_fields(user_id=None)), json.dumps(event_fields(timestamp="yesterday"))]
    write_lines(folder / "events" / "log.jsonl", *lines, *lines[:4], *broken)
    write_lines(
        folder / "items" / "feed.jsonl", *[json.dumps({"item_id": f"i{i}", "title": f"Item {i}"}) for i in range(8)]
    )
    return make_config(
        folder / "root",
        sources={
            "events": {"name": "shop", "path": f"{folder}/events"},
            "items": {"name": "feed", "path": f"{folder}/items"},
        },
        split={"validation_start": date(2024, 3, 6), "test_start": CUTOFF},
        als={"rank": 3, "max_iter": 2, "num_blocks": 2},
        recommend={"k": 3, "models": ["popular", "neighbours", "als"], "tasks": ["next"]},
        evaluation={"k": [2], "example_user": "median"},
    )


@pytest.fixture(scope="module")
def first(spark_session, shop):
    return run_main_job(spark_session, shop, notices=("Made up.",))


TABLES = ("events", "events_quarantine", "items", "interactions", "recommendations", "item_vectors", "item_neighbours")


@pytest.fixture(scope="module")
def stored(spark_session, shop, first):
    return {name: read(spark_session, shop, name).count() for name in TABLES}


def test_every_line_is_accounted_for(first):
    counts = first.conservation["events"]
    assert {name: counts[name] for name in ("read", "inserted", "duplicate", "quarantined")} == {
        "read": 247, "inserted": 240, "duplicate": 4, "quarantined": 3,
    }  # fmt: skip
    assert first.conservation["items"]["inserted"] == 8


def test_tables_hold_what_was_counted(stored):
    assert (stored["events"], stored["events_quarantine"], stored["items"]) == (240, 3, 8)
    assert stored["recommendations"] == 3 * 12 * 3


def test_results_show_metrics_an_example_and_the_steps(first):
    assert (first.run_date, first.truth_end, first.notices[0]) == (CUTOFF, date(2024, 3, 11), "Made up.")
    assert first.notices[1:] == (
        "Not measured beside the other models: popular_recent. What a model is worth shows against them.",
    )
    ndcg = first.metrics_pdf.query("slice == 'all' and metric == 'ndcg' and k == 2").set_index("model")["value"]
    assert list(ndcg.index) == ["popular", "neighbours", "als"]
    assert ndcg["als"] > ndcg["popular"]
    assert first.example is not None
    assert first.example.lists["next", "als"][0].label.startswith("Item ")
    assert {"ingest_items", "ingest_events", "build_interactions", "train_als", "recommend", "evaluate_run"} <= set(
        first.timings
    )


def test_report_lies_below_the_data_root(shop, first):
    report = report_path(shop, CUTOFF).read_text(encoding="utf-8")
    assert "Made up." in report
    assert f"<h2>One user: {first.example.user_id}</h2>" in report


def test_second_run_finds_only_duplicates_and_leaves_the_same_rows(spark, shop, first, stored):
    lists_before = table_rows(read(spark, shop, "recommendations"), "user_id", "item_id", "rank", "model", "task")
    second = run_main_job(spark, shop)
    counts = second.conservation["events"]
    assert (counts["inserted"], counts["duplicate"], counts["quarantined"]) == (0, 244, 3)
    assert {name: read(spark, shop, name).count() for name in TABLES} == stored
    assert (
        table_rows(read(spark, shop, "recommendations"), "user_id", "item_id", "rank", "model", "task") == lists_before
    )
    columns = ["task", "model", "slice", "metric", "k", "num_users"]
    assert second.metrics_pdf[columns].equals(first.metrics_pdf[columns])
    assert second.metrics_pdf["value"].to_numpy() == pytest.approx(first.metrics_pdf["value"].to_numpy(), abs=1e-6)


# MovieLens in GroupLens' layouts

FLAGS = "|".join("0" * 19)
MOVIELENS = {
    "ml-100k": ("u.data", "u.item", "latin-1", "\n",
        ["196\t242\t3\t881250949", "186\t1674\t5\t891717742"],
        [f"242|Kolya (1996)|24-Jan-1997||http://us.imdb.com/M/title-exact?Kolya%20(1996)|{FLAGS}",
         f"1674|Misérables, \"Les\" (1995)|01-Jan-1995||http://x|{FLAGS}"]),
    "ml-1m": ("ratings.dat", "movies.dat", "latin-1", "\n",
        ["196::242::3::881250949", "186::1674::5::891717742"],
        ["242::Kolya (1996)::Comedy", "1674::Misérables, \"Les\" (1995)::Drama|Musical"]),
    "ml-10m": ("ratings.dat", "movies.dat", "utf-8", "\n",
        ["196::242::3::881250949", "186::1674::5::891717742"],
        ["242::Kolya (1996)::Comedy", "1674::Misérables, \"Les\" (1995)::Drama|Musical"]),
    "ml-20m": ("ratings.csv", "movies.csv", "utf-8", "\r\n",
        ["userId,movieId,rating,timestamp", "196,242,3.0,881250949", "186,1674,5.0,891717742"],
        ["movieId,title,genres", "242,Kolya (1996),Comedy", "1674,\"Misérables, \"\"Les\"\" (1995)\",Drama|Musical"]),
    "ml-25m": ("ratings.csv", "movies.csv", "utf-8", "\n",
        ["userId,movieId,rating,timestamp", "196,242,3.0,881250949", "186,1674,5.0,891717742"],
        ["movieId,title,genres", "242,Kolya (1996),Comedy", "1674,\"Misérables, \"\"Les\"\" (1995)\",Drama|Musical"]),
}  # fmt: skip


def test_every_shipped_movielens_config_is_tried():
    assert {path.stem for path in CONF.glob("ml-*.yaml")} == set(MOVIELENS)


@pytest.mark.parametrize("name", MOVIELENS)
def test_movielens_files_are_read_as_published(spark, tmp_path, name):
    ratings, movies, encoding, newline, rating_lines, movie_lines = MOVIELENS[name]
    for file, lines in ((ratings, rating_lines), (movies, movie_lines)):
        (tmp_path / file).write_bytes("".join(line + newline for line in lines).encode(encoding))
    paths = [f"sources.events.path={tmp_path}/{ratings}", f"sources.items.path={tmp_path}/{movies}"]
    config = load_config(CONF / f"{name}.yaml", [f"data_root={tmp_path}/root", *paths])

    events, items = ingest_events(spark, config), ingest_items(spark, config)
    assert [(counts["read"], counts["inserted"], counts["quarantined"]) for counts in (events, items)] == [
        (2, 2, 0)
    ] * 2
    rows = read(spark, config, "events").selectExpr(
        "user_id", "item_id", "value", "event_type", "unix_timestamp(timestamp)"
    )
    assert sorted(map(tuple, rows.collect())) == [
        ("186", "1674", 5.0, "rating", 891717742), ("196", "242", 3.0, "rating", 881250949),
    ]  # fmt: skip
    titles = {row["item_id"]: row["title"] for row in read(spark, config, "items").collect()}
    assert titles == {"242": "Kolya (1996)", "1674": 'Misérables, "Les" (1995)'}


# Online Retail, one CSV a day

RETAIL = {
    "2010-12-01": [
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country",
        "536365,85123A,WHITE HEART,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom",
        "536365,85123A,WHITE HEART,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom",  # printed twice
        "C536379,D,Discount,-1,2010-12-01 09:41:00,27.5,14527.0,United Kingdom",  # cancelled
        "536414,22139,,56,2010-12-01 11:52:00,0.0,,United Kingdom",  # no customer, no description
        '536370,22728,"CLOCK, ""RED""",24,2010-12-01 08:45:00,3.75,12583,France',
        "536371,POST,POSTAGE,0,2010-12-01 09:00:00,18.0,12583.0,France",  # nothing bought
        "536372,71053,LANTERN,1,1st of December,3.39,12583.0,France",  # no time
    ],
    "2010-12-02": [
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country",
        "536365,85123A,WHITE HEART,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom",  # delivered again
    ],
}


def test_online_retail_lines_end_where_its_config_says(spark, tmp_path):
    for day, lines in RETAIL.items():
        write_lines(tmp_path / "by-day" / f"{day}.csv", *lines)
    paths = [f"sources.{feed}.path={tmp_path}/by-day" for feed in ("events", "items")]
    config = load_config(
        CONF / "online_retail.yaml", [f"data_root={tmp_path}/root", "ingest.max_quarantined_share=0.2", *paths]
    )

    counts = ingest_events(spark, config)
    assert {name: value for name, value in counts.items() if value} == {
        "read": 8, "inserted": 2, "duplicate": 2, "filtered": 3, "quarantined": 1, "quarantined.bad_timestamp": 1,
        "filtered.no_customer": 1, "filtered.cancelled": 1, "filtered.nothing_bought": 1,
    }  # fmt: skip
    columns = ("user_id", "item_id", "session_id", "value", "timestamp", "attributes['Country']")
    events = (
        read(spark, config, "events").orderBy("user_id").selectExpr(*[f"cast({name} AS string)" for name in columns])
    )
    assert [tuple(row) for row in events.collect()] == [
        ("12583", "22728", "536370", "3.75", "2010-12-01 08:45:00", "France"),
        ("17850", "85123A", "536365", "2.55", "2010-12-01 08:26:00", "United Kingdom"),
    ]

    items = ingest_items(spark, config)
    assert (items["read"], items["inserted"], items["duplicate"], items["filtered"]) == (8, 5, 2, 1)
    titles = {row["item_id"]: row["title"] for row in read(spark, config, "items").collect()}
    assert titles["22728"] == 'CLOCK, "RED"'
