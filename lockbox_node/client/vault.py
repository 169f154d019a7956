"""A client of one network: its connections, its view of the members, its wallet. Everything else builds on it.

`open_vault` gives one that is joined; many tasks may lock and unlock on it at once. The members come from up to
SYNC_NODES nodes of distinct operators and are read again when an operation meets what the view cannot explain. Wall
time is corrected by the median of what the peers say, since claims and leases are judged by their clocks.
"""

from __future__ import annotations

import statistics
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import trio

from lockbox_node.client.chance import fresh
from lockbox_node.client.ledger import Ledger
from lockbox_node.client.locating import Locating
from lockbox_node.client.members import Member, MemberView
from lockbox_node.client.nearness import Nearness
from lockbox_node.client.restraint import Restraint
from lockbox_node.client.rule_book import RuleBook
from lockbox_node.core.derivation import AssetKey, access
from lockbox_node.core.lookup import LookupParams
from lockbox_node.core.placement import place
from lockbox_node.errors import LockboxError, PeerUnreachable
from lockbox_node.rpc.dispatch import Dispatcher
from lockbox_node.rpc.pool import Contact, Pool, Posted
from lockbox_node.services.lookups import Known, Lookups
from protocol.ids import ID_BYTES, NodeId
from protocol.messages import NUMBERS, Members, MemberUpdate, SyncMembers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Container, Sequence

    from lockbox_node.client.replies import Outcome
    from lockbox_node.client.wallet import Wallet
    from lockbox_node.core.placement import Candidate
    from lockbox_node.core.regions import RegionTable
    from lockbox_node.core.tiers import Tier
    from lockbox_node.ports import Entropy, Network, WallClock, Workers
    from lockbox_node.rpc.hello import LocalIdentity
    from protocol.messages import Message, Signed, SignedDocument

SYNC_NODES = 3
PAGES_MAX = 64
SEEDS = 20  # members that a lookup starts from
NONCE_BYTES = 16
NEVER = float("inf")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class VaultParams:
    """Times and limits of a client. Relative seconds."""

    join_s: float = 10.0  # all bootstrap addresses together
    hedge_join_s: float = 0.3  # until the next address is tried too
    sync_s: float = 5.0
    find_s: float = 5.0
    first_s: float = 1.5  # then what few nodes say of an address is tried
    hedge_find_s: float = 0.3
    grant_s: float = 5.0  # all verifiers together
    hedge_get_s: float = 0.15  # at least; four times the usual answer time when that is more
    get_s: float = 3.0  # without a byte from anybody
    patience_s: float = 5.0  # the same for a holder that nobody can replace
    stall_s: float = 1.0  # a holder without progress is replaced
    put_s: float = 30.0  # a holder is replaced, however busily it sends
    prove_s: float = 5.0
    audit_s: float = 30.0  # all verifiers of a stripe together
    hedge_audit_s: float = 10.0  # longer than an honest one takes, which waits for silent holders
    tell_s: float = 5.0  # for holders to acknowledge a renewal or a tombstone
    undo_s: float = 2.0
    shun_s: float = 10.0  # how long a node that failed us is left out
    refresh_s: float = 1.0  # the view is read again at most this often
    lookup: LookupParams = field(default_factory=LookupParams)
    candidates: int = 160  # the nearest, that a placement looks at first: twice the 4n of Elite
    window_stripes: int = 3
    window_bytes: int = 96 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Ports:
    """What a client needs of the world."""

    network: Network
    entropy: Entropy
    clock: WallClock
    workers: Workers


