"""The evaluation pipeline on a tiny world of literal tables: metrics by hand, planted leaks, MLflow, and the report."""

from __future__ import annotations

import logging
import math
import shutil
from datetime import date
from pathlib import Path

import pytest
from factories import make_config, make_events
from mlflow.tracking import MlflowClient
from worlds import table_pdf, write_events

from recsys_spark.config_file import load_config
from recsys_spark.errors import DataError
from recsys_spark.infra import tables
from recsys_spark.infra.tracking import tracking_uri
from recsys_spark.pipelines import evaluate as pipeline
from recsys_spark.pipelines.evaluate import evaluate_run, report_path, what_is_missing

pytestmark = pytest.mark.spark

CUTOFF = date(2024, 3, 10)
VALIDATION = date(2024, 3, 5)
USERS = ("ann@home", "bob@home", "new@home", "idle@home")


def event(user, item, day, event_type="buy"):
    return {
        "user_id": f"{user}@home",
        "item_id": item,
        "event_type": event_type,
        "timestamp": f"2024-03-{day} 12:00:00",
    }


EVENTS = [
    event("ann", "tea", "01"), event("ann", "tea", "02"), event("bob", "tea", "01"), event("bob", "bread", "02"),
    event("idle", "tea", "03"), event("idle", "milk", "03"), event("idle", "jam", "04"), event("ann", "jam", "06"),
    # truth of the 10th: ann had tea again, milk and a fig; bob had milk; new had tea; a glance or a search is no success
    event("ann", "tea", "10"), event("ann", "milk", "12"), event("ann", "fig", "12"), event("bob", "milk", "11"),
    event("new", "tea", "11"), event("bob", "tea", "11", "glance"), event("idle", "bread", "11", "glance"),
    event("bob", None, "11"),
]  # fmt: skip
INGESTED = {
    "events": {
        "read": 16.0,
        "inserted": 16.0,
        "updated": 0,
        "duplicate": 0,
        "near_duplicate": 0,
        "late": 0,
        "filtered": 0,
        "quarantined": 0,
    }
}
CATEGORY_OF = {"tea": "drink", "milk": "drink", "bread": "food", "jam": "food", "fig": None}
LISTS = {
    ("next", "popular"): {"ann": ["tea", "bread"], "bob": ["tea", "bread"], "new": ["tea", "bread"], "idle": ["tea", "bread"]},
    ("next", "again"): {"ann": ["tea", "jam"], "idle": ["tea"]},  # bob and new have no list
    ("discovery", "popular"): {"ann": ["milk", "bread"], "bob": ["jam", "milk"], "new": ["tea", "bread"], "idle": ["bread"]},
}  # fmt: skip


def rows_of(lists, version="v1", run_date=CUTOFF):
    return [
        (f"{user}@home", item, float(10 - rank), rank, model, f"{model}-{version}", run_date, task, user == "new")
        for (task, model), of_users in lists.items()
        for user, items in of_users.items()
        for rank, item in enumerate(items, start=1)
    ]


def write_lists(spark, config, lists, version="v1", run_date=CUTOFF):
    for task, model in lists:
        rows = spark.createDataFrame(
            rows_of({(task, model): lists[task, model]}, version, run_date), tables.TABLES["recommendations"].schema
        )
        tables.replace_partition(
            spark, config, "recommendations", rows, {"run_date": run_date, "task": task, "model": model}
        )


def write_items(spark, config):
    """Items with their category; whatever else a row holds does not matter here."""
    known = {"text_hash": "hash", "source": "products", "ingest_run": "run"}
    schema = tables.TABLES["items"].schema
    rows = [{"item_id": item, "title": item, "category": category} | known for item, category in CATEGORY_OF.items()]
    filled = [tuple(row.get(name) for name in schema.fieldNames()) for row in rows]
    tables.merge_new(spark, config, "items", spark.createDataFrame(filled, schema))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return make_config(
        tmp_path_factory.mktemp("tiny"),
        sources={"events": {"name": "corner_shop"}},
        split={"validation_start": VALIDATION, "test_start": CUTOFF},
        interactions={"event_weights": {"glance": 0}},
        recommend={"k": 2, "models": ["popular", "again"]},
        evaluation={"k": [1, 2], "num_categories": 1, "new_user_days": 7},
    )


