"""One command of `lockbox` against the network: open the wallet, join, do it, keep what was learned.

SIGINT and SIGTERM cancel the work and not the connections, so that an interrupted lock can still be undone. Imported
only by commands that need the network: it pulls in trio, TLS and the rest.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import msgspec
import trio

from lockbox_node.adapters.clock import OsEntropy, SystemClock
from lockbox_node.adapters.identity import ClientIdentity, NetworkFile
from lockbox_node.adapters.tcp import TcpNetwork
from lockbox_node.adapters.workers import ThreadWorkers
from lockbox_node.client.greeting import Greeter
from lockbox_node.client.members import addresses_of
from lockbox_node.client.vault import Ports, Vault, open_vault
from lockbox_node.errors import LockboxError
from protocol.documents import Kind
from protocol.messages import DOCUMENT_BYTES_MAX, SignedDocument

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from lockbox_node.client.wallet import Wallet

T = TypeVar("T")

CACHED_ADDRESSES = 16
CACHED_BYTES_MAX = 64 * 1024 + 2 * len(Kind) * DOCUMENT_BYTES_MAX  # base64 is a third longer than the bytes
BAR_AFTER_S = 1.0
UNDONE = "interrupted; what was begun is undone"
M_MMAP_THRESHOLD, LARGE_BYTES = -3, 128 * 1024


class Cached(msgspec.Struct, frozen=True):
    """What one command leaves to the next: addresses where somebody may answer, and the documents of the network."""

    addresses: list[str] = []
    documents: list[SignedDocument] = []


def in_network(wallet: Wallet, work: Callable[[Vault], Awaitable[T]], interrupted: str = UNDONE) -> T:
    """Run `work` on a joined vault and return its result. LockboxError that says `interrupted` after Ctrl-C."""
    _return_freed_memory()
    results = trio.run(_session, wallet, work)
    if not results:
        raise LockboxError(interrupted, "run it again")
    return results[0]


def _return_freed_memory() -> None:
    """Let every large buffer be its own mapping (mallopt(3)): what a stripe took goes back when the stripe is done."""
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


async def _session(wallet: Wallet, work: Callable[[Vault], Awaitable[T]]) -> list[T]:
    """The result, if it came to one."""
    clock = SystemClock()
    network = NetworkFile.load(wallet.network_file)
    credential = wallet.credential
    identity = ClientIdentity.guest(network) if credential is None else ClientIdentity.load(network, *credential, clock)
    workers = ThreadWorkers(trio.CapacityLimiter(max(2, os.cpu_count() or 1)))
    ports = Ports(TcpNetwork(identity), OsEntropy(), clock, workers)
    cached = _cached(wallet)
    addresses = [*wallet.bootstrap, *(address for address in cached.addresses if address not in wallet.bootstrap)]
    results: list[T] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(_cancel_on_signal, nursery.cancel_scope)
        greeter, documents = Greeter(identity, clock), cached.documents
        async with open_vault(ports, greeter, wallet, addresses, documents=documents) as vault:
            results.append(await work(vault))
            with suppress(LockboxError):  # a full disk must not make a failure of what was done
                _cache(wallet, cached, Cached(addresses_of(vault.members, CACHED_ADDRESSES), vault.rule_book.all()))
        nursery.cancel_scope.cancel()
    return results


async def _cancel_on_signal(
    scope: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()


def _cached(wallet: Wallet) -> Cached:
    """What was seen before; nothing is believed of it that does not verify."""
    try:
        return msgspec.json.decode(wallet.load_members()[:CACHED_BYTES_MAX] or b"{}", type=Cached)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Cached()


def _cache(wallet: Wallet, before: Cached, now: Cached) -> None:
    if now.addresses and now != before:
        wallet.save_members(msgspec.json.encode(now))


@contextmanager
def progress_bar(words: str, *, counting: bool = False) -> Iterator[Callable[[int, int], None] | None]:
    """A callback for (done, all) that draws a bar on a terminal, and only for what takes a while.

    Both are bytes, or things when it is `counting`.
    """
    if not sys.stderr.isatty():
        yield None
        return
    shown: list[Callable[[int, int], None]] = []
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TransferSpeedColumn

    figures = [MofNCompleteColumn()] if counting else [DownloadColumn(), TransferSpeedColumn()]
    bar = Progress(TextColumn(words), BarColumn(), *figures, console=Console(stderr=True), transient=True)
    task = bar.add_task(words, total=None)

    began: list[float] = []

    def update(done: int, total: int) -> None:
        began.append(trio.current_time())
        if not shown and began[-1] - began[0] > BAR_AFTER_S:
            bar.start()
            shown.append(update)
        del began[1:]
        bar.update(task, completed=done, total=total)

    try:
        yield update
    finally:
        if shown:
            bar.stop()