class Vault:
    """The composition root of a client. `wallet` owns the master key."""

    def __init__(
        self,
        ports: Ports,
        local: LocalIdentity,
        wallet: Wallet,
        params: VaultParams | None = None,
        documents: Sequence[SignedDocument] = (),
    ) -> None:
        """`documents` are the network's, as this client knew them before."""
        self.params = params or VaultParams()
        self.entropy = ports.entropy
        self.workers = ports.workers
        self.wallet = wallet
        self.local = local
        dispatcher = Dispatcher()
        self.pool = Pool(ports.network, local, dispatcher)
        self.members = MemberView(local.root)
        self.nearness = Nearness()
        self.lookups = Lookups(self.pool, local.root, local.id, self.now_unix_s, self.params.lookup)
        self.ledger = Ledger(self)
        self.restraint = Restraint()
        self._clock = ports.clock
        self.rule_book = RuleBook(local.root, self.pool, dispatcher, self.members, self.now_unix_s, documents)
        self.locating = Locating(
            local.root, local.id, self.pool, self.members, self.now_unix_s, lambda: self.rule_book.rules
        )
        self._usual_s: dict[type[Message], float] = {}
        self._refreshing = trio.Lock()
        self._refreshed_at = float("-inf")

    @property
    def own_id(self) -> bytes:
        """Our client id, as nodes see it in our certificate."""
        return self.local.id

    def now_unix_s(self) -> float:
        """Wall time as most of our peers have it."""
        offsets = [connection.peer.clock_offset_s for connection in self.pool.connections()]
        return self._clock.now_unix_s() + (statistics.median(offsets) if offsets else 0.0)

    def claim(self, key: AssetKey, kind: type[Message]) -> Signed:
        """Leave for us to ask a request of this kind about the address of `key`, for the next minutes."""
        nonce = bytes(fresh(NONCE_BYTES, self.entropy))
        return access(key, NUMBERS[kind], self.own_id, nonce, int(self.now_unix_s()))

    # Asking

    def post(self, member: Member, request: Message, answer: Callable[[Outcome], None]) -> Posted:
        """Send one request; `answer` is called once. A node that cannot be reached is shunned for a while."""
        posted_at = trio.current_time()

        def judged(outcome: Outcome) -> None:
            if isinstance(outcome, PeerUnreachable):
                self.shun(member.record.node)
            elif not isinstance(outcome, LockboxError):
                took_s = trio.current_time() - posted_at
                self.nearness.heard(member.record, trio.current_time() - posted.sent_at)
                usual_s = self._usual_s.get(type(request), took_s)
                self._usual_s[type(request)] = usual_s + (took_s - usual_s) / 8
            answer(outcome)

        posted = self.pool.post(member.contact, request, judged)
        return posted

    def shun(self, node: bytes) -> None:
        """`node` failed us: others first for a while."""
        self.members.shun(node, trio.current_time() + self.params.shun_s)

    def usual_s(self, kind: type[Message]) -> float:
        """The smoothed time that answers to this kind of request take; 0 before the first."""
        return self._usual_s.get(kind, 0.0)

    def expected_s(self, member: Member) -> float:
        """How long `member` will take to answer, dialled if need be; infinite when nothing is known of it."""
        return self.nearness.expected_s(member.record, warm=self.pool.ready(member.record.node) is not None)

    # Members

    def candidates(self, address: bytes, without: Container[bytes] = ()) -> list[Candidate]:
        """Who may hold a new shard at `address`, nearest first, each with a verified record."""
        return self.members.candidates(address, trio.current_time(), self.params.candidates, without)

    def chosen(
        self,
        address: bytes,
        choose: Callable[[list[Candidate]], T],
        without: Container[bytes] = (),
        *,
        shunned: bool = False,
    ) -> T:
        """What is chosen of the nearest candidates; twice as many are looked at as long as these do not suffice.

        `shunned` = of those too who failed us lately. Raises the LockboxError that `choose` raised when it saw all.
        """
        now, count = NEVER if shunned else trio.current_time(), self.params.candidates
        while True:
            try:
                return choose(self.members.candidates(address, now, count, without))
            except LockboxError:
                if count >= len(self.members):
                    raise
                count *= 2

    @property
    def regions(self) -> RegionTable:
        """The network's region table."""
        return self.rule_book.rules.regions

    def place(self, tier: Tier, address: bytes) -> dict[int, Candidate]:
        """Holders of a new stripe; who failed us lately only where the others do not suffice. As `core.placement`."""
        regions = self.regions
        try:
            return place(tier, address, self.candidates(address), regions=regions)
        except LockboxError:
            return self.chosen(address, lambda near: place(tier, address, near, regions=regions), shunned=True)

    async def approach(self, address: bytes, *, again: bool = False) -> bool:
        """Make sure that the nearest to `address` are in the view, by a lookup when too much is missing from it.

        Whether that was needed; `again` = with more paths and from others, since what was found last time was no use.
        """
        if not self.lookups.needed(len(self.members), self.members.complete):
            return False
        now, members = trio.current_time(), self.members
        near = members.nearest_verified(address, SEEDS, now)
        if again:
            near += members.nearest_verified(bytes(fresh(ID_BYTES, self.entropy)), SEEDS, now)
        seeds = [Known(member.signed, member.record) for member in near]
        members.take_found(await self.lookups.find(address, seeds, again=again))
        return True

    async def join(self, addresses: Sequence[str]) -> None:
        """Connect to one of `addresses` ("host:port"), the first that answers, and learn the members.

        PeerUnreachable when none answers in time.
        """
        first = await self._first_contact(addresses)
        try:
            views = [await self._sync(first)]
        except PeerUnreachable:
            if first.node not in self.rule_book.rules.revoked:
                raise
            await self.join(addresses)  # it is out, as it told us: from now on it is not dialled
            return
        self.members.merge(views)
        await self.locating.learn(first)
        await self._merge_others(views, without=first.node)

    async def refresh(self) -> None:
        """Read the members again, unless that was just done."""
        async with self._refreshing:
            if trio.current_time() < self._refreshed_at + self.params.refresh_s:
                return
            await self._merge_others([], without=b"")

    async def _merge_others(self, views: list[list[MemberUpdate]], without: bytes) -> None:
        """Hear as many more nodes, of distinct operators, as make SYNC_NODES; whoever is silent is left out."""
        near = self.members.nearest(bytes(fresh(ID_BYTES, self.entropy)), len(self.members), trio.current_time())
        spread = self.members.distinct_operators([one for one in near if one.record.node != without], SYNC_NODES)
        wanted = SYNC_NODES - len(views)

        async def one(member: Member) -> None:
            try:
                views.append(await self._sync(member.contact))
                await self.locating.learn(member.contact)
            except LockboxError:
                self.shun(member.record.node)

        with trio.move_on_after(self.params.refresh_s):
            async with trio.open_nursery() as nursery:
                for member in spread[:wanted]:
                    nursery.start_soon(one, member)
        if views:
            self.members.merge(views)
            self.locating.judge()
            self._refreshed_at = trio.current_time()

    async def _sync(self, contact: Contact) -> list[MemberUpdate]:
        """All pages of one node's member table."""
        updates: list[MemberUpdate] = []
        after = b""
        with trio.move_on_after(self.params.sync_s):
            for _ in range(PAGES_MAX):
                page = await self.pool.request(contact, SyncMembers([], after))
                assert isinstance(page, Members)
                if not after:
                    await self.rule_book.learn(contact, page.documents)
                updates += page.updates
                if not page.more or not page.updates:
                    return updates
                if len(updates) > self.params.lookup.members_max:
                    self.members.complete = False  # the rest is looked up when it is needed
                    return updates
                after = page.updates[-1].state.node
        raise PeerUnreachable("a node does not finish its member list", "try again")

    async def _first_contact(self, addresses: Sequence[str]) -> Contact:
        """Dial the addresses one after another, the next when one has failed or is slow; the first that answers."""
        if not addresses:
            raise PeerUnreachable("no address of the network is known", "give --bootstrap HOST:PORT")
        found: list[Contact] = []
        failures: list[LockboxError] = []
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + self.params.join_s

            async def dial(address: str, failed: trio.Event) -> None:
                host, _, port = address.rpartition(":")
                try:
                    if not address.isascii() or not host or not port.isdecimal():
                        raise PeerUnreachable(f"{address!r} is not host:port", "give --bootstrap HOST:PORT")
                    connection = await self.pool.connect_address(host, int(port))
                except LockboxError as error:
                    failures.append(error)
                    failed.set()
                else:
                    found.append(Contact(NodeId(connection.peer.id), (address,)))
                    nursery.cancel_scope.cancel()

            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(dial, address, failed)
                with trio.move_on_after(self.params.hedge_join_s):
                    await failed.wait()
        if found:
            return found[0]
        for error in failures:
            if not isinstance(error, PeerUnreachable):
                raise error
        raise PeerUnreachable(
            f"no known address of the network answers; tried: {len(addresses)}",
            "check the connection and --bootstrap, then try again",
        )


@asynccontextmanager
async def open_vault(
    ports: Ports,
    local: LocalIdentity,
    wallet: Wallet,
    addresses: Sequence[str],
    params: VaultParams | None = None,
    documents: Sequence[SignedDocument] = (),
) -> AsyncIterator[Vault]:
    """A vault that has joined the network by one of `addresses`; `documents` as Vault's. PeerUnreachable.

    Its connections outlive a cancelled body by as long as the body's shielded clean-up takes, so that an
    interrupted lock can still be undone.
    """
    vault = Vault(ports, local, wallet, params, documents)
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope(shield=True)
        await nursery.start(_keep_connected, vault, scope)
        try:
            await vault.join(addresses)
            yield vault
        finally:
            scope.cancel()


async def _keep_connected(vault: Vault, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
    with scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(vault.pool.run)
            nursery.start_soon(vault.rule_book.keep_up)
            nursery.start_soon(vault.ledger.keep_ahead)
            nursery.start_soon(vault.locating.keep_up)
            task_status.started()
