"""Remembered members: whole, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lockbox_node.adapters.member_cache import load_members, save_members
from protocol.messages import Signed

if TYPE_CHECKING:
    from pathlib import Path

RECORDS = [Signed(b"one", b"s" * 64), Signed(b"two", b"t" * 64)]


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    save_members(tmp_path / "members", RECORDS)
    save_members(tmp_path / "members", RECORDS[:1])
    assert load_members(tmp_path / "members") == RECORDS[:1]
    assert [path.name for path in tmp_path.iterdir()] == ["members"]


def test_no_file_is_nobody(tmp_path: Path) -> None:
    assert load_members(tmp_path / "members") == []


@pytest.mark.parametrize("content", [b"", b"\x93\x01\x02", b"\x91\x01", b"\x91\x91\xc4\x01a", b"\xc1", b"\x01"])
def test_a_damaged_file_is_nobody(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "members").write_bytes(content)
    assert load_members(tmp_path / "members") == []
