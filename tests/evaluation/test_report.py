"""The report is parsed as a browser would, and what it shows is compared with what went in."""

from dataclasses import replace
from datetime import date
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from recsys_spark.evaluation.report import render_report
from recsys_spark.evaluation.run_results import Categories, ExampleUser, ListedItem, RunResults, Tail
from recsys_spark.evaluation.significance import Comparison

COLUMNS = ["task", "model", "slice", "metric", "k", "value", "ci_low", "ci_high", "num_users"]
NASTY = "Bread & <script>alert('x')</script>"
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements with their attributes, texts of the cells row by row, and whether every tag is closed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open_tags, self.rows, self.bold, self.text = [], [], [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open_tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if {"td", "th"} & set(self.open_tags):
            self.rows[-1][-1] = " ".join(f"{self.rows[-1][-1]} {data}".split())
        if "strong" in self.open_tags and "td" in self.open_tags:
            self.bold.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def plots(self):
        return self.all("svg")

    @property
    def sections(self):
        return [attrs["id"] for attrs in self.all("section")]


def metric_rows(task, model, slice_name, ndcg, num_users):
    ranking = [
        (task, model, slice_name, name, 10, ndcg * factor, ndcg * factor - 0.01, ndcg * factor + 0.01, num_users)
        for name, factor in {"ndcg": 1, "hr": 2, "recall": 0.5, "map": 0.25}.items()
    ]
    whole = [(task, model, slice_name, name, 10, ndcg * 3, None, None, num_users) for name in ("coverage", "novelty")]
    return ranking + (whole if slice_name == "all" else [])


def interval(value):
    return f"{value:.4f} {value - 0.01:.4f} {DASH} {value + 0.01:.4f}"


def metrics_pdf(*groups):
    return pd.DataFrame([row for group in groups for row in metric_rows(*group)], columns=COLUMNS)


@pytest.fixture
def results():
    listed = (ListedItem("1", NASTY, 0.9, True), ListedItem("2", "Milk", 0.8, False))
    return RunResults(
        title="Shop <b>one</b>",
        notices=("Simulated data, see https://example.org",),
        run_date=date(2024, 3, 1),
        truth_end=date(2024, 3, 8),
        protocol="global time split",
        conservation={
            "events": {
                "inserted": 90, "duplicate": 4, "filtered": 3, "filtered.no_customer": 3, "quarantined": 3,
                "quarantined.malformed": 2, "quarantined.bad_timestamp": 1, "read": 100,
            },
        },
        events_per_day=((date(2024, 2, 28), 60), (date(2024, 3, 1), 30), (date(2024, 3, 9), 5)),
        metrics_pdf=metrics_pdf(
            ("next", "popular", "all", 0.1, 1200), ("next", "als", "all", 0.15, 1200),
            ("next", "popular", "cold_users", 0.05, 7), ("next", "als", "cold_users", 0.05, 7),
            ("discovery", "popular", "all", 0.08, 1100), ("discovery", "als", "all", 0.06, 1100),
        ),
        item_event_counts=np.array([5, 50, 1, 0]),
        list_counts={(task, model): np.array([7, 3]) for task in ("next", "discovery") for model in ("popular", "als")},
        example=ExampleUser("u1", ((NASTY, 9), ("Milk", 2)), {("next", "als"): listed}, {"next": (NASTY,)}),
        config_yaml="split: {test_share: 0.1}  # <deep>",
        table_versions={"events": 3},
        timings={"recommend": 1.25, "evaluate": 2.0},
    )  # fmt: skip


def test_is_well_formed_and_loads_nothing(results):
    html = render_report(results)
    page = Page(html)
    assert page.open_tags == []
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements}
    links = [
        value
        for _, attrs in page.elements
        for name, value in attrs.items()
        if name in ("src", "href", "xlink:href", "action", "data", "srcset")
    ]
    assert links
    assert all(link.startswith("#") for link in links)
    assert "url(http" not in html
    assert "@import" not in html
    # The notice is the only place that an address comes from: matplotlib's name spaces are gone too.
    assert html.count("http:") + html.count("https:") == 1


def test_escapes_what_comes_from_outside(results):
    html = render_report(results)
    assert "<script" not in html
    assert "<b>one" not in html
    assert "&lt;script&gt;" in html
    assert NASTY in "".join(Page(html).text)


def test_model_names_are_escaped_in_plots_and_not_read_as_formulas(results):
    name = 'a<"b">&$x^2$'
    pdf = results.metrics_pdf.replace({"model": {"als": name}})
    page = Page(render_report(replace(results, metrics_pdf=pdf, list_counts={("next", name): np.array([1, 1])})))
    assert page.open_tags == []
    assert any(name in attrs["aria-label"] for attrs in page.plots)
    assert page.text.count(name) > 2