@pytest.fixture(scope="module")
def results(spark_session, config):
    """The world with its interactions and lists, evaluated once."""
    from recsys_spark.pipelines.build_interactions import build_interactions

    write_events(
        spark_session, config, make_events(spark_session, [e | {"event_id": f"e{i}"} for i, e in enumerate(EVENTS)])
    )
    build_interactions(spark_session, config, CUTOFF)
    write_lists(spark_session, config, LISTS)
    write_items(spark_session, config)
    return evaluate_run(spark_session, config, CUTOFF, INGESTED, {"recommend": 1.5})


@pytest.fixture(scope="module")
def report(config, results):
    """The report's text, taken before a rerun replaces it."""
    return report_path(config, CUTOFF).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def values(results):
    return {
        (r["task"], r["model"], r["slice"], r["metric"], r["k"]): (r["value"], r["num_users"])
        for r in results.metrics_pdf.to_dict("records")
    }


def test_next_counts_repeats_and_users_without_a_list_as_0(values):
    # truth: ann {tea, milk, fig}, bob {milk}, new {tea}; `popular` hits tea of ann and of new at rank 1
    assert values["next", "popular", "all", "hr", 1] == (pytest.approx(2 / 3), 3)
    assert values["next", "popular", "all", "recall", 2] == (pytest.approx((1 / 3 + 0 + 1) / 3), 3)
    assert values["next", "again", "all", "hr", 2] == (pytest.approx(1 / 3), 3)
    ndcg_of_ann = 1 / (1 + 1 / math.log2(3))
    assert values["next", "again", "all", "ndcg", 2] == (pytest.approx(ndcg_of_ann / 3), 3)


def test_discovery_truth_is_what_was_not_had_before(values):
    # truth: ann {milk, fig}, bob {milk}, new {tea}
    assert values["discovery", "popular", "all", "hr", 1] == (pytest.approx(2 / 3), 3)
    assert values["discovery", "popular", "all", "recall", 2] == (pytest.approx((1 / 2 + 1 + 1) / 3), 3)
    assert not any(task == "discovery" and model == "again" for task, model, *_ in values)


def test_slices_by_known_users_and_items(values):
    assert values["next", "popular", "warm_users", "hr", 2] == (0.5, 2)
    assert values["next", "popular", "cold_users", "hr", 2] == (1.0, 1)
    assert values["next", "popular", "warm_items", "recall", 2] == (pytest.approx((1 / 2 + 0 + 1) / 3), 3)
    assert values["next", "popular", "cold_items", "recall", 2] == (0.0, 1)  # the fig was never sold before


def test_slices_by_popularity_category_and_activity(values):
    # interactions: tea 3, jam 2, bread 1, milk 1: tea and jam are the head, food and drink have 3 and 4 of the 7
    assert values["next", "popular", "head_items", "recall", 2] == (1.0, 2)  # the tea of ann and of new
    assert values["next", "popular", "tail_items", "recall", 2] == (0.0, 2)  # the milk of ann and of bob
    assert values["next", "popular", "category:drink", "recall", 2] == (pytest.approx((1 / 2 + 0 + 1) / 3), 3)
    slices = {name for _, _, name, *_ in values}
    assert {name for name in slices if name.startswith("category:")} == {
        "category:drink"
    }  # the largest one is asked for
    assert "heavy_users" not in slices  # idle, who has most, has no truth
    assert "new_users" not in slices  # ann and bob came more than seven days before


def test_miscalibration_compares_lists_with_the_past(values):
    # ann and bob had one drink and one food; the first place of popular is a drink; new has no past, bob no list of again
    only_drinks = 0.5 * math.log(0.5 / 0.995) + 0.5 * math.log(0.5 / 0.005)
    assert values["next", "popular", "all", "miscalibration", 1] == (pytest.approx(only_drinks), 2)
    assert values["next", "popular", "all", "miscalibration", 2] == (0.0, 2)
    assert values["next", "again", "all", "miscalibration", 2] == (0.0, 1)


def test_models_of_a_task_are_compared_on_the_same_users(results, values):
    assert list(results.comparisons) == ["next"]  # discovery has one model
    pair = results.comparisons["next"][0]
    assert (pair.model, pair.other) == ("popular", "again")
    ndcg = [values["next", model, "all", "ndcg", 1][0] for model in ("popular", "again")]
    assert pair.difference == pytest.approx(ndcg[0] - ndcg[1])
    assert pair.p_holm > 0.05  # two users


