"""The system's clock and the kernel's random bytes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from lockbox_node.adapters import clock
from lockbox_node.adapters.clock import OsEntropy, SystemClock
from lockbox_node.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real


@pytest.fixture
def entropy() -> OsEntropy:
    return OsEntropy()


def test_the_clock_is_the_systems() -> None:
    before = time.time()
    now = SystemClock().now_unix_s()
    assert before <= now <= time.time()


def test_the_whole_buffer_is_filled(entropy: OsEntropy) -> None:
    buffer = bytearray(1 << 20)
    entropy.fill(buffer)
    zeros = buffer.count(0)
    assert 3500 < zeros < 4700  # 4096 expected, deviation 64


def test_a_view_fills_only_its_part(entropy: OsEntropy) -> None:
    buffer = bytearray(96)
    entropy.fill(memoryview(buffer)[32:64])
    assert buffer[:32] == bytes(32) == buffer[64:]
    assert buffer[32:64] != bytes(32)


def test_two_fills_differ(entropy: OsEntropy) -> None:
    first, second = bytearray(32), bytearray(32)
    entropy.fill(first)
    entropy.fill(second)
    assert first != second


def test_an_empty_buffer_is_filled_at_once(entropy: OsEntropy) -> None:
    entropy.fill(bytearray())


def test_a_plain_file_is_no_source_of_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "urandom"
    fake.write_bytes(bytes(64))
    monkeypatch.setattr(clock, "RANDOM_DEVICE", str(fake))
    with pytest.raises(ConfigError, match="not the kernel's random device"):
        OsEntropy()


def test_a_missing_device_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "RANDOM_DEVICE", str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="cannot be read"):
        OsEntropy()
