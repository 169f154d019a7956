"""The page of the report: self-contained, escaped, and in words what the map says in colours."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from lockbox_node.observe.report_page import banded, case_name, margin_kind, margin_words, page

VOID = {"meta", "path", "circle", "line"}


def case(name: str, **changes: object) -> dict[str, Any]:
    plain = {"nodes": 3, "gone": 0, "shards": 12, "stripes": 4, "worst": 1, "lost": 0, "margins": {"1": 3, "5": 1}}
    return {"name": name, **plain, **changes}


def region(name: str, city: str, latitude: float, longitude: float, **changes: object) -> dict[str, Any]:
    return case(name, city=city, latitude=latitude, longitude=longitude, **changes)


def report(**changes: object) -> dict[str, Any]:
    return {
        "node": "ab" * 32,
        "region": "eu-west-1",
        "operator": "op1",
        "made": "2026-11-25T12:49:09+00:00",
        "view_trusted": True,
        "members": {"alive": 21, "dead": 3},
        "location": {"claimed": 16, "measured": 4, "refuted": 1},
        "stripes": 1234,
        "tiers": {"standard": 1200, "elite": 34},
        "margins": {"4": 1, "5": 1233},
        "lost": 0,
        "short": 7,
        "out_of_placement": 2,
        "regions": [
            region("eu-west-1", "Dublin", 53.35, -6.26, worst=-1, lost=2, margins={"-1": 2, "0": 5, "7": 90}),
            region("us-east-1", "Ashburn", 39.04, -77.49),
            region("ap-south-1", "Mumbai", 19.08, 72.88, nodes=0, gone=3, shards=0, worst=None, margins={}),
            case("of a table to come"),
        ],
        "operators": [case("op1")],
        "releases": [case("0123456789abcdef" * 4)],
        "unlisted": {"regions": 0, "operators": 17, "releases": 0},
        "worst": [
            {
                "address": "00ff" * 4,
                "tier": "basic",
                "margin": 2,
                "after": {"kind": "region", "name": "eu-west-1", "margin": 0},
            }
        ],
        "worst_listed_max": 20,
        **changes,
    }


class Nested(HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def words_of(text: str) -> str:
    parser = Nested()
    parser.feed(text)
    assert parser.open == []
    return " ".join(parser.text)


def test_the_page_says_how_much_it_knows_and_what_each_loss_would_leave() -> None:
    words = words_of(page(report()))
    for said in (
        "1,234",
        "1,200 Standard, 34 Elite",
        "21 alive",
        "3 dead",
        "4 measured",
        "1 refuted",
        "2026-11-25 12:49",
        "00ff00ff00ff00ff",
    ):
        assert said in words
    assert "Dublin: 2 lost" in words
    assert "Ashburn: 1" in words
    assert "Mumbai: gone" in words
    assert "Dublin (eu-west-1): 3 nodes, 12 shards; 2 lost" in words
    assert "17 more are not listed" in words
    assert "0123456789ab" in words
    assert "0123456789abc" not in words


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs() -> None:
    text = page(report())
    assert not re.search(r"https?:|url\(|@import|<script|<link|<img|\son\w+=|\sstyle=", text)
    assert "default-src 'none'" in text
    assert "prefers-color-scheme:dark" in text
    assert 'lang="en"' in text


def test_names_that_others_chose_are_escaped() -> None:
    evil = '<script>alert("x")</script>'
    operators, regions = [case(evil)], [case(evil + "\x1b[2J")]
    worst = report()["worst"]
    worst[0]["after"] = {"kind": "operator", "name": evil, "margin": 0}
    text = page(report(operator=evil, region=evil, operators=operators, regions=regions, worst=worst))
    assert "<script>" not in text
    assert "\x1b" not in text
    words_of(text)


def test_a_node_that_holds_nothing_has_a_page_too() -> None:
    empty = report(stripes=0, tiers={}, margins={}, regions=[], operators=[], releases=[], worst=[])
    assert "holds nothing yet" in words_of(page(empty))


def test_a_doubted_view_is_said() -> None:
    assert "doubts its view" in words_of(page(report(view_trusted=False)))
    assert "doubts its view" not in words_of(page(report()))


@pytest.mark.parametrize(
    ("worst", "lost", "kind", "words"),
    [
        (None, 0, "none", "holds nothing"),
        (-3, 1200, "lost", "1,200 lost"),
        (0, 0, "thin", "margin 0"),
        (2, 0, "low", "margin 2"),
        (3, 0, "good", "margin 3"),
    ],
)
def test_a_margin_in_a_word(worst: int | None, lost: int, kind: str, words: str) -> None:
    assert margin_kind(worst) == kind
    assert margin_words(worst, lost) == words


def test_margins_are_gathered_in_bands() -> None:
    counted = banded({"-5": 1, "-1": 2, "0": 3, "1": 4, "2": 5, "3": 6, "12": 7})
    assert counted == {"lost": 3, "0": 3, "1": 4, "2": 5, "3+": 13}


def test_a_name_holds_nothing_that_moves_a_terminal() -> None:
    assert case_name("operators", "a\x1b[31m\nb") == "a?[31m?b"
    assert case_name("release", "f" * 64) == "f" * 12
