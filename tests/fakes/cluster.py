"""A network of whole storage nodes in memory, and clients of it: real rpc, real Storage, stores in memory.

Members are known at once (no gossip): what a test says about who is dead is what every node says. Pointers are
handed to the nearest nodes' stores directly.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import trio
from cryptography.hazmat.primitives.serialization import Encoding

from lockbox_node.client.vault import Ports, Vault, VaultParams, open_vault
from lockbox_node.client.wallet import Wallet
from lockbox_node.client.words import new_words
from lockbox_node.core.documents import Library
from lockbox_node.core.grants import Around
from lockbox_node.core.location import NOTHING_KNOWN
from lockbox_node.core.placement import Candidate
from lockbox_node.core.regions import spread_regions
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.errors import LockboxError
from lockbox_node.ports import Answer, SlotView, StripePart, StripeSummary
from lockbox_node.rpc.dispatch import Dispatcher, Route
from lockbox_node.rpc.pool import Contact, Pool
from lockbox_node.rpc.server import Server
from lockbox_node.services.auditing import Auditing, Sights
from lockbox_node.services.challenging import Challenger
from lockbox_node.services.comparing import Comparing
from lockbox_node.services.granting import Granting
from lockbox_node.services.pointers import PointerSpreader
from lockbox_node.services.storage import Storage
from protocol.ids import Address, NetworkId, NodeId, distance
from protocol.messages import (
    RECORDS_MAX,
    Documents,
    FindNode,
    GetDocuments,
    HolderEntry,
    HolderTable,
    Members,
    MemberState,
    MemberUpdate,
    Message,
    Nodes,
    Signed,
    SyncMembers,
)
from protocol.records import NodeRecord, parse
from protocol.vantage import CompareVantages, Vantages
from simulations.identities import NOW_UNIX_S, FakeIdentity, FakeNetwork, Papers
from simulations.journal import MemoryJournal
from simulations.memory_store import MemoryStore
from simulations.world import InlineWorkers, SeededEntropy
from tests.fakes.memory_network import MemoryHub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from lockbox_node.rpc.hello import Peer
    from protocol.messages import SignedDocument

T = TypeVar("T")

PASSPHRASE = "correct horse battery staple"


class FixedClock:
    """Wall time that moves with trio's, and `ahead_s` of it: days pass without every timer of the network."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now_unix_s(self) -> float:
        """See the port."""
        return NOW_UNIX_S + self.ahead_s + trio.current_time()


class LosingStore(MemoryStore):
    """A store that shows what it keeps, and can lose a part as a failed disk does: without a tombstone or a word."""

    def view(self, address: bytes) -> SlotView:
        """What stands at `address`."""
        return self._state.look(Address(address))

    def part(self, address: bytes) -> StripePart:
        """The first part at `address`, with its shards."""
        return self._state.get(Address(address), self.view(address).parts[0].descriptor_hash)

    def kept(self) -> list[StripeSummary]:
        """Every part."""
        return self._state.summaries(b"", 1000)

    def expire_now(self, now_unix_s: float) -> None:
        """What leases do when the time has come: to trash."""
        self._state.expire(now_unix_s, 0)

    def lose(self, address: bytes) -> None:
        """Whatever is held at `address` is gone."""
        for part in self._state.look(Address(address)).parts:
            self._state.drop(part.address, part.descriptor_hash)


class Deaf:
    """Acts on nothing that siblings show."""

    def on_missing(self, table: HolderTable) -> None:
        """See Hearers."""

    def on_differing(self, node: NodeId) -> None:
        """See Hearers."""


@dataclass
class FakeNode:
    """One storage node. What is set here changes how it behaves from now on."""

    number: int
    identity: FakeIdentity
    store: LosingStore
    region: str
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    alive: bool = True
    refuse: dict[type[Message], LockboxError] = field(default_factory=dict)  # request type -> what it answers
    silent: set[type[Message]] = field(default_factory=set)  # request types that it never answers
    bend: dict[type[Message], Callable[[Message], Message]] = field(default_factory=dict)  # what it says instead
    unsayable: set[tuple[type[Message], bytes]] = field(default_factory=set)  # the same for one address only
    asked: Counter[str] = field(default_factory=Counter)
    granting: Granting = field(init=False)

    @property
    def id(self) -> bytes:
        """Its node id."""
        return self.identity.id

    def bury_in_silence(self, kind: type[Message], address: bytes) -> None:
        """Never answer such a request about `address`."""
        self.unsayable.add((kind, address))

    @property
    def host(self) -> str:
        """Its host on the hub."""
        return f"node{self.number}"


