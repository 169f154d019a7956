"""Take back what an unfinished lock has put: bounded, and never at the cost of somebody else's asset.

Data stripes stand at addresses that only this lock knows: whatever was touched is deleted. The root's address belongs
to an index that another machine with the same words may use at the same time, and a tombstone buries everything
there: so it is sent only where our part was acknowledged, and nowhere once a stranger's descriptor was seen. What is
left then is less than an asset and ends with its lease.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lockbox_node.client.replies import Replies, again_after_s
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
    deletes = _Deletes(vault)
    for put in data:
        deletes.ask(_tombstone(vault, put), put.touched)
    if root is not None:
        # Half of the time for what is still to come, the other half for the deletes.
        await root.drain((trio.current_time() + deadline) / 2)
        if not (root.siblings or root.taken):
            deletes.ask(_tombstone(vault, root), root.acknowledged)
    await deletes.finish(deadline)


def _tombstone(vault: Vault, put: StripePut) -> Signed:
    stripe = put.stripe
    now_unix_s = int(vault.now_unix_s())
    record = Tombstone(stripe.key.public_key, stripe.version, now_unix_s, stripe.lease_until_unix_s, REASON)
    return sign(record, stripe.key)


class _Deletes:
    """Tombstones under way; whoever asks us to come back later (BUSY, RATE_LIMITED) is asked again then."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._replies: Replies[tuple[bytes, Signed]] = Replies()
        self._again: list[tuple[float, bytes, Signed]] = []

    def ask(self, tombstone: Signed, nodes: Iterable[bytes]) -> None:
        """Send it to each of `nodes`."""
        for node in nodes:
            member = self._vault.members.get(node)
            if member is not None:
                self._vault.post(member, Delete(tombstone), self._replies.answer_to((node, tombstone)))

    async def finish(self, deadline: float) -> None:
        """Return when all have answered, or at `deadline` (trio time)."""
        while (self._replies.pending or self._again) and trio.current_time() < deadline:
            moments = [at for at, _, _ in self._again]
            for (node, tombstone), outcome in await self._replies.take(min([deadline, *moments])):
                again_s = again_after_s(outcome)
                if again_s is not None:
                    self._again.append((trio.current_time() + again_s, node, tombstone))
            now = trio.current_time()
            due = [entry for entry in self._again if entry[0] <= now]
            self._again = [entry for entry in self._again if entry[0] > now]
            for _, node, tombstone in due:
                self.ask(tombstone, [node])
