"""The local socket: answers, refusals, and that nobody hangs it."""

from __future__ import annotations

import stat
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
import trio
import trio.testing

from lockbox_node import control
from lockbox_node.errors import ConfigError, LockboxError, PeerUnreachable, ShardMissing, UsageError

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


async def test_a_daemon_that_stands_still_is_unreachable_after_a_while(path: Path, autojump_clock: object) -> None:
    async def stand_still(_request: dict[str, Any]) -> object:
        return await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, path, {"look": stand_still, "echo": echo})
        assert await control.ask_soon(path, "echo", a=1) == {"a": 1}
        with pytest.raises(PeerUnreachable, match="said nothing for 30 s"):
            await control.ask_soon(path, "look")
        nursery.cancel_scope.cancel()


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


async def test_an_asker_that_says_nothing_is_let_go_and_the_daemon_goes_on(path: Path, autojump_clock: object) -> None:
    async with served(path), await trio.open_unix_socket(str(path)) as stream:
        assert await stream.receive_some() == b""
        assert await control.ask(path, "echo") == {}


async def test_an_asker_that_does_not_read_is_let_go(path: Path, autojump_clock: object) -> None:
    async def flood(_request: dict[str, Any]) -> object:
        return bytes(8_000_000)

    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, path, {"flood": flood, "echo": echo})
        streams = [await trio.open_unix_socket(str(path)) for _ in range(control.CONNECTIONS_MAX)]
        for stream in streams:
            body = msgpack.packb({"verb": "flood"})
            await stream.send_all(len(body).to_bytes(4, "big") + body)
        await trio.sleep(control.REQUEST_TIMEOUT_S + control.ANSWER_TIMEOUT_S + 1)
        assert await control.ask(path, "echo") == {}
        for stream in streams:
            await stream.aclose()
        nursery.cancel_scope.cancel()


async def test_askers_above_the_limit_are_turned_away(path: Path) -> None:
    async with served(path):
        streams = [await trio.open_unix_socket(str(path)) for _ in range(control.CONNECTIONS_MAX)]
        with pytest.raises(PeerUnreachable):
            await control.ask(path, "echo")
        for stream in streams:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert await control.ask(path, "echo") == {}


@pytest.mark.parametrize("error", [UsageError("no", "so"), ConfigError("no", "so"), ShardMissing("no", "so")])
async def test_a_refusal_keeps_its_exit_code_and_its_code(error: LockboxError, path: Path) -> None:
    async def refused(_request: dict[str, Any]) -> object:
        raise error

    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, path, {"refused": refused})
        with pytest.raises(LockboxError, match="no") as caught:
            await control.ask(path, "refused")
        nursery.cancel_scope.cancel()
    assert (caught.value.exit_code, caught.value.code, caught.value.hint) == (error.exit_code, error.code, "so")


@pytest.mark.parametrize("defect", [RuntimeError("secret words"), object()], ids=["raises", "answers nonsense"])
async def test_a_defect_in_a_verb_is_told_without_its_words_and_ends_nothing(defect: object, path: Path) -> None:
    async def broken(_request: dict[str, Any]) -> object:
        if isinstance(defect, Exception):
            raise defect
        return defect

    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, path, {"broken": broken})
        for _ in range(2):
            with pytest.raises(LockboxError, match="broken failed in the daemon") as caught:
                await control.ask(path, "broken")
            assert "secret" not in str(caught.value)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("verb", [[1], {"a": 1}, 7, None], ids=repr)
async def test_a_verb_that_is_no_word_is_refused(verb: object, path: Path) -> None:
    async with served(path):
        with pytest.raises(UsageError, match="does not know"):
            await control.ask(path, verb)  # type: ignore[arg-type]


def test_a_refusal_in_words_of_another_version_is_told_as_such() -> None:
    assert control._error_of({"code": "NEW"}).message.startswith("the daemon refused")


async def test_a_directory_that_cannot_be_listened_in_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot listen"):
        await control.serve(tmp_path / "none" / "control.sock", {})
    with pytest.raises(PeerUnreachable):
        await control.ask(tmp_path / ("x" * 120) / "control.sock", "echo")
