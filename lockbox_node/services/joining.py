"""The way into the network: all bootstrap peers are tried at once, whoever answers is enough.

Who turns us away says why, which is logged once for each reason; who is silent is tried again by the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from lockbox_node.errors import LockboxError, PeerUnreachable
from protocol.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from lockbox_node.rpc.connection import Connection
    from lockbox_node.rpc.pool import Pool

JOIN_TIMEOUT_S = 5.0

log = structlog.get_logger()


class Joining:
    """Asks the bootstrap peers; `met` is told of each connection, and may raise what its peer does wrong."""

    def __init__(
        self, pool: Pool, bootstrap: Sequence[tuple[str, int]], met: Callable[[Connection], Awaitable[None]]
    ) -> None:
        self._pool = pool
        self._bootstrap = bootstrap
        self._met = met
        self._refusals: set[str] = set()  # why bootstrap peers turned us away, said once each

    @property
    def alone(self) -> bool:
        """Whether there is nobody to ask: the first node of a network."""
        return not self._bootstrap

    async def once(self) -> None:
        """Ask all of them; over when each has answered, refused or been silent for JOIN_TIMEOUT_S."""
        async with trio.open_nursery() as nursery:
            for host, port in self._bootstrap:
                nursery.start_soon(self._through, host, port)

    async def _through(self, host: str, port: int) -> None:
        with trio.move_on_after(JOIN_TIMEOUT_S):
            try:
                await self._met(await self._pool.connect_address(host, port))
            except PeerUnreachable:
                log.debug("join.unreachable")
            except (LockboxError, RemoteProtocolError) as error:
                if error.code.value not in self._refusals:
                    self._refusals.add(error.code.value)
                    log.warning("join.refused", reason=error.code.value)
