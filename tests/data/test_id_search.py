"""Ids in raw bytes: whole ones in every spelling, none inside a longer word."""

from __future__ import annotations

import pytest

from recsys_spark.data.id_search import index_ids, names_one


@pytest.mark.parametrize(
    ("user_id", "text"),
    [
        ("u-77", b'{"user": "u-77", "torn'),
        ("u-77", b"u-77"),
        ("u-77", b"1,u-77;2"),
        ("Ünï", "x,Ünï,y".encode()),
        ("Ünï", b'{"u": "\\u00dcn\\u00ef"}'),
        ("Ünï", b'{"u": "\\u00DCn\\u00EF"}'),
        ("Ünï", "x;Ünï;y".encode("latin-1")),
        ("17850", b"536365,85123A,17850.0,UK"),
        ("17850", b"536365,85123A,017850,UK"),
        ("007", b"agent 7"),
        ("a@b.example", b"mail=a@b.example&x=1"),
        ("(me)", b"it is (me)!"),
        ('say "hi"', b'{"u": "say \\"hi\\""'),
        ("u-77", b"\xef\xbb\xbfu-77,i1"),
        ("u-77", b"u-77\xff,i1"),
        ("u-77", b'{"user": "\\tu-77"}'),
        ("u-77", b'{"user": "\\u00a0u-77"}'),
        ("\u5f20\u4f1f", "\ufeff\u5f20\u4f1f,i1".encode()),
    ],
)
def test_an_id_is_found_in_every_spelling(user_id, text):
    assert names_one(text, index_ids([user_id, "other"], ("latin-1", "no such encoding")))


@pytest.mark.parametrize(
    ("user_id", "text"),
    [
        ("u-77", b"u-778 xu-77 u-77-1 u-77_1"),
        ("17850", b"178501 117850 u17850"),
        ("Ünï", "Ünïq xÜnï".encode()),
        ("a@b.example", b"a@b.examples aa@b.example a@b"),
        ("(me)", b"me (you)"),
        ("u1", b""),
    ],
)
def test_a_part_of_a_longer_word_is_another_id(user_id, text):
    assert not names_one(text, index_ids([user_id]))


def test_an_id_without_a_word_is_refused():
    with pytest.raises(ValueError, match="a letter or a digit"):
        index_ids(["--- ???"[3:]])


def test_thousands_of_ids_cost_no_more_than_one():
    index = index_ids(f"user-{number}" for number in range(20_000))
    assert names_one(b"x user-19999 y", index)
    assert not names_one(b"x user-20000 y", index)
