"""Take back what an unfinished lock has put: bounded, and never at the cost of somebody else's asset.

Data stripes stand at addresses that only this lock knows: whatever was touched is deleted. The root's address belongs
to an index that another machine with the same words may use at the same time, and a tombstone buries everything
there: so it is sent only where our part was acknowledged, and nowhere once a stranger's descriptor was seen. What is
left then is less than an asset and ends with its lease.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lockbox_node.client.replies import Replies
from protocol.messages import Delete
from protocol.records import Tombstone, sign

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lockbox_node.client.putting import StripePut
    from lockbox_node.client.vault import Vault
    from protocol.messages import Signed

REASON = "lock undone"


async def undo(vault: Vault, data: Sequence[StripePut], root: StripePut | None, deadline: float) -> None:
    """Delete at every holder; returns when all have answered or at `deadline` (trio time). The caller shields it."""
    replies: Replies[bytes] = Replies()
    for put in data:
        _delete(vault, _tombstone(vault, put), put.touched, replies)
    if root is not None:
        # Half of the time for what is still to come, the other half for the deletes.
        await root.drain((trio.current_time() + deadline) / 2)
        if not (root.siblings or root.taken):
            _delete(vault, _tombstone(vault, root), root.acknowledged, replies)
    while replies.pending and await replies.take(deadline):
        pass


def _tombstone(vault: Vault, put: StripePut) -> Signed:
    stripe = put.stripe
    return sign(Tombstone(stripe.key.public_key, stripe.version, int(vault.now_unix_s()), REASON), stripe.key)


def _delete(vault: Vault, tombstone: Signed, nodes: Iterable[bytes], replies: Replies[bytes]) -> None:
    for node in nodes:
        member = vault.members.get(node)
        if member is not None:
            vault.post(member, Delete(tombstone), replies.answer_to(node))
