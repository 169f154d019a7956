"""The daemon: builds the adapters and the Node, listens to signals, tells systemd, and runs trio.

SIGTERM and SIGINT end it in order; SIGHUP renews the operational certificate and takes network documents, both from the
files. READY=1 goes out when the store is open, the port is bound and the first attempt to join is over (sd_notify(3)).
Core dumps are off, so that no key reaches a disk that way. What is wrong with the files is one ConfigError before
anything is bound; a defect of ours is logged with its traceback and ends the process.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import socket
from contextlib import closing
from functools import partial
from random import Random

from lockbox_node.observe import logging, web  # before whatever imports structlog: it loads it without rich

# isort: split
from typing import TYPE_CHECKING

import structlog
import trio

from lockbox_node import control
from lockbox_node.adapters.backups import Backups
from lockbox_node.adapters.clock import OsEntropy, SystemClock
from lockbox_node.adapters.delayed_network import DelayedNetwork
from lockbox_node.adapters.document_files import load_documents, load_rules, save_documents
from lockbox_node.adapters.identity import NetworkFile, NodeIdentity
from lockbox_node.adapters.journal import FileJournal
from lockbox_node.adapters.keystores import FileKeyStore
from lockbox_node.adapters.member_cache import load_members, save_members
from lockbox_node.adapters.parted_network import PartedNetwork
from lockbox_node.adapters.shard_store import ShardStoreFile
from lockbox_node.adapters.software_hash import software_hash
from lockbox_node.adapters.store_backup import Sources
from lockbox_node.adapters.tcp import TcpNetwork
from lockbox_node.adapters.workers import ThreadWorkers
from lockbox_node.config import Config, host_port, load
from lockbox_node.core.regions import BUILT_IN
from lockbox_node.core.spent import RECORD_BYTES
from lockbox_node.errors import ConfigError, LockboxError
from lockbox_node.node import Node, Ports
from lockbox_node.observe.backups import BackupVerbs
from lockbox_node.observe.watch import Watch
from protocol.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from protocol.certificates import NetworkRoot
    from protocol.messages import Signed

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
DOCUMENTS = "network"  # in data_dir, beside network.pem
JOURNAL = "seen"  # in data_dir
RENEW_EVERY_S = 12 * 3600.0
RENEW_RETRY_S = 600.0  # after a failure: the leaf lives for 24 h
REMEMBER_EVERY_S = 5.0
GC_OBJECTS = 20_000  # allocations between two collections
WORKERS_MAX = 2  # threads for long computations

log = structlog.get_logger()


def run(config_path: Path, parting: Path | None = None, latency: Path | None = None) -> None:
    """Run until SIGTERM or SIGINT. ConfigError and its kin before anything is bound or written.

    `parting` and `latency` are for the daemons of a test network alone: adapters.parted_network, delayed_network.
    """
    config = load(config_path)
    config.node.require_advertisable()
    logging.configure(config.log.level)
    no_core_dumps()
    # What is loaded by now stays for good: the collector need not look at it again, nor at every 700 new objects.
    gc.freeze()
    gc.set_threshold(GC_OBJECTS)
    try:
        trio.run(serve, config, config_path.absolute(), parting, latency)
    except Exception as error:
        if not _expected(error):
            log.exception("daemon.failed")
        raise


def _expected(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_expected(inner) for inner in error.exceptions)
    return isinstance(error, LockboxError)


def die_with(parent: int) -> None:
    """Be killed when our parent, process `parent`, ends; at once when it has ended already (prctl(2))."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def no_core_dumps() -> None:
    """No core file and no ptrace by the same user: memory stays ours."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a descriptor for every connection that we may have
    _prctl(PR_SET_DUMPABLE, 0)


def notify(words: str) -> None:
    """Tell the service manager, if there is one (sd_notify(3)). Never waits for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        try:
            manager.sendto(words.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            log.warning("notify.failed", error=error.strerror)


async def serve(config: Config, config_path: Path, parting: Path | None = None, latency: Path | None = None) -> None:
    """Build everything, run the node, end it in order when a signal asks for it."""
    directory = config_path.parent
    data_dir = directory / config.node.data_dir
    network_file = NetworkFile.load(directory / config.node.network)
    _require_region(config.node.region, data_dir, network_file.root)
    clock, entropy = SystemClock(), OsEntropy()
    keystore = FileKeyStore.load(data_dir / "identity" / "key.pem")
    identity = await NodeIdentity.load(data_dir / "identity", network_file.root, keystore, clock, entropy)
    if config.node.operator and config.node.operator != identity.operator:
        raise ConfigError(
            f"node.operator is {config.node.operator!r}, the certificate says {identity.operator!r}",
            "set node.operator to what the certificate says",
        )
    network = _network(identity, *host_port(config.node.listen, "node.listen"), parting, latency)
    software = software_hash()
    with (
        closing(ShardStoreFile.open(data_dir, config.store, clock, identity.node_id)) as store,
        closing(FileJournal(data_dir / JOURNAL, RECORD_BYTES)) as journal,
    ):
        workers = ThreadWorkers(trio.CapacityLimiter(WORKERS_MAX))
        ports = Ports(network, store, workers, entropy, clock, journal)
        store.on_broken = _report_broken
        seed = bytearray(8)
        entropy.fill(seed)
        members = data_dir / "members"
        rng = Random(int.from_bytes(seed, "big"))
        remembered = load_members(members)
        papers = data_dir / DOCUMENTS
        root, documents = network_file.root, load_documents(papers)
        node = Node(config, ports, identity, root, software, rng, remembered, store.epoch, documents)
        watch = Watch(node, identity, clock.now_unix_s)
        sources = Sources(data_dir, config_path, directory / config.node.network)
        backups = BackupVerbs(Backups(store, sources, clock), store)
        verbs = {**watch.verbs(), "backup": backups.backup, "backup-progress": backups.progress}
        if isinstance(network, PartedNetwork):
            verbs["parting"] = network.verb
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as nursery:
                await nursery.start(store.run)
                nursery.start_soon(_obey, signals, node, identity, papers)
                nursery.start_soon(_keep_documents, node, papers, workers)
                nursery.start_soon(_renew, node, identity)
                nursery.start_soon(_remember, node, members, workers)
                async with trio.open_nursery() as surroundings:
                    await surroundings.start(control.serve, data_dir / "control.sock", verbs)
                    if config.node.http:
                        http = host_port(config.node.http, "node.http")
                        await surroundings.start(web.serve, web.Application(watch.pages()), *http)
                    async with trio.open_nursery() as running:
                        await running.start(node.run)
                        log.info("node.ready", node=identity.node_id.hex()[:8], region=config.node.region)
                        if not node.stop.is_set():
                            notify("READY=1\nSTATUS=serving")
                    surroundings.cancel_scope.cancel()
                nursery.cancel_scope.cancel()
    log.info("node.stopped")


def _require_region(region: str, data_dir: Path, root: NetworkRoot) -> None:
    """ConfigError when a new node names a region that neither the network's table, if it is here, nor the built-in has.

    A node that has served runs on whatever the table says by now: it holds what others may need.
    """
    if region not in BUILT_IN and not (data_dir / "STORE").exists():
        load_rules(data_dir / DOCUMENTS, root).regions.named(region)


def _network(identity: NodeIdentity, host: str, port: int, parting: Path | None, latency: Path | None) -> TcpNetwork:
    if latency is not None:
        if parting is None:
            raise ConfigError("--latency is for test networks, which give --parting too", "leave it out")
        return DelayedNetwork(identity, host, port, parting, latency)
    return TcpNetwork(identity, host, port) if parting is None else PartedNetwork(identity, host, port, parting)


async def _obey(signals: AsyncIterator[int], node: Node, identity: NodeIdentity, papers: Path) -> None:
    async for number in signals:
        if number == signal.SIGHUP:
            _reload_documents(node, papers)
            await _renewed(node, identity)
        else:
            log.info("node.stopping", signal=signal.Signals(number).name)
            notify("STOPPING=1")
            node.stop.set()


async def _renew(node: Node, identity: NodeIdentity) -> None:
    wait_s = RENEW_EVERY_S
    while True:
        await trio.sleep(wait_s)
        wait_s = RENEW_EVERY_S if await _renewed(node, identity) else RENEW_RETRY_S


async def _remember(node: Node, path: Path, workers: ThreadWorkers) -> None:
    """Keep the file of known members, for the next start."""
    saved: list[Signed] = []
    while True:
        await trio.sleep(REMEMBER_EVERY_S)
        records = node.membership.records()
        if records != saved:
            try:
                await workers.run(partial(save_members, path, records))
            except OSError as error:
                log.warning("members.not_saved", reason=error.strerror)
            else:
                saved = records


def _reload_documents(node: Node, papers: Path) -> None:
    """What somebody put there by hand counts as if it had come from the network."""
    try:
        node.documents.take(load_documents(papers))
    except RemoteProtocolError as error:
        log.warning("documents.not_reloaded", reason=str(error))


async def _keep_documents(node: Node, papers: Path, workers: ThreadWorkers) -> None:
    """Write down every document that was taken, so that it holds after a restart with nobody to ask."""
    while True:
        changed = node.documents.changed
        region = node.config.node.region
        if region not in node.documents.rules.regions:
            hint = "no shard is placed here: set node.region, or ask the network's authority to add it"
            log.error("node.region_unknown", region=region, hint=hint)
        try:
            await workers.run(partial(save_documents, papers, node.documents.all()))
        except ConfigError as error:
            log.warning("documents.not_saved", reason=error.message)
        await changed.wait()


async def _renewed(node: Node, identity: NodeIdentity) -> bool:
    """A new operational leaf, without a restart; the old one stays, and False is returned, when it cannot be made."""
    try:
        await identity.renew()
    except LockboxError as error:
        log.error("identity.not_renewed", reason=error.message)
        return False
    node.membership.renew_record()
    log.info("identity.renewed")
    return True


def _report_broken(why: str) -> None:
    log.error("store.broken", reason=why)
