"""The Network of a test network's daemon whose peers are far away: a PartedNetwork that makes bytes take their time.

The delay stands below TLS at the side that accepted: between the kernel's socket and the one that TLS sees, each
direction waits half a round trip, in order, ends too. A dialler's first bytes wait one round trip more, for the SYN and
its answer, which the kernel exchanges at once. So a dial costs its two round trips (TCP, TLS 1.3) and whoever dials,
node or client, needs to know nothing of it. Nothing is lost, and only UNDER_WAY_BYTES_MAX bounds what flows; a process
that is killed takes what was under way to and from it along.

Nothing of this is in TcpNetwork, in node.toml or on the wire: a daemon has it only when it was started with
`--latency FILE`, as `lockbox-testnet up --latency world` starts them, on a loopback address. FILE says where each host
stands, whatever it claims, and is read anew for each peer:
{"places": {host: place}, "elsewhere": place of all other hosts, "round_trip_ms": {place: {place: ms}}}.
"""

from __future__ import annotations

import json
import math
import socket
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from lockbox_node.adapters.parted_network import PartedNetwork
from lockbox_node.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.adapters.tcp import TlsContexts
    from lockbox_node.ports import PeerHandler

UNDER_WAY_BYTES_MAX = 16 << 20  # each way of one connection: 1 Gbit/s over 130 ms
READ_BYTES = 1 << 18
LINGER_S = 1.0  # for a peer to end as well, once everything that we said has come


class DelayedNetwork(PartedNetwork):
    """A PartedNetwork whose accepted connections take the time that `delays` says."""

    def __init__(self, contexts: TlsContexts, host: str, port: int, orders: Path, delays: Path) -> None:
        """ConfigError where no test network can be, or when `delays` is no such file."""
        super().__init__(contexts, host, port, orders)
        self._delays = delays
        round_trip_s(delays, host, host)

    async def _welcome(self, sock: socket.socket, host: str, handler: PeerHandler) -> None:
        try:
            self._add(sock)
            link = _Link(sock, round_trip_s(self._delays, self._host, host))
        except BaseException:
            sock.close()
            raise
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            await super()._welcome(link.near, host, handler)


def round_trip_s(delays: Path, here: str, there: str) -> float:
    """What the file says of two hosts. ConfigError when it says nothing of use."""
    wrong = ConfigError(f"{delays} does not say how far away hosts are", "it is written by lockbox-testnet")
    try:
        said = json.loads(delays.read_text(encoding="utf-8"))
        places, elsewhere = said["places"], said["elsewhere"]
        took_ms = said["round_trip_ms"][places.get(here, elsewhere)][places.get(there, elsewhere)]
        if isinstance(took_ms, int | float) and 0 <= took_ms < math.inf:
            return took_ms / 1000
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise wrong from None
    raise wrong


class _Link:
    """The way between the accepted `far` socket and `near`, which is for TLS. Owns all but `near`."""

    def __init__(self, far: socket.socket, round_trip_s: float) -> None:
        self.near, inner = socket.socketpair()
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for sock in (far, inner):
            sock.setblocking(False)
        self._far = trio.socket.from_stdlib_socket(far)
        self._inner = trio.socket.from_stdlib_socket(inner)
        self._round_trip_s = round_trip_s
        shaken_at = trio.current_time() + 1.5 * round_trip_s
        self._here = _Pipe(self._far, self._inner, round_trip_s / 2, shaken_at)
        self._there = _Pipe(self._inner, self._far, round_trip_s / 2)

    async def run(self) -> None:
        """Carry both ways until both have ended, or ours has and the peer's does not. What was said before we are
        cancelled still goes out, as it would from a kernel.
        """
        try:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._here.run)
                    await self._there.run()
                    scope.deadline = trio.current_time() + self._round_trip_s + LINGER_S
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self._round_trip_s + LINGER_S):
                await self._there.run()
            self._far.close()
            self._inner.close()


class _Pipe:
    """One direction: what comes from `source` goes to `sink` after `delay_s`, and not before `not_before`."""

    def __init__(
        self, source: trio.socket.SocketType, sink: trio.socket.SocketType, delay_s: float, not_before: float = 0.0
    ) -> None:
        self._source, self._sink, self._delay_s, self._not_before = source, sink, delay_s, not_before
        self._under_way: deque[tuple[float, bytes]] = deque()  # (when it comes, bytes); no bytes = the end
        self._under_way_bytes = 0
        self._changed = trio.lowlevel.ParkingLot()
        self._heard_all = self._over = False

    async def run(self) -> None:
        """Carry until the end has come, or nobody takes it. Goes on where it was cut when it is called again."""
        if self._over:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._collect)
            await self._deliver()
            nursery.cancel_scope.cancel()

    async def _collect(self) -> None:
        while not self._heard_all:
            while self._under_way_bytes >= UNDER_WAY_BYTES_MAX:
                await self._changed.park()
            try:
                piece = await self._source.recv(READ_BYTES)
            except OSError:
                piece = b""
            self._heard_all = not piece
            self._under_way.append((max(trio.current_time() + self._delay_s, self._not_before), piece))
            self._under_way_bytes += len(piece)
            self._changed.unpark_all()

    async def _deliver(self) -> None:
        while not self._over:
            while not self._under_way:
                await self._changed.park()
            due, piece = self._under_way[0]
            await trio.sleep_until(due)
            try:
                count = await self._sink.send(piece) if piece else self._end()
            except OSError:
                self._over = True
                return
            self._under_way_bytes -= count
            self._under_way[0] = (due, piece[count:])
            if count == len(piece):
                self._under_way.popleft()
            self._changed.unpark_all()

    def _end(self) -> int:
        self._over = True
        with suppress(OSError):
            self._sink.shutdown(socket.SHUT_WR)
        return 0
