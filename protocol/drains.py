"""What a node that was drained can show: that nothing which others rely on is left on it.

The node signs it when its last part had been shown by another holder and dropped here. It says what the node did, not
what the network looks like later. SPEC.md, Drain receipts.
"""

from __future__ import annotations

from protocol.messages import U63, Chain, Id32, Message


class DrainReceipt(Message, frozen=True):
    """No part is left at `node`. Signed by the operational key of `chain` (leaf, then identity)."""

    node: Id32
    began_unix_s: U63
    ended_unix_s: U63
    parts: U63  # that other holders showed before they were dropped here
    shard_bytes: U63  # of their shards
    chain: Chain
