"""Unpredictable bytes from the Entropy port, in buffers that can be wiped."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lockbox_node.ports import Entropy


def fresh(count: int, entropy: Entropy) -> bytearray:
    """`count` unpredictable bytes."""
    buffer = bytearray(count)
    entropy.fill(buffer)
    return buffer
