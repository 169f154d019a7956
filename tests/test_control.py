"""The local socket: answers, refusals, and that nobody hangs it."""

from __future__ import annotations

import stat
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
import trio

from lockbox_node import control
from lockbox_node.errors import LockboxError, PeerUnreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


async def echo(request: dict[str, Any]) -> object:
    return request


async def refuse(_request: dict[str, Any]) -> object:
    raise LockboxError("no", "ask later")


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[Path]:
    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, path, {"echo": echo, "refuse": refuse})
        yield path
        nursery.cancel_scope.cancel()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


async def test_a_verb_gets_its_arguments_and_answers(path: Path) -> None:
    async with served(path):
        assert await control.ask(path, "echo", a=1, b=["x"]) == {"a": 1, "b": ["x"]}


async def test_only_the_owner_may_open_it_and_it_goes_with_the_daemon(path: Path) -> None:
    async with served(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_a_refusal_carries_its_words(path: Path) -> None:
    async with served(path):
        with pytest.raises(LockboxError, match="no") as caught:
            await control.ask(path, "refuse")
    assert caught.value.hint == "ask later"


async def test_an_unknown_verb_is_told_the_known_ones(path: Path) -> None:
    async with served(path):
        with pytest.raises(LockboxError, match="sing") as caught:
            await control.ask(path, "sing")
    assert "echo" in caught.value.hint


async def test_nobody_there_is_unreachable(path: Path) -> None:
    with pytest.raises(PeerUnreachable, match="no daemon answers"):
        await control.ask(path, "echo")


async def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 60) / ("e" * 60)
    directory.mkdir(parents=True)
    async with served(directory / "control.sock") as path:
        assert await control.ask(path, "echo", a=1) == {"a": 1}


@pytest.mark.parametrize(
    "sent",
    [b"", b"\0\0", b"\0\0\0\x02\x93", b"\xff\xff\xff\xff", b"\0\0\0\x01\xc1", b"\0\0\0\x01\x07"],
    ids=["nothing", "half a length", "half a body", "4 GiB", "not MessagePack", "no map"],
)
async def test_garbage_ends_that_connection_only(sent: bytes, path: Path) -> None:
    async with served(path):
        async with await trio.open_unix_socket(str(path)) as stream:
            await stream.send_all(sent)
            await stream.send_eof()
            assert await stream.receive_some() == b""
        assert await control.ask(path, "echo") == {}


async def test_a_left_over_socket_file_is_replaced(path: Path) -> None:
    path.write_bytes(b"")
    async with served(path):
        assert await control.ask(path, "echo") == {}


async def test_an_answer_that_is_no_map_is_unreachable(path: Path) -> None:
    async def odd(stream: trio.SocketStream) -> None:
        body = msgpack.packb([1])
        async with stream:
            await stream.send_all(len(body).to_bytes(4, "big") + body)
            await stream.receive_some()

    listener = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await listener.bind(str(path))
    listener.listen(1)
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, odd, [trio.SocketListener(listener)])
        with pytest.raises(PeerUnreachable, match="not a message"):
            await control.ask(path, "echo")
        nursery.cancel_scope.cancel()