class Cluster:
    """The nodes, the hub, and what belongs to a client of them."""

    def __init__(self, count: int, regions: int = 7, operators: int = 7, cities: Sequence[str] = ()) -> None:
        """`cities` are regions that the built-in table does not know."""
        self.authority = FakeNetwork()
        self.hub = MemoryHub()
        self.clock = FixedClock()
        names = [*spread_regions(regions), *cities]
        self.nodes: dict[bytes, FakeNode] = {}
        self.library = Library(self.authority.root)  # the network's documents, as every node has them; none obeys them
        self.contradictions: list[Signed] = []  # vantage reports that every node hands to clients
        for number in range(1, count + 1):
            identity = self.authority.node(
                number,
                operator=f"op{number % operators + 1}",
                region=names[number % len(names)],
                address=f"node{number}:7420",
            )
            self.nodes[identity.id] = FakeNode(
                number, identity, LosingStore(StoreParams(), self.clock), names[number % len(names)]
            )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """All nodes, for ever."""
        async with trio.open_nursery() as nursery:
            for node in self.nodes.values():
                await nursery.start(self._run_node, node)
            task_status.started()

    @asynccontextmanager
    async def client(
        self,
        wallet: Wallet,
        number: int = 1,
        params: VaultParams | None = None,
        *,
        guest: bool = False,
        documents: Sequence[SignedDocument] = (),
    ) -> AsyncIterator[Vault]:
        """A joined vault over `wallet`."""
        identity = self.authority.guest() if guest else self.authority.client(number)
        network = self.hub.network(f"client{number}", identity.leaf)
        ports = Ports(network, SeededEntropy(number), self.clock, InlineWorkers())
        addresses = [f"{node.host}:7420" for node in self.nodes.values()][:3]
        async with open_vault(ports, identity, wallet, addresses, params, documents) as vault:
            yield vault

    def kill(self, *nodes: bytes) -> None:
        """These nodes are gone, and everybody knows it."""
        for node in nodes:
            self.nodes[node].alive = False
            self.hub.down.add(self.nodes[node].host)
        for ours, theirs in self.hub.streams:
            if {ours.peer_host, theirs.peer_host} & self.hub.down:
                ours.lose()

    def revive(self, *nodes: bytes) -> None:
        """These nodes are back, with what they kept."""
        for node in nodes:
            self.nodes[node].alive = True
            self.hub.down.discard(self.nodes[node].host)

    def holding(self, address: bytes) -> list[FakeNode]:
        """Nodes that keep a part of what stands at `address`."""
        return [node for node in self.nodes.values() if _view(node, address).parts]

    def forget(self, node: FakeNode, address: bytes) -> None:
        """The node loses its part; its operator knows nothing of it."""
        node.store.lose(address)

    def entries(self, node: FakeNode, address: bytes) -> tuple[HolderEntry, ...]:
        """The holder table that a node keeps with its part."""
        return _view(node, address).parts[0].entries

    def descriptor(self, node: FakeNode, address: bytes) -> Signed:
        """The signed descriptor of the part that a node keeps."""
        return _view(node, address).parts[0].descriptor

    def nearest(self, target: bytes, count: int) -> list[FakeNode]:
        """The nearest living nodes."""
        living = [node for node in self.nodes.values() if node.alive]
        return sorted(living, key=lambda node: distance(node.id, target))[:count]

    def around(self, node: FakeNode) -> Around:
        """What a node sees of the others: who is dead is known at once, unless a test says otherwise."""
        living = [one for one in self.nodes.values() if one.alive]

        def near(target: bytes, count: int) -> list[Candidate]:
            close = sorted(living, key=lambda one: distance(one.id, target))[:count]
            return [Candidate(one.id, one.region, one.identity.operator) for one in close]

        return Around(node.id, len(living), near, self.nodes.__contains__, self.library.rules.revoked)

    async def _run_node(self, node: FakeNode, *, task_status: trio.TaskStatus[None]) -> None:
        network = self.hub.network(node.host, node.identity.leaf)
        dispatcher = Dispatcher()
        pool = Pool(network, node.identity, dispatcher)
        own = NodeId(node.id)
        spreader = PointerSpreader(own, pool, self._contacts, node.store, lambda _told, _tables, _teacher: None)

        def nearest_nodes(target: bytes, count: int) -> list[NodeId]:
            return [NodeId(one.id) for one in self.nearest(target, count)]

        node.granting = granting = Granting(
            Papers(node.identity), self.authority.root, lambda: self.around(node), self.clock, node.journal
        )
        storage = Storage(
            node.store,
            own,
            self.clock,
            lambda target, count: [_record(one) for one in self.nearest(target, count)],
            nearest_nodes,
            spreader.on_stored,
            granting.redeeming,
        )
        comparing = Comparing(node.store, own, self.clock, nearest_nodes, Deaf())
        routes = [
            *storage.routes(),
            *granting.routes(),
            *comparing.routes(),
            Route(SyncMembers, self._members),
            Route(FindNode, self._find_node),
            Route(GetDocuments, self._documents),
            Route(CompareVantages, self._contradictions),
        ]
        dispatcher.add(*(Route(route.request, partial(self._serve, node, route)) for route in routes))
        [audit] = self._auditing(node, pool).routes()
        dispatcher.add(Route(audit.request, partial(self._serve_later, node, audit)))
        server = Server(network, pool, node.identity, dispatcher)
        async with trio.open_nursery() as nursery:
            await nursery.start(pool.run)
            await nursery.start(spreader.run)
            await nursery.start(server.run)
            task_status.started()

    @staticmethod
    def _serve(node: FakeNode, route: Route, request: Message, peer: Peer, answer: Answer[Message]) -> None:
        """What the node is told to do instead of serving, else serve."""
        kind = type(request)
        node.asked[kind.__name__] += 1
        if kind in node.silent or (kind, getattr(request, "address", b"")) in node.unsayable:
            return
        if kind in node.refuse:
            answer(node.refuse[kind])
            return
        bend = node.bend.get(kind, _same)

        def bent(reply: Message | LockboxError) -> None:
            answer(reply if isinstance(reply, LockboxError) else bend(reply))

        handler: Any = route.handler
        handler(request, peer, bent)  # storage has synchronous handlers only

    @staticmethod
    async def _serve_later(node: FakeNode, route: Route, request: Message, peer: Peer) -> Message:
        """The same for a handler that waits for others."""
        kind = type(request)
        node.asked[kind.__name__] += 1
        if kind in node.silent:
            await trio.sleep_forever()
        if kind in node.refuse:
            raise node.refuse[kind]
        handler: Any = route.handler
        reply: Message = await handler(request, peer)
        return node.bend.get(kind, _same)(reply)

    def _auditing(self, node: FakeNode, pool: Pool) -> Auditing:
        def contact(other: NodeId) -> Contact | None:
            known = self.nodes.get(other)
            return None if known is None else Contact(other, (f"{known.host}:7420",))

        def record(other: NodeId) -> NodeRecord | None:
            known = self.nodes.get(other)
            return None if known is None else parse(_record(known), NodeRecord)

        challenger = Challenger(pool, contact, lambda _node: 0.0, SeededEntropy(5000 + node.number))
        sights = Sights(NodeId(node.id), record, lambda: NOTHING_KNOWN, lambda: self.library.rules)
        papers, around = Papers(node.identity), partial(self.around, node)
        return Auditing(papers, 1, around, self.clock, node.journal, challenger, sights, _known_already)

    def _members(self, request: SyncMembers, _peer: Peer, answer: Answer[Message]) -> None:
        later = sorted(node for node in self.nodes if node > request.after)
        page = later[:RECORDS_MAX]
        updates = [
            MemberUpdate(MemberState(node, 1, 0 if self.nodes[node].alive else 2), _record(self.nodes[node]))
            for node in page
        ]
        answer(Members(updates, [], len(later) > len(page), self.library.versions()))

    def _documents(self, request: GetDocuments, _peer: Peer, answer: Answer[Message]) -> None:
        answer(Documents(self.library.newer_than(request.known)))

    def _contradictions(self, _request: CompareVantages, _peer: Peer, answer: Answer[Message]) -> None:
        answer(Vantages(self.contradictions, [], False))

    def _find_node(self, request: FindNode, _peer: Peer, answer: Answer[Message]) -> None:
        answer(Nodes([_record(node) for node in self.nearest(request.target, request.count)]))

    def _contacts(self, target: bytes, count: int) -> list[Contact]:
        return [Contact(NodeId(node.id), (f"{node.host}:7420",)) for node in self.nearest(target, count)]


