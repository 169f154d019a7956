"""How much time a ward that showed nothing is given the next time: it is pinged, and a slow way is no loss.

Source: DESIGN, Verify / audit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lockbox_node.errors import LockboxError
from protocol.errors import RemoteProtocolError
from protocol.messages import Ping

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.ports import Entropy
    from lockbox_node.rpc.pool import Contact
    from lockbox_node.services.challenging import Connections
    from protocol.ids import NodeId

PING_S = 5.0  # for who showed nothing to answer a ping
ROUND_TRIP_MAX_S = 5.0  # longer ones give no more time
PATIENCE_S = 1.0  # of round trip, allowed more each time that a ward was silent
SLOW_MAX = 4096  # wards whose slowness is remembered


class Patience:
    """Wards that were silent, and the round trip that each is allowed next."""

    def __init__(self, pool: Connections, contact: Callable[[NodeId], Contact | None], entropy: Entropy) -> None:
        self._pool, self._contact, self._entropy = pool, contact, entropy
        self._slow: dict[NodeId, float] = {}

    def round_trip_s(self, node: NodeId) -> float:
        """What it is allowed; 0 of whom nothing is known."""
        return self._slow.get(node, 0.0)

    def forget(self, node: NodeId) -> None:
        """It showed what it was asked for."""
        self._slow.pop(node, None)

    async def answers(self, node: NodeId) -> bool:
        """Whether a node that showed nothing answers a ping; how long that takes gives it time the next time."""
        contact = self._contact(node)
        if contact is None:
            return False
        self._entropy.fill(drawn := bytearray(8))
        with trio.move_on_after(PING_S):
            try:
                connection = await self._pool.connection(contact)
                began = trio.current_time()
                await connection.request(Ping(int.from_bytes(drawn, "big") >> 1))
            except (LockboxError, RemoteProtocolError):
                return False
            round_trip_s = trio.current_time() - began
            while len(self._slow) >= SLOW_MAX:
                del self._slow[next(iter(self._slow))]
            allowed_s = max(round_trip_s, self._slow.get(node, 0.0)) + PATIENCE_S
            self._slow[node] = min(ROUND_TRIP_MAX_S, allowed_s)
            return True
        return False
