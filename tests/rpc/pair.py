"""Two connections over a stream pair, or one and a peer that speaks by hand, for the tests of this room."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio
import trio.testing

from lockbox_node.core.admission import Downgrade
from lockbox_node.rpc.connection import Connection, ConnectionParams
from lockbox_node.rpc.frames import Frames
from lockbox_node.rpc.hello import Peer
from protocol.certificates import Role
from protocol.messages import (
    GetShards,
    Message,
    Ping,
    Pong,
    PutStripe,
    Refusal,
    Shards,
    Signed,
    Stored,
)
from simulations.streams import MemoryStream, stream_pair

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


SIGNED = Signed(b"x", bytes(64))
PING = Ping(7)
GET = GetShards(b"a" * 32, b"b" * 32, None)


def peer(name: bytes) -> Peer:
    return Peer(name * 32, Role.NODE, "op", "host", Downgrade.NONE, None, b"", 0.0)


@dataclass
class Side:
    """A served side that answers pings, keeps what it should not answer yet, and fails on demand."""

    held: list[tuple[Connection, int, int]] = field(default_factory=list)
    hold: bool = False

    def serve(self, connection: Connection, call: int, number: int, request: Message) -> None:
        if self.hold:
            self.held.append((connection, call, number))
        elif isinstance(request, Ping):
            if request.nonce == 13:
                raise ZeroDivisionError
            connection.reply(call, number, Pong(request.nonce, 1))
        elif isinstance(request, PutStripe):
            connection.reply(call, number, Stored([]))
        elif isinstance(request, GetShards):
            connection.reply(call, number, Shards(SIGNED, [b"s"], 0, [bytes(256 * 1024)] * 4))
        else:
            connection.refuse(call, number, Refusal("NOT_FOUND", "nothing here", "look elsewhere", False, 1500, SIGNED))


@dataclass
class Pair:
    left: Connection
    right: Connection
    left_stream: MemoryStream
    right_stream: MemoryStream
    left_side: Side
    right_side: Side
    nursery: trio.Nursery


@asynccontextmanager
async def pair(params: ConnectionParams | None = None) -> AsyncIterator[Pair]:
    params = params or ConnectionParams()
    one, two = stream_pair(b"L", b"R")
    left_side, right_side = Side(), Side()
    left = Connection(Frames(one), peer(b"R"), left_side.serve, params)
    right = Connection(Frames(two), peer(b"L"), right_side.serve, params)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.run)
        nursery.start_soon(right.run)
        yield Pair(left, right, one, two, left_side, right_side, nursery)
        nursery.cancel_scope.cancel()


@dataclass
class Raw:
    """A peer that speaks by hand."""

    connection: Connection
    stream: MemoryStream
    frames: Frames
    side: Side


@asynccontextmanager
async def raw(params: ConnectionParams | None = None) -> AsyncIterator[Raw]:
    one, two = stream_pair(b"L", b"R")
    side = Side()
    connection = Connection(Frames(one), peer(b"R"), side.serve, params or ConnectionParams())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        yield Raw(connection, two, Frames(two), side)
        nursery.cancel_scope.cancel()


async def ended(connection: Connection) -> None:
    while not connection.closed:
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0.01)


def put(shards: int = 4) -> PutStripe:
    return PutStripe(SIGNED, [b"slot"], 0, [bytes(256 * 1024)] * shards, [])