async def _known_already(_address: bytes) -> None:
    pass


def _same(reply: Message) -> Message:
    return reply


def _record(node: FakeNode) -> Signed:
    assert node.identity.record is not None
    return node.identity.record


def _view(node: FakeNode, address: bytes) -> SlotView:
    box: list[SlotView | LockboxError] = []
    node.store.look(Address(address), box.append)
    view = box[0]
    assert isinstance(view, SlotView)
    return view


@lru_cache(1)
def _template(root_pem: bytes) -> tuple[Path, bytes, bytes, str]:
    """A wallet made once: its directory, master key, network id and words. Argon2id takes 0.2 s each time."""
    path = Path(tempfile.mkdtemp(prefix="lockbox-test-")) / "wallet"
    entropy = SeededEntropy(99)
    words = new_words(entropy)
    with Wallet.create(path, words, PASSPHRASE, PASSPHRASE, root_pem, ["node1:7420"], None, None, entropy) as wallet:
        atexit.register(shutil.rmtree, path.parent)
        return path, bytes(wallet.master), wallet.network_id, words


def a_wallet(cluster: Cluster, path: Path, seed: int = 1) -> Wallet:
    """A wallet of that network in `path`; wallets of one seed have the same words."""
    root_pem = cluster.authority.root.certificate.public_bytes(Encoding.PEM)
    template, master, network_id, _ = _template(root_pem)
    shutil.copytree(template, path)
    return Wallet(path, bytearray(master), NetworkId(network_id), SeededEntropy(1000 + seed))
