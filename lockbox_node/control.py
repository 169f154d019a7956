"""The local socket of a running daemon: one question, one answer, then the connection ends.

A request is a u32 length and a MessagePack map {"verb": ..., arguments}; the answer is framed alike and is either
{"ok": ...} or {"error": {...}} in the shape of CONTRACT's error object. The socket lies in the data_dir with mode 0600:
who may open it is the operator. Loosely typed on purpose: it never leaves the machine.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgpack
import structlog
import trio

from lockbox_node.errors import LockboxError, PeerUnreachable, UsageError

REQUEST_BYTES_MAX = 64 * 1024
ANSWER_BYTES_MAX = 64 * 1024 * 1024
REQUEST_TIMEOUT_S = 10.0
CONNECTIONS_MAX = 16
SOCKET_PATH_MAX = 100  # sun_path holds 108 bytes

Verb = Callable[[dict[str, Any]], Awaitable[object]]

log = structlog.get_logger()


async def serve(
    path: Path, verbs: Mapping[str, Verb], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer `verbs` on the Unix socket `path` until cancelled; the file is removed at the end."""
    listener = _listen(path)
    limiter = trio.CapacityLimiter(CONNECTIONS_MAX)

    async def answer_one(stream: trio.SocketStream) -> None:
        async with limiter, stream:
            with trio.move_on_after(REQUEST_TIMEOUT_S):
                try:
                    request = await _receive(stream, REQUEST_BYTES_MAX)
                except (LockboxError, trio.BrokenResourceError):
                    return
            try:
                await _send(stream, await _answer(verbs, request))
            except trio.BrokenResourceError:
                log.info("control.asker_left")

    try:
        async with trio.open_nursery() as connections:
            await connections.start(trio.serve_listeners, answer_one, [trio.SocketListener(listener)])
            task_status.started()
    finally:
        path.unlink(missing_ok=True)


async def ask(path: Path, verb: str, **arguments: object) -> Any:
    """Ask the daemon behind `path`. PeerUnreachable when none runs; its refusal as LockboxError."""
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        return await _ask_in_directory(path, verb, arguments)
    try:
        stream = await trio.open_unix_socket(str(path))
    except (OSError, RuntimeError):
        raise PeerUnreachable(
            f"no daemon answers on {path}", "start it with: lockbox-node run --config node.toml"
        ) from None
    return await _converse(stream, verb, arguments)


async def _ask_in_directory(path: Path, verb: str, arguments: dict[str, object]) -> Any:
    """Reach a socket whose path is too long for sun_path, through the directory's descriptor."""
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        raise PeerUnreachable(f"no daemon answers on {path}", "is that the right directory?") from None
    try:
        return await ask(Path(f"/proc/self/fd/{directory}/{path.name}"), verb, **arguments)
    finally:
        os.close(directory)


async def _converse(stream: trio.SocketStream, verb: str, arguments: dict[str, object]) -> Any:
    async with stream:
        try:
            await _send(stream, {"verb": verb, **arguments})
            answer = await _receive(stream, ANSWER_BYTES_MAX)
        except trio.BrokenResourceError:
            raise PeerUnreachable("the daemon ended while it was asked", "look at its log") from None
    if "error" in answer:
        error = answer["error"]
        raise LockboxError(error["message"], error["hint"])
    return answer["ok"]


async def _answer(verbs: Mapping[str, Verb], request: dict[str, Any]) -> dict[str, object]:
    name = request.pop("verb", None)
    try:
        if name not in verbs:
            raise UsageError(f"this daemon does not know {name!r}", f"it knows {', '.join(sorted(verbs))}")
        return {"ok": await verbs[name](request)}
    except LockboxError as error:
        return _refused(error)
    except Exception:  # the guard of one asker: a defect in a verb must not end the daemon
        log.exception("control.failed")
        return _refused(LockboxError(f"{name} failed in the daemon", "look at its log; this is a defect"))


def _refused(error: LockboxError) -> dict[str, object]:
    return {"error": {"code": str(error.code), "message": error.message, "hint": error.hint}}


def _listen(path: Path) -> trio.socket.SocketType:
    path.unlink(missing_ok=True)
    plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    mask = os.umask(0o177)
    try:
        plain.bind(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.umask(mask)
        os.close(directory)
    plain.listen(CONNECTIONS_MAX)
    return trio.socket.from_stdlib_socket(plain)


async def _send(stream: trio.SocketStream, answer: dict[str, object]) -> None:
    body = msgpack.packb(answer)
    await stream.send_all(len(body).to_bytes(4, "big") + body)


async def _receive(stream: trio.SocketStream, limit: int) -> dict[str, Any]:
    held = bytearray()
    while len(held) < 4 or len(held) < 4 + int.from_bytes(held[:4], "big"):
        if len(held) >= 4 and int.from_bytes(held[:4], "big") > limit:
            raise PeerUnreachable("a message over the limit on the control socket")
        some = await stream.receive_some(65536)
        if not some:
            raise PeerUnreachable("the other side left in the middle of a message")
        held += some
    try:
        answer = msgpack.unpackb(bytes(held[4:]))
    except (ValueError, msgpack.UnpackException) as error:
        raise PeerUnreachable("not a message of the control socket") from error
    if not isinstance(answer, dict):
        raise PeerUnreachable("not a message of the control socket")
    return answer
