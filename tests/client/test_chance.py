"""Unpredictable bytes come in a buffer that can be wiped."""

from __future__ import annotations

from lockbox_node.client.chance import fresh
from simulations.world import SeededEntropy


def test_fresh_bytes_have_the_length_asked_for_and_stand_in_a_buffer() -> None:
    drawn = fresh(32, SeededEntropy(1))
    assert type(drawn) is bytearray
    assert len(drawn) == 32
    assert fresh(0, SeededEntropy(1)) == b""


def test_no_draw_repeats_the_last_one() -> None:
    entropy = SeededEntropy(1)
    assert fresh(16, entropy) != fresh(16, entropy)
