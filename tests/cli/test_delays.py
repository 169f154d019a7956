"""The words of `up --latency world`, and the file that they become."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lockbox_node.adapters.delayed_network import round_trip_s
from lockbox_node.cli.delays import NEAR_MS, Delays, round_trip_ms
from lockbox_node.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

REGIONS = ("us-east-1", "ap-southeast-2")
LIAR = "n02=eu-central-1"


def test_a_round_trip_is_the_great_circle_there_and_back_with_detours() -> None:
    # Frankfurt to Sydney: 16,485 km, at 199,862 km/s and 1.4 times as far.
    assert round_trip_ms("eu-central-1", "ap-southeast-2") == pytest.approx(232, abs=1)
    assert round_trip_ms("ap-southeast-2", "eu-central-1") == round_trip_ms("eu-central-1", "ap-southeast-2")
    assert round_trip_ms("eu-central-1", "eu-central-1") == NEAR_MS


def test_a_liar_stands_where_it_was_put_and_the_others_where_they_claim() -> None:
    delays = Delays.of("", [LIAR], REGIONS)
    assert delays.place_of("n02", "ap-southeast-2") == "eu-central-1"
    assert delays.place_of("n04", "ap-southeast-2") == "ap-southeast-2"


def test_clients_stand_in_the_first_region_or_where_they_are_put() -> None:
    assert Delays.of("", [], REGIONS).client == "us-east-1"
    assert Delays.of("af-south-1", [], REGIONS).client == "af-south-1"


def test_the_daemons_read_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    Delays.of("eu-west-1", [], REGIONS).save(path, {"127.1.1.1": "us-east-1", "127.1.2.1": "ap-southeast-2"})
    assert round_trip_s(path, "127.1.1.1", "127.1.2.1") == round_trip_ms(*REGIONS) / 1000
    assert round_trip_s(path, "127.1.2.1", "127.0.0.1") == round_trip_ms("ap-southeast-2", "eu-west-1") / 1000
    assert round_trip_s(path, "127.1.2.1", "127.1.2.1") == NEAR_MS / 1000
    assert [file.name for file in tmp_path.iterdir()] == ["latency.json"]
    assert json.loads(path.read_text())["places"]["127.1.1.1"] == "us-east-1"


@pytest.mark.parametrize(
    ("client", "liar", "word"),
    [
        ("atlantis", LIAR, "'atlantis' is not a region"),
        ("", "n02=atlantis", "'atlantis' is not a region"),
        ("", "n02", "not who lies"),
        ("", "n02=", "not who lies"),
        ("", "=eu-central-1", "not who lies"),
        ("", "n2=eu-central-1", "not who lies"),
        ("", "", "not who lies"),
    ],
)
def test_wrong_words_are_refused(client: str, liar: str, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        Delays.of(client, [liar], REGIONS)
