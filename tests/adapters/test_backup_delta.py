"""A delta turns the full copy into the newer one, whatever differs, grows or shrinks; what is none is refused."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockbox_node.adapters.backup_delta import apply_delta, write_delta
from lockbox_node.adapters.store_schema import PAGE_BYTES
from lockbox_node.errors import ExitCode, LockboxError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def ignore(_count: int) -> None:
    pass


def written(path: Path, pages: Sequence[int]) -> Path:
    """A file of pages, each of one byte value."""
    path.write_bytes(b"".join(bytes([value]) * PAGE_BYTES for value in pages))
    return path


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 2), max_size=20), st.lists(st.integers(0, 2), max_size=20))
def test_full_and_delta_give_the_newer_one(tmp_path: Path, before: list[int], now: list[int]) -> None:
    full, newer = written(tmp_path / "full", before), written(tmp_path / "newer", now)
    delta = tmp_path / "delta"
    delta.unlink(missing_ok=True)
    made = write_delta(full, newer, delta, ignore)
    assert made.full_sha256 == hashlib.sha256(full.read_bytes()).hexdigest()
    assert made.newer_sha256 == hashlib.sha256(newer.read_bytes()).hexdigest()
    assert (made.newer_bytes, made.delta_bytes) == (len(now) * PAGE_BYTES, delta.stat().st_size)
    assert made.delta_sha256 == hashlib.sha256(delta.read_bytes()).hexdigest()
    apply_delta(delta, full, ignore)
    assert full.read_bytes() == newer.read_bytes()


def test_only_pages_that_differ_are_in_it_also_beyond_one_chunk(tmp_path: Path) -> None:
    before = [number % 200 for number in range(1000)]
    now = [*before[:300], 255, *before[301:999], 255, 7]
    full, newer = written(tmp_path / "full", before), written(tmp_path / "newer", now)
    steps: list[int] = []
    made = write_delta(full, newer, tmp_path / "delta", steps.append)
    assert made.delta_bytes == 12 + 3 * (4 + PAGE_BYTES)
    assert sum(steps) == 1001 * PAGE_BYTES
    apply_delta(tmp_path / "delta", full, ignore)
    assert full.read_bytes() == newer.read_bytes()


def test_it_is_for_its_owner_alone_and_never_overwrites(tmp_path: Path) -> None:
    full = written(tmp_path / "full", [1])
    write_delta(full, full, tmp_path / "delta", ignore)
    assert (tmp_path / "delta").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        write_delta(full, full, tmp_path / "delta", ignore)


@pytest.mark.parametrize("harm", ["empty", "magic", "cut", "beyond"])
def test_what_is_no_delta_is_refused(harm: str, tmp_path: Path) -> None:
    full, newer = written(tmp_path / "full", [1, 2]), written(tmp_path / "newer", [1, 3])
    delta = tmp_path / "delta"
    write_delta(full, newer, delta, ignore)
    raw = bytearray(delta.read_bytes())
    match harm:
        case "empty":
            raw.clear()
        case "magic":
            raw[0] ^= 1
        case "cut":
            del raw[-1]
        case "beyond":
            raw[15] = 2
    delta.write_bytes(raw)
    with pytest.raises(LockboxError, match="nothing was restored") as refused:
        apply_delta(delta, full, ignore)
    assert refused.value.exit_code is ExitCode.CORRUPT
