"""Whether a node that came to us can be reached: our own dial of what it advertises, and TLS; then it is closed.

Nothing is said over such a stream and nobody adopts it, so that it crosses no connection that is in use. Bounds: one
dial-back of a node at a time, `in_flight_max` of all; `rate` addresses a second with `burst`, which leaves half of the
pool's own rate to the pool, and within that rate too; a node that was not found waits `pause_s` for the next one. So a
flood of newcomers makes us dial no more than that, whomever they name. Source: DESIGN, Addresses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from lockbox_node.core.admission import Bucket
from lockbox_node.errors import LockboxError, PeerUnreachable
from lockbox_node.rpc.dials import Backoffs, Contact, again
from lockbox_node.rpc.refusals import busy

if TYPE_CHECKING:
    from lockbox_node.ports import Network
    from protocol.ids import NodeId

CLOSE_TIMEOUT_S = 1.0
STOPPED = "the pool has stopped"
HINT = "set node.advertise to the HOST:PORT by which others reach this node, or mend the way to it"

Proves = Callable[[bytes], bool]
"""Whether the leaf that TLS proved is that of the node."""
Verdict = Callable[[LockboxError | None], None]
"""Called once: None when the node was reached; PeerUnreachable when it was not, BUSY when nobody tried."""


@dataclass(frozen=True, slots=True)
class DialBackParams:
    """Limits of dial-backs."""

    in_flight_max: int = 64
    rate: float = 32.0  # addresses a second
    burst: float = 128.0
    timeout_s: float = 3.0  # of all addresses of a node: less than a newcomer waits for our answer
    pause_s: float = 2.0  # after a failure: less than the time between two attempts to join
    paused_max: int = 4096  # nodes whose failures are remembered
    waiting_max: int = 64  # who wait for one dial-back


DEFAULTS = DialBackParams()


@dataclass(slots=True)
class _DialBack:
    contact: Contact
    proves: Proves
    waiting: list[Verdict]


class DialBacks:
    """Part of the pool: `turn` waits for a token of its bucket. `counts`: reached, unreachable, busy."""

    def __init__(
        self, network: Network, turn: Callable[[], Awaitable[None]], params: DialBackParams = DEFAULTS
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._network, self._turn, self._params = network, turn, params
        self._under_way: dict[NodeId, _DialBack] = {}
        self._failures = Backoffs(params.pause_s, params.pause_s, params.paused_max)
        self._bucket = Bucket(params.rate, params.burst, 0.0)
        self._to_dial, self._wanted = trio.open_memory_channel[_DialBack](params.in_flight_max)
        self._stopped = False

    async def run(self) -> None:
        """Own the dial-backs, for ever."""
        try:
            async with trio.open_nursery() as nursery:
                async for dial in self._wanted:
                    nursery.start_soon(self._dial, dial)
        finally:
            self._stopped = True
            for dial in list(self._under_way.values()):
                self._end(dial, PeerUnreachable(STOPPED))

    def idle(self, node: NodeId) -> bool:
        """Whether no dial-back of the node is under way or failed a moment ago."""
        return node not in self._under_way and self._failures.error(node, trio.current_time()) is None

    def ask(self, contact: Contact, proves: Proves, verdict: Verdict) -> None:
        """Call `verdict`: now, or when the dial-back of this node is over."""
        now, standing = trio.current_time(), self._under_way.get(contact.node)
        if self._stopped:
            verdict(PeerUnreachable(STOPPED))
        elif standing is not None:
            if standing.contact == contact and len(standing.waiting) < self._params.waiting_max:
                standing.waiting.append(verdict)
            else:
                verdict(self._busy("this node is being dialled already"))
        elif (error := self._failures.error(contact.node, now)) is not None:
            verdict(error)
        elif len(self._under_way) >= self._params.in_flight_max or self._bucket.take(now, len(contact.addresses)):
            verdict(self._busy("too many newcomers are being dialled"))
        else:
            dial = self._under_way[contact.node] = _DialBack(contact, proves, [verdict])
            self._to_dial.send_nowait(dial)

    def _busy(self, why: str) -> LockboxError:
        self.counts["busy"] += 1
        return busy(why)

    async def _dial(self, dial: _DialBack) -> None:
        share_s = self._params.timeout_s / len(dial.contact.addresses)
        for address in dial.contact.addresses:
            await self._turn()
            with trio.move_on_after(share_s):
                if await self._meets(address, dial.proves):
                    self.counts["reached"] += 1
                    self._end(dial, None)
                    return
        self.counts["unreachable"] += 1
        error = PeerUnreachable(f"nobody answers at {', '.join(dial.contact.addresses)} with this node's key", HINT)
        self._failures.failed(dial.contact.node, error, trio.current_time())
        self._end(dial, error)

    async def _meets(self, address: str, proves: Proves) -> bool:
        host, _, port = address.rpartition(":")
        try:
            stream = await self._network.dial(host.strip("[]"), int(port))
        except LockboxError:
            return False
        try:
            return proves(stream.peer_leaf)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT_S):
                await stream.aclose()

    def _end(self, dial: _DialBack, outcome: LockboxError | None) -> None:
        self._under_way.pop(dial.contact.node, None)
        for verdict in dial.waiting:
            verdict(None if outcome is None else again(outcome))