def test_shows_the_numbers_of_the_frame(results):
    rows = Page(render_report(results)).rows
    assert ["als", *map(interval, (0.15, 0.3, 0.075, 0.0375)), "0.4500", "0.45", "1.50"] in rows
    shown = {(row[0], row[1], row[-1]) for row in rows if len(row) == 8}
    everyone = results.metrics_pdf.query("metric == 'ndcg' and slice == 'all'")
    ratios = ["1.00", "1.50", "1.00", "0.75"]
    expected = zip(everyone["model"], map(interval, everyone["value"]), ratios, strict=True)
    assert shown - {("Model", "NDCG@10", "× popular")} == set(expected)  # noqa: RUF001


def test_the_best_of_each_column_is_bold(results):
    bold = Page(render_report(results)).bold
    # als wins every column of next, popular of discovery; novelty has no best; the tie of the new users is bold twice
    assert {"0.1500", "0.3000", "0.0750", "0.0375", "0.4500", "0.0800", "0.1600"} <= set(bold)
    assert not {"0.1000", "0.0600", "0.45", "0.24"} & set(bold)
    assert bold.count("0.0500") == 2


def test_one_model_alone_is_not_called_the_best(results):
    alone = replace(results, metrics_pdf=metrics_pdf(("next", "als", "all", 0.15, 1200)), list_counts={})
    page = Page(render_report(alone))
    assert page.bold == []
    assert any(row[0] == "als" and row[-1] == DASH for row in page.rows)  # nothing to be a multiple of


def test_every_plot_is_one_image_with_words(results):
    page = Page(render_report(results))
    # two rankings, two concentrations, popularity, days
    assert len(page.plots) == len(page.all("figure")) == 6
    assert {attrs["role"] for attrs in page.plots} == {"img"}
    alts = [attrs["aria-label"] for attrs in page.plots]
    assert len(set(alts)) == 6
    assert any("popular 0.1000, als 0.1500" in alt for alt in alts)
    assert any("2024-02-28 to 2024-03-09: 95 in all" in alt for alt in alts)
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_tables_have_captions_and_scopes(results):
    page = Page(render_report(results))
    assert len(page.all("caption")) == len(page.all("table")) > 6
    assert all(attrs.get("scope") for attrs in page.all("th"))


def test_plots_follow_the_theme(results):
    html = render_report(results)
    assert "var(--s1)" in html
    assert "prefers-color-scheme: dark" in html
    assert "#0072b2" not in html[html.index("<body>") :]


def test_accounts_for_every_line(results):
    page = Page(render_report(results))
    assert ["duplicate delivered before, under the same id", "4", "4.00 %"] in page.rows
    assert ["malformed", "2", "2.00 %"] in page.rows
    assert ["read the sum of the above", "100", ""] in page.rows
    assert not any(row and row[0].startswith("late") for row in page.rows)


def test_says_so_when_lines_are_missing(results):
    page = Page(render_report(replace(results, conservation={"items": {"inserted": 8, "read": 10}})))
    assert any("2 lines are not accounted for" in cell for row in page.rows for cell in row)


def test_marks_the_hits_of_the_example(results):
    page = Page(render_report(results))
    assert "example" in page.sections
    assert sum(attrs.get("class") == "hit" for attrs in page.all("td")) == 1
    assert ["1", f"Came true: {NASTY}"] in page.rows
    assert ["2", "Milk"] in page.rows


def test_slices(results):
    page = Page(render_report(results))
    assert "slices" in page.sections
    assert ["Slice", "Users", "popular", "als"] in page.rows
    everyone, unknown = (
        next(row for row in page.rows if row[0].startswith(name)) for name in ("Everyone", "Unknown users")
    )
    assert everyone[1:] == ["1,200", interval(0.1), interval(0.15)]
    assert unknown[1:] == ["7", interval(0.05), interval(0.05)]


def test_slices_by_category_go_by_its_name_after_the_others(results):
    pdf = pd.concat([results.metrics_pdf, metrics_pdf(("next", "als", "category:Milk & eggs", 0.2, 3))])
    rows = Page(render_report(replace(results, metrics_pdf=pdf))).rows
    slices = [row[0] for row in rows if row[0].endswith(("period", "cutoff", "of items"))]
    assert slices[-1] == "Milk & eggs a category of items"
    assert next(row for row in rows if row[0] == slices[-1])[1:] == ["3", DASH, interval(0.2)]


