"""The local socket of a running daemon: one question, one answer, then the connection ends.

A request is a u32 length and a MessagePack map {"verb": ..., arguments}; the answer is framed alike and is either
{"ok": ...} or {"error": {...}} in the shape of CONTRACT's error object, with the exit code. The socket lies in the
data_dir with mode 0600: who may open it is the operator. Askers are bounded in number and in time: one that says
nothing, or does not read, is let go. Loosely typed on purpose: it never leaves the machine.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgpack
import structlog
import trio

from lockbox_node.errors import ConfigError, ExitCode, LockboxError, PeerUnreachable, UsageError
from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from pathlib import Path

REQUEST_BYTES_MAX = 64 * 1024
ANSWER_BYTES_MAX = 64 * 1024 * 1024
REQUEST_TIMEOUT_S = 10.0  # to say what is asked
ANSWER_TIMEOUT_S = 10.0  # to take the answer
SOON_S = 30.0  # for a verb that only looks
CONNECTIONS_MAX = 32
SOCKET_PATH_MAX = 100  # sun_path holds 108 bytes

Verb = Callable[[dict[str, Any]], Awaitable[object]]

log = structlog.get_logger()


async def serve(
    path: Path, verbs: Mapping[str, Verb], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer `verbs` on the Unix socket `path` until cancelled; the file is removed at the end. ConfigError."""
    listener = _listen(path)
    try:
        async with trio.open_nursery() as connections:
            answerer = _Answerer(verbs)
            await connections.start(trio.serve_listeners, answerer.answer_one, [trio.SocketListener(listener)])
            task_status.started()
    finally:
        _remove(path)


class _Answerer:
    """Serves the askers of one socket."""

    def __init__(self, verbs: Mapping[str, Verb]) -> None:
        self._verbs = verbs
        self._open = 0

    async def answer_one(self, stream: trio.SocketStream) -> None:
        """One question, one answer. The guard of one asker: nothing of it reaches the daemon."""
        async with stream:
            if self._open >= CONNECTIONS_MAX:
                return
            self._open += 1
            try:
                await self._converse(stream)
            except (LockboxError, trio.BrokenResourceError):
                log.info("control.asker_left")
            finally:
                self._open -= 1

    async def _converse(self, stream: trio.SocketStream) -> None:
        request: dict[str, Any] | None = None
        with trio.move_on_after(REQUEST_TIMEOUT_S):
            request = await _receive(stream, REQUEST_BYTES_MAX)
        if request is None:
            return
        answer = await self._answer(request)
        with trio.move_on_after(ANSWER_TIMEOUT_S):
            await stream.send_all(answer)

    async def _answer(self, request: dict[str, Any]) -> bytes:
        """The framed answer; whatever a verb raises or returns becomes one."""
        name = request.pop("verb", None)
        try:
            verb = self._verbs.get(name) if isinstance(name, str) else None
            if verb is None:
                raise UsageError(f"this daemon does not know {name!r}", f"it knows {', '.join(sorted(self._verbs))}")
            return _framed({"ok": await verb(request)})
        except LockboxError as error:
            return _framed(_refused(error))
        except Exception:  # a defect in a verb must not end the daemon
            log.exception("control.failed")
            return _framed(_refused(LockboxError(f"{name} failed in the daemon", "look at its log; this is a defect")))


async def ask(path: Path, verb: str, **arguments: object) -> dict[str, Any]:
    """Ask the daemon behind `path`. PeerUnreachable when none runs; its refusal with its exit code."""
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        return await _ask_in_directory(path, verb, arguments)
    return await _ask_at(str(path), path, verb, arguments)


async def ask_soon(path: Path, verb: str, **arguments: object) -> dict[str, Any]:
    """As `ask`, of a verb that takes no time; PeerUnreachable too when the daemon stands still."""
    with trio.move_on_after(SOON_S):
        return await ask(path, verb, **arguments)
    raise PeerUnreachable(
        f"the daemon on {path} said nothing for {SOON_S:.0f} s", "look at its log, and start it again"
    )


async def _ask_in_directory(path: Path, verb: str, arguments: dict[str, object]) -> dict[str, Any]:
    """Reach a socket whose path is too long for sun_path, through the directory's descriptor."""
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise _nobody_at(path) from None
    try:
        return await _ask_at(f"/proc/self/fd/{directory}/{path.name}", path, verb, arguments)
    finally:
        os.close(directory)


async def _ask_at(address: str, path: Path, verb: str, arguments: dict[str, object]) -> dict[str, Any]:
    try:
        stream = await trio.open_unix_socket(address)
    except (OSError, RuntimeError):
        raise _nobody_at(path) from None
    async with stream:
        try:
            await stream.send_all(_framed({"verb": verb, **arguments}))
            answer = await _receive(stream, ANSWER_BYTES_MAX)
        except trio.BrokenResourceError:
            raise PeerUnreachable("the daemon ended while it was asked", "look at its log") from None
    if "error" in answer:
        raise _error_of(answer["error"])
    said: dict[str, Any] = answer["ok"]
    return said


def _nobody_at(path: Path) -> PeerUnreachable:
    return PeerUnreachable(
        f"no daemon answers on {path}", "start it with lockbox-node run, or give the --config of one that runs"
    )


def _refused(error: LockboxError) -> dict[str, object]:
    fields = {"code": error.code.value, "message": error.message, "hint": error.hint, "exit": int(error.exit_code)}
    return {"error": fields}


def _error_of(fields: dict[str, Any]) -> LockboxError:
    """The error that the daemon told, of a kind with the same exit code."""
    try:
        code, exit_code = ErrorCode(fields["code"]), ExitCode(fields["exit"])
        kind = {ExitCode.USAGE: UsageError, ExitCode.CONFIG: ConfigError}.get(exit_code, LockboxError)
        return kind(str(fields["message"]), str(fields["hint"]), code)
    except (KeyError, TypeError, ValueError):
        return LockboxError("the daemon refused in words of another version", "use the program that it runs")


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _listen(path: Path) -> trio.socket.SocketType:
    plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        mask = os.umask(0o177)
        try:
            plain.bind(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.umask(mask)
            os.close(directory)
        plain.listen(CONNECTIONS_MAX)
    except OSError as error:
        plain.close()
        raise ConfigError(f"cannot listen on {path}: {error.strerror}", "check the directory and its owner") from None
    return trio.socket.from_stdlib_socket(plain)


def _framed(message: dict[str, object]) -> bytes:
    body: bytes = msgpack.packb(message)
    return len(body).to_bytes(4, "big") + body


async def _receive(stream: trio.SocketStream, limit: int) -> dict[str, Any]:
    held = bytearray()
    while len(held) < 4 or len(held) < 4 + int.from_bytes(held[:4], "big"):
        if len(held) >= 4 and int.from_bytes(held[:4], "big") > limit:
            raise PeerUnreachable("a message over the limit on the control socket")
        some = await stream.receive_some(65536)
        if not some:
            raise PeerUnreachable("the other side left in the middle of a message", "look at the daemon's log")
        held += some
    try:
        message = msgpack.unpackb(bytes(held[4:]))
    except (ValueError, msgpack.UnpackException) as error:
        raise PeerUnreachable("not a message of the control socket") from error
    if not isinstance(message, dict):
        raise PeerUnreachable("not a message of the control socket")
    return message
