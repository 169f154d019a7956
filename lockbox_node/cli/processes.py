"""The daemons of a local test network as child processes: spawn, wait until ready, signal, end.

Readiness is sd_notify's own protocol: every daemon gets a datagram socket of its own in NOTIFY_SOCKET and sends
READY=1 when it serves. A daemon that ends before it is ready is told from one that is slow by its exit. Children die
with us, however we die (`--die-with`): the kernel ties that to the thread that spawned them, so they are spawned on the
main thread, by subprocess, and waited for by pidfd (pidfd_open(2)).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from lockbox_node.errors import LockboxError

if TYPE_CHECKING:
    from collections.abc import Iterator

READY_TIMEOUT_S = 60.0
STOP_GRACE_S = 10.0
STOPPED_TIMEOUT_S = 5.0  # for SIGSTOP to reach every thread
STOPPED_LOOK_S = 0.002
LAST_WORDS_BYTES = 4096


@dataclass(slots=True)
class Daemon:
    """One `lockbox-node run`, with its last process."""

    name: str
    config: Path
    log: Path
    parting: Path
    latency: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    paused: bool = False
    ready: bool = False
    _starting: bool = field(default=False, repr=False)

    @property
    def pid(self) -> int | None:
        """The process id while it lives; reaps it when it has ended."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    @property
    def state(self) -> str:
        """down, starting, up or stopped (SIGSTOP); a process that ended by itself is down."""
        if self.pid is None:
            return "down"
        if self.paused:
            return "stopped"
        return "up" if self.ready else "starting"

    async def start(self) -> None:
        """Spawn the daemon and return when it says READY=1.

        LockboxError with its last words when it ends instead, or runs already; whatever goes wrong, a cut too, leaves
        no process behind.
        """
        if self._starting or self.pid is not None:
            raise LockboxError(f"{self.name} runs already", "use restart")
        self._starting = True
        try:
            with _notify_socket() as notify:
                self._spawn("@" + notify.getsockname()[1:].decode())
                await self._until_ready(notify)
        except BaseException:
            self.signal(signal.SIGKILL)
            raise
        finally:
            self._starting = False
        self.ready = True

    def _spawn(self, notify: str) -> None:
        # -P: what is installed runs, not what lies in the working directory.
        command = [sys.executable, "-P", "-m", "lockbox_node.cli.node", "run", "--config", str(self.config)]
        command += ["--die-with", str(os.getpid()), "--parting", str(self.parting)]
        if self.latency is not None:
            command += ["--latency", str(self.latency)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": notify},
                start_new_session=True,  # Ctrl-C at the terminal is for us; we end them in order
            )
        self.paused = self.ready = False

    async def _until_ready(self, notify: trio.socket.SocketType) -> None:
        with trio.move_on_after(READY_TIMEOUT_S) as scope:
            async with trio.open_nursery() as first:
                first.start_soon(self._gone, first.cancel_scope)
                while b"READY=1" not in (await notify.recv(4096)).splitlines():
                    pass
                first.cancel_scope.cancel()
        if scope.cancelled_caught:
            raise LockboxError(f"{self.name} was not ready within {READY_TIMEOUT_S:.0f} s", f"its log is {self.log}")
        if self.pid is None:
            assert self.process is not None
            code = self.process.returncode
            raise LockboxError(
                f"{self.name} ended with exit code {code} before it was ready: {self._last_words()}",
                f"its log is {self.log}",
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to a living process; nothing when it is gone already."""
        if self.process is not None and self.pid is not None:
            self.process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        self.signal(signal.SIGKILL)
        await self._gone()

    async def terminate(self) -> int:
        """SIGTERM, SIGKILL after the grace; the exit code (0 when it never ran)."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        with trio.move_on_after(STOP_GRACE_S):
            await self._gone()
        await self.kill()
        return 0 if self.process is None else self.process.returncode

    async def pause(self) -> None:
        """SIGSTOP, and wait until it stands still: it holds its connections and says nothing."""
        if self.pid is None:
            raise LockboxError(f"{self.name} is down", "start it with: lockbox-testnet restart")
        self.signal(signal.SIGSTOP)
        self.paused = True
        with trio.move_on_after(STOPPED_TIMEOUT_S):
            await trio.lowlevel.checkpoint()
            while not self._stands_still():  # noqa: ASYNC110  # the kernel tells nobody
                await trio.sleep(STOPPED_LOOK_S)

    def _stands_still(self) -> bool:
        """Whether it is stopped, or has ended; until we reap it, its /proc entry stays."""
        pid = self.pid
        return pid is None or Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"T"

    def resume(self) -> None:
        """SIGCONT."""
        if self.pid is None:
            raise LockboxError(f"{self.name} is down", "start it with: lockbox-testnet restart")
        self.signal(signal.SIGCONT)
        self.paused = False

    async def _gone(self, then: trio.CancelScope | None = None) -> None:
        """Return, and cancel `then`, when the process has ended."""
        if self.pid is not None:
            descriptor = os.pidfd_open(self.pid)
            try:
                await trio.lowlevel.wait_readable(descriptor)
            finally:
                os.close(descriptor)
            assert self.pid is None, "a readable pidfd says that the process has ended"
        if then is not None:
            then.cancel()

    def _last_words(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - LAST_WORDS_BYTES))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


@contextmanager
def _notify_socket() -> Iterator[trio.socket.SocketType]:
    """An abstract address of the kernel's choice: it leaves no file behind (unix(7), autobind)."""
    plain = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    plain.bind("")
    with trio.socket.from_stdlib_socket(plain) as notify:
        yield notify