def test_coverage_is_of_the_catalogue(values):
    assert values["next", "popular", "all", "coverage", 1][0] == pytest.approx(1 / 4)  # tea of tea, bread, milk, jam
    assert values["next", "popular", "all", "coverage", 2][0] == pytest.approx(2 / 4)


def test_long_tail_and_categories_of_the_lists(results):
    tail = results.tails["next", "popular"]
    assert tail.head_share == 1.0  # the first places are all tea, and the plots are about the first k
    assert tail.coverage.tolist() == [1 / 4, 2 / 4]
    assert results.categories.had == pytest.approx({"drink": 4 / 7, "food": 3 / 7})
    assert results.categories.listed["next", "popular"] == {"drink": 1.0, "food": 0.0}
    assert results.categories.curves["next", "popular"].tolist() == [[0.5, 0.5]]  # half drink, half food in every past


def test_truth_takes_nothing_from_before_the_cutoff_nor_after_the_end(spark, config, results, values):
    # lists made for validation are compared with the days up to the test part: ann's jam, and nothing later
    from recsys_spark.pipelines.build_interactions import build_interactions

    build_interactions(spark, config, VALIDATION)
    right = {("next", "popular"): {"ann": ["jam"], "bob": ["milk"]}, ("discovery", "popular"): {"ann": ["jam"]}}
    write_lists(spark, config, right, run_date=VALIDATION)
    validated = evaluate_run(spark, config, VALIDATION)
    assert validated.truth_end == CUTOFF
    found = {
        (r["task"], r["metric"]): (r["value"], r["num_users"])
        for r in validated.metrics_pdf.query("slice == 'all' and k == 1").to_dict("records")
    }
    assert found["next", "recall"] == (1.0, 1)
    assert found["discovery", "recall"] == (1.0, 1)
    stored = table_pdf(spark, config, "metrics")
    assert set(stored["run_date"]) == {CUTOFF, VALIDATION}  # the metrics of the other date stay


def test_metrics_table_has_unique_keys_and_the_frames_values(spark, config, results):
    stored = table_pdf(spark, config, "metrics").query("run_date == @CUTOFF")
    assert not stored.duplicated(list(tables.TABLES["metrics"].key)).any()
    assert len(stored) == len(results.metrics_pdf)
    assert set(stored["protocol"]) == {"global_time_split"}
    assert set(stored["model_version"]) == {"popular-v1", "again-v1"}
    assert tables.read_table(spark, config, "metrics", "evaluate").where("isnan(value) OR isnan(ci_low)").isEmpty()


def test_report_lies_where_it_is_said_to(report):
    assert "corner_shop: recommendations of 2024-03-10" in report
    assert "<svg" in report


def test_report_shows_nobody_unless_configured(results, report):
    assert results.example is None
    assert "@home" not in report


@pytest.fixture(scope="module")
def runs(config, results):
    """The MLflow runs of the evaluation by their names."""
    client = MlflowClient(tracking_uri(config))
    experiment = client.get_experiment_by_name("recsys_spark")
    found = client.search_runs([experiment.experiment_id])
    parent = next(run for run in found if run.info.run_name == "evaluate 2024-03-10")
    children = [run for run in found if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return {"parent": parent} | {run.info.run_name: run for run in children}


def test_mlflow_has_one_child_run_per_model(runs):
    assert set(runs) == {"parent", "popular", "again"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["again"].data.metrics["next.hr_at_2"] == pytest.approx(1 / 3)
    assert runs["popular"].data.metrics["discovery.recall_at_2"] == pytest.approx(2.5 / 3)


def test_mlflow_parent_has_everything_to_compare_and_to_repeat_the_run(runs, config):
    parent = runs["parent"].data
    assert parent.metrics["next.popular.hr_at_1"] == pytest.approx(2 / 3)
    assert parent.metrics["ingest.events.read"] == 16.0
    assert parent.params["interactions.event_weights.glance"] == "0.0"
    assert {name for name in parent.tags if name.startswith("delta.")} == {
        "delta.events",
        "delta.interactions",
        "delta.items",
        "delta.recommendations",
    }
    assert parent.tags["delta.events"].isdigit()
    assert not any("@" in name for run in runs.values() for name in run.data.metrics)


def test_mlflow_artifacts_are_the_report_and_a_config_that_loads(runs, config, report):
    artifacts = Path(config.data_root) / "mlflow" / "artifacts" / runs["parent"].info.run_id / "artifacts"
    assert (artifacts / "comparisons.csv").read_text().startswith("task,model,other,difference,low,high,p_permutation,")
    assert {path.name for path in artifacts.iterdir()} == {"report.html", "config.yaml", "comparisons.csv"}
    assert load_config(artifacts / "config.yaml") == config
    assert (artifacts / "report.html").read_text(encoding="utf-8") == report


def test_no_user_id_reaches_mlflow(runs):
    for run in runs.values():
        said = [*run.data.params.items(), *run.data.metrics.items(), *run.data.tags.items(), run.info.run_name]
        assert not any(user in str(entry) for entry in said for user in USERS)


@pytest.fixture(scope="module")
def rerun(spark_session, config, results, runs, report):
    """The same date again, after the lists of one task were made anew, with an example user: (results, metrics before and after, log)."""
    before = table_pdf(spark_session, config, "metrics").query("run_date == @CUTOFF")
    write_lists(spark_session, config, {("next", "popular"): LISTS["next", "popular"]}, version="v2")
    median = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"example_user": "median"})})
    log, lines = logging.getLogger("recsys_spark"), []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    shown = evaluate_run(spark_session, median)
    log.removeHandler(handler)
    log.setLevel(level)
    return shown, before, table_pdf(spark_session, config, "metrics").query("run_date == @CUTOFF"), "\n".join(lines)