def compared(results, *pairs):
    """The results with comparisons on the task next: (model, other, difference, p)."""
    found = [
        Comparison(model, other, gap, gap - 0.01, gap + 0.01, p / 2, p / 2, p, p) for model, other, gap, p in pairs
    ]
    pdf = pd.concat([results.metrics_pdf, metrics_pdf(("next", "again", "all", 0.14, 1200))])
    return replace(results, metrics_pdf=pdf, comparisons={"next": found})


def test_says_which_differences_are_more_than_chance(results):
    page = Page(render_report(compared(
        results, ("popular", "als", -0.05, 0.001), ("popular", "again", -0.04, 0.2), ("als", "again", 0.01, 0.0501)
    )))  # fmt: skip
    verdicts = {row[0]: row[-2:] for row in page.rows if len(row) == 9 and row[0] != "Model"}
    assert verdicts == {
        "popular": ["yes", "1.00"],
        "als": ["best", "1.50 above"],
        "again": ["not shown", "1.40 not shown"],
    }
    assert [f"popular {MINUS} als", "-0.0500 -0.0600 to -0.0400", "0.0005", "0.0010"] in page.rows
    assert {"0.0010"} <= set(page.bold)
    assert not {"0.2000", "0.0501"} & set(page.bold)
    assert (
        len([row for row in page.rows if row[0] in ("als", "popular") and len(row) == 8]) == 2
    )  # discovery: not compared


def test_long_tail_and_categories_are_drawn_where_they_are_known(results):
    curve = np.array([[0, 0], [0.5, 0.9], [1, 1]])
    keys = [(task, model) for task in ("next", "discovery") for model in ("popular", "als")]
    tail = Tail(head_share=0.9, popularity=curve, coverage=np.array([0.01, 0.02]))
    categories = Categories(
        had={"<Milk>": 0.4}, listed={key: {"<Milk>": 0.3} for key in keys}, curves={keys[0]: curve[1:]}
    )
    shown = replace(results, tails=dict.fromkeys(keys, tail), categories=categories)
    page = Page(render_report(shown))
    assert page.open_tags == []
    assert page.sections == ["reading", "models", "slices", "tail", "categories", "example", "days", "lines", "rerun"]
    alts = [attrs["aria-label"] for attrs in page.plots]
    assert len(set(alts)) == len(alts) == 6 + 2 + 2 + 1 + 2
    assert any("drew half of all interactions: popular 90%, als 90%" in alt for alt in alts)
    assert any("at length 2: popular 2.0%, als 2.0%" in alt for alt in alts)
    assert any("categories that fill 100% of a user's past, lists hold on average: popular 100%" in alt for alt in alts)
    assert any("what users had (<Milk> 40%)" in alt for alt in alts)
    assert ["popular", "2", "100.00 %", "90.00 %", "2", "100.00 %", "90.00 %"] in page.rows


def test_parts_that_are_missing_leave_no_section(results):
    bare = replace(
        results, notices=(), conservation={}, events_per_day=(), metrics_pdf=metrics_pdf(("next", "als", "all", 0, 3)),
        item_event_counts=np.array([], dtype=np.int64), list_counts={}, example=None, table_versions={}, timings={},
    )  # fmt: skip
    page = Page(render_report(bare))
    assert page.sections == ["reading", "models", "rerun"]
    assert {attrs["href"] for attrs in page.all("a")} == {"#reading", "#models", "#rerun"}
    assert len(page.plots) == 1
    nothing = replace(bare, metrics_pdf=pd.DataFrame(columns=COLUMNS))
    assert Page(render_report(nothing)).sections == ["rerun"]


def test_a_slice_without_a_value_is_a_dash(results):
    pdf = results.metrics_pdf.copy()
    pdf.loc[(pdf["slice"] == "cold_users") & (pdf["model"] == "als"), "value"] = np.nan
    page = Page(render_report(replace(results, metrics_pdf=pdf)))
    assert any(row[0].startswith("Unknown users") and row[1:] == ["7", interval(0.05), DASH] for row in page.rows)


def test_other_list_lengths(results):
    page = Page(render_report(replace(results, metrics_pdf=results.metrics_pdf.assign(k=5))))
    assert any("NDCG@5" in row for row in page.rows)


def test_same_results_give_the_same_text(results):
    assert render_report(results) == render_report(results)


def test_page_fits_a_phone_and_paper(results):
    page = render_report(results)
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert "@media screen and (max-width: 40rem)" in page
    assert "@media print" in page
