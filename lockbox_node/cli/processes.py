"""The daemons of a local test network as child processes: spawn, wait until ready, signal, end.

Readiness is sd_notify's own protocol: every daemon gets a datagram socket of its own in NOTIFY_SOCKET and sends
READY=1 when it serves. A daemon that ends before it is ready is told from one that is slow by its exit.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from lockbox_node.errors import LockboxError

if TYPE_CHECKING:
    from pathlib import Path

READY_TIMEOUT_S = 60.0
STOP_GRACE_S = 10.0


@dataclass(slots=True)
class Daemon:
    """One `lockbox-node run`, with its last process."""

    name: str
    config: Path
    log: Path
    process: trio.Process | None = None
    state: str = "down"  # down, up, stopped
    _notify: trio.socket.SocketType | None = field(default=None, repr=False)

    @property
    def pid(self) -> int | None:
        """The process id while it lives."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    async def start(self) -> None:
        """Spawn the daemon and return when it says READY=1. LockboxError with its last words when it ends instead."""
        plain = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        plain.bind("")  # an abstract address of the kernel's choice: it leaves no file behind
        notify = trio.socket.from_stdlib_socket(plain)
        address = "@" + notify.getsockname()[1:].decode()
        environment = {**os.environ, "NOTIFY_SOCKET": address}
        with self.log.open("ab") as log:
            self.process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "lockbox_node.cli.node", "run", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        try:
            await self._ready(notify)
        finally:
            notify.close()
        self.state = "up"

    async def _ready(self, notify: trio.socket.SocketType) -> None:
        deadline = trio.current_time() + READY_TIMEOUT_S
        while trio.current_time() < deadline:
            with trio.move_on_after(0.25):
                words = await notify.recv(4096)
                if b"READY=1" in words.splitlines():
                    return
            if self.process is not None and self.process.poll() is not None:
                raise LockboxError(
                    f"{self.name} ended with exit code {self.process.returncode} before it was ready: {self._last()}",
                    f"its log is {self.log}",
                )
        raise LockboxError(f"{self.name} was not ready within {READY_TIMEOUT_S:.0f} s", f"its log is {self.log}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to a living process; nothing when it is gone already."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        self.signal(signal.SIGKILL)
        await self._gone()

    async def terminate(self) -> int:
        """SIGTERM, SIGKILL after the grace; the exit code."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        with trio.move_on_after(STOP_GRACE_S):
            await self._gone()
        await self.kill()
        return self.process.returncode or 0 if self.process is not None else 0

    async def _gone(self) -> None:
        if self.process is not None:
            await self.process.wait()
        self.state = "down"

    def pause(self) -> None:
        """SIGSTOP: it holds its connections and says nothing."""
        self.signal(signal.SIGSTOP)
        self.state = "stopped"

    def resume(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)
        self.state = "up"

    def observe(self) -> str:
        """The state now, with a process that ended by itself counted as down."""
        if self.pid is None:
            self.state = "down"
        return self.state

    def _last(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"
