"""One TLS 1.3 stream between two processes over loopback: our TcpNetwork, and blocking SSLSockets as its peer.

The sender is this process, the receiver another one, so that each has a core. Both use the same certificates, cipher
and slices; the clock stops when the receiver has said that it holds every byte. Quote both figures from one run.
"""

from __future__ import annotations

import multiprocessing
import socket
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from lockbox_node.adapters.clock import SystemClock
from lockbox_node.adapters.identity import ClientIdentity, NetworkFile
from lockbox_node.adapters.tcp import TcpNetwork
from lockbox_node.cli.authority import create_authority, create_client, issue

if TYPE_CHECKING:
    from lockbox_node.ports import PeerStream

BUFFER_BYTES = 256 * 1024
SEND_BYTES = 4 << 20
DONE = b"\x01"


@dataclass(frozen=True, slots=True)
class Files:
    """What a process needs to be a peer; picklable."""

    network: Path
    certificate: Path
    key: Path

    def identity(self) -> ClientIdentity:
        return ClientIdentity.load(NetworkFile.load(self.network), self.certificate, self.key, SystemClock())


Side = Callable[[Files, Connection], None]


def measure(seconds: float) -> float:
    """MB/s (10^6 bytes) of one stream over TcpNetwork, sent for `seconds`."""
    return _measure(receive_ours, send_ours, seconds)


def measure_blocking(seconds: float) -> float:
    """MB/s of one stream over blocking SSLSockets: what Python's `ssl` gives at best without an event loop."""
    return _measure(receive_blocking, send_blocking, seconds)


def _measure(receive: Side, send: Callable[[Files, int, float], float], seconds: float) -> float:
    with tempfile.TemporaryDirectory() as name:
        files = _files(Path(name))
        ours, theirs = multiprocessing.Pipe()
        receiver = multiprocessing.get_context("spawn").Process(target=receive, args=(files, theirs))
        receiver.start()
        try:
            return send(files, ours.recv(), seconds)
        finally:
            receiver.terminate()
            receiver.join()


def _files(home: Path) -> Files:
    files = Files(home / "ca" / "network.pem", home / "peer.pem", home / "peer.key")
    create_authority(home / "ca", "benchmark")
    create_client(files.key, home / "peer.csr")
    issue(home / "ca", home / "peer.csr", "client", files.certificate)
    return files


def receive_ours(files: Files, port_goes_to: Connection) -> None:
    """Count what comes, and confirm each SEND_BYTES."""

    async def handler(stream: PeerStream) -> None:
        buffer, held = memoryview(bytearray(BUFFER_BYTES)), 0
        while count := await stream.receive_into(buffer):
            held += count
            if held >= SEND_BYTES:
                held -= SEND_BYTES
                await stream.send_all(DONE)
        await stream.aclose()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            port_goes_to.send(await nursery.start(TcpNetwork(files.identity()).serve, handler))

    trio.run(main)


def send_ours(files: Files, port: int, seconds: float) -> float:
    """MB/s that the receiver confirmed. A second task reads the confirmations, as in a real connection."""

    async def main() -> float:
        stream = await TcpNetwork(files.identity()).dial("127.0.0.1", port)
        block, sent, confirmed = bytes(SEND_BYTES), 0, 0
        ended = False

        async def read() -> None:
            nonlocal confirmed
            buffer = memoryview(bytearray(4096))
            while not (ended and confirmed == sent):
                confirmed += await stream.receive_into(buffer)

        started = time.perf_counter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            while time.perf_counter() - started < seconds:
                sent += 1
                await stream.send_all(block)
            ended = True
            if confirmed == sent:
                nursery.cancel_scope.cancel()
        spent = time.perf_counter() - started
        await stream.aclose()
        return sent * SEND_BYTES / spent / 1e6

    return trio.run(main)


def receive_blocking(files: Files, port_goes_to: Connection) -> None:
    """The same with blocking sockets."""
    context = files.identity().server_context()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port_goes_to.send(listener.getsockname()[1])
        sock, _ = listener.accept()
        with context.wrap_socket(sock, server_side=True) as tls:
            tls.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            buffer, held = memoryview(bytearray(BUFFER_BYTES)), 0
            while count := tls.recv_into(buffer):
                held += count
                if held >= SEND_BYTES:
                    held -= SEND_BYTES
                    tls.sendall(DONE)


def send_blocking(files: Files, port: int, seconds: float) -> float:
    """The same with blocking sockets; the confirmations are read at the end."""
    context = files.identity().client_context()
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port))) as tls:
        assert isinstance(tls, ssl.SSLSocket)
        tls.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        block, sent, confirmed = bytes(SEND_BYTES), 0, 0
        slices = [memoryview(block)[at : at + (1 << 20)] for at in range(0, SEND_BYTES, 1 << 20)]
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            for part in slices:
                tls.sendall(part)
            sent += 1
        while confirmed < sent:
            confirmed += len(tls.recv(4096))
        return sent * SEND_BYTES / (time.perf_counter() - started) / 1e6


if __name__ == "__main__":
    rows = [(measure(1.0), measure_blocking(1.0)) for _ in range(5)]
    for name, figures in zip(("TcpNetwork", "blocking SSLSocket"), zip(*rows, strict=True), strict=True):
        print(f"{name}: {statistics.median(figures):.0f} MB/s ({min(figures):.0f}-{max(figures):.0f}), 5 runs of 1 s")