def test_rerun_replaces_the_metrics(rerun):
    _, before, after, _ = rerun
    key = ["task", "model", "slice", "metric", "k", "value"]
    assert sorted(map(tuple, after[key].values)) == sorted(map(tuple, before[key].values))
    assert set(after["run_id"]).isdisjoint(before["run_id"])


def test_lists_of_one_task_made_anew_keep_the_keys_unique(rerun):
    _, _, after, _ = rerun
    assert not after.duplicated(list(tables.TABLES["metrics"].key)).any()
    popular = after.query("model == 'popular'")
    assert set(zip(popular["task"], popular["model_version"], strict=True)) == {
        ("next", "popular-v2"),
        ("discovery", "popular-v1"),
    }


def test_no_user_id_reaches_the_log(rerun):
    *_, log = rerun
    assert "evaluate seconds=" in log
    assert not any(user in log for user in USERS)


def test_configured_example_is_in_the_results_and_the_report(config, rerun):
    shown, *_ = rerun
    assert shown.example.user_id == "ann@home"  # 3 events before; idle, who has 3 too, has none after
    assert "ann@home" in report_path(config, CUTOFF).read_text(encoding="utf-8")


def test_pipeline_gives_the_ndcg_of_each_list(results, monkeypatch):
    monkeypatch.setattr(pipeline, "evaluate_run", lambda *_: results)
    config = make_config(Path("unused"), evaluation={"k": [1, 2]})
    assert pipeline.evaluate(None, config) == {
        "next.popular": pytest.approx(2 / 3), "next.again": pytest.approx(1 / 3), "discovery.popular": pytest.approx(2 / 3),
    }  # fmt: skip


def test_missing_lists_and_plain_models_that_should_stand_beside_are_named(results, tmp_path):
    assert results.notices == ()
    config = make_config(tmp_path, recommend={"models": ["als", "again", "ease", "popular"]})
    listed = {("next", "als"), ("discovery", "als"), ("next", "ease"), ("next", "again"), ("next", "popular")}
    missing, beside = what_is_missing(config, CUTOFF, listed)
    assert missing.startswith("No lists of 2024-03-10 from ease (discovery), popular (discovery): train and recommend")
    assert beside.startswith("Not measured beside the other models: popular_recent, neighbours.")
    plain = make_config(tmp_path, recommend={"models": ["again"], "tasks": ["next"]})
    assert what_is_missing(plain, CUTOFF, {("next", "again")}) == []


def test_date_without_lists_names_the_job(spark, config, results):
    with pytest.raises(DataError, match=r"no recommendations of 2024-01-01; run jobs/recommend.py --date 2024-01-01"):
        evaluate_run(spark, config, date(2024, 1, 1))


def test_lists_from_before_the_interactions_were_built_anew_are_refused(spark, config, results, tmp_path):
    copy = config.model_copy(update={"data_root": str(tmp_path)})
    shutil.copytree(config.data_root, tmp_path, dirs_exist_ok=True)
    write_lists(spark, copy, {("next", "again"): {f"u{i}": [f"i{i}"] for i in range(5)}})
    with pytest.raises(DataError, match=r"5 places of the next lists of again hold items that the interactions"):
        evaluate_run(spark, copy, CUTOFF)
