"""Reports that showed an erased user."""

from __future__ import annotations

from datetime import date

import pytest

from recsys_spark.evaluation.notice import rewrite_if_named

DAY = date(2024, 3, 9)


def rewrite(file, text, *ids, words=()):
    return rewrite_if_named(ids, DAY, lambda found: any(word.encode() in found for word in words))(file, text)


@pytest.mark.parametrize("text", ["<h2>One user: 12</h2>", "x<pre>\n  example_user: &#39;12&#39;\n</pre>"])
def test_a_report_that_shows_the_user_becomes_a_notice(text):
    found = rewrite("report.html", text, "12")
    assert "erased on 2024-03-09" in found
    assert rewrite("report.html", found, "12") is None


def test_numbers_that_look_like_the_user_are_no_reason_and_words_are():
    assert rewrite("report.html", "<td>12</td><h2>One user: 123</h2>", "12") is None
    assert rewrite("report.html", "<td>m&uuml;ller</td>", "müller", words=("müller",)) is not None


def test_a_config_keeps_everything_but_the_user():
    text = "evaluation:\n  example_user: 'u 1'\n  k: [10]\n"
    assert rewrite("config.yaml", text, "u 1") == "evaluation:\n  example_user: null\n  k: [10]\n"
    assert rewrite("config.yaml", text, "u 2") is None
