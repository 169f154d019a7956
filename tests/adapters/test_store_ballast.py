"""Space held for nothing, given up and taken again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockbox_node.adapters.store_ballast import Ballast
from lockbox_node.core.storage_params import StoreParams

if TYPE_CHECKING:
    from pathlib import Path

PARAMS = StoreParams(ballast_bytes=1 << 20, free_floor_bytes=0, free_floor_percent=0.0)


def blocks(path: Path) -> int:
    return (path / "ballast").stat().st_blocks * 512


def test_the_ballast_takes_real_space_and_gives_it_back(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path, PARAMS)
    assert ballast.take()
    assert blocks(tmp_path) == ballast.held_bytes == 1 << 20
    assert ballast.let_go()
    assert blocks(tmp_path) == ballast.held_bytes == 0
    assert not ballast.let_go()


def test_a_ballast_of_an_earlier_life_counts(tmp_path: Path) -> None:
    Ballast(tmp_path, PARAMS).take()
    again = Ballast(tmp_path, PARAMS)
    assert again.take()
    assert again.held_bytes == 1 << 20


def test_without_room_above_the_floor_there_is_no_ballast_and_no_room(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path, StoreParams(ballast_bytes=1 << 20, free_floor_bytes=2**62))
    assert not ballast.take()
    assert ballast.room_bytes() == 0


def test_there_is_room_when_the_ballast_is_held(tmp_path: Path) -> None:
    assert Ballast(tmp_path, PARAMS).room_bytes() > 0


def test_a_smaller_ballast_than_before_gives_space_back(tmp_path: Path) -> None:
    Ballast(tmp_path, PARAMS).take()
    small = Ballast(tmp_path, StoreParams(ballast_bytes=4096, free_floor_bytes=0, free_floor_percent=0.0))
    assert small.take()
    assert blocks(tmp_path) == 4096
