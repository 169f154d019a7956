"""Put one stripe durably onto its holders: one request each, all in parallel, callbacks and no task per holder.

A holder that refuses, breaks or makes no progress for `stall_s` is replaced by the next eligible one, so that a hung
node costs a second and not the lock. Where nobody can replace it, it is waited for a while longer; what comes late from
a replaced one counts while nobody else has the index. When anybody was replaced, the final holder table is told to all.
What the put has touched is kept, for the undo. Source: DESIGN, Client pipeline, Lock.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, cast

import trio

from lockbox_node.client.proofs import sibling_of, taken_by
from lockbox_node.client.replies import Replies, again_after_s
from lockbox_node.core.placement import replacement
from lockbox_node.errors import LockboxError, RequestRefused
from lockbox_node.ports import entries_of
from protocol.errors import ErrorCode
from protocol.messages import HolderTable, PutStripe, Stored, TellHolders

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lockbox_node.client.replies import Outcome
    from lockbox_node.client.stripes import Stripe
    from lockbox_node.client.vault import Vault
    from lockbox_node.core.placement import Candidate, Kept
    from lockbox_node.rpc.pool import Posted
    from protocol.messages import HolderEntry

TRIES_MAX = 20  # of one holder that asks us to come back later
REPLACED_PER_INDEX_MAX = 6
NEVER = float("inf")


class Attempt:
    """One holder asked to keep one shard index. Times are trio's."""

    __slots__ = ("again_at", "alone", "holder", "index", "posted", "posted_at", "tries")

    def __init__(self, index: int, holder: Candidate) -> None:
        self.index = index
        self.holder = holder
        self.posted: Posted | None = None
        self.posted_at = 0.0
        self.again_at = NEVER
        self.tries = 0
        self.alone = False  # nobody can replace it


class StripePut:
    """The put of one stripe; `run` it, then read what became of it."""

    def __init__(
        self, vault: Vault, stripe: Stripe, holders: dict[int, Candidate], *, siblings_matter: bool = True
    ) -> None:
        self.stripe = stripe
        self.stored: dict[int, Candidate] = {}
        self.touched: set[bytes] = set()  # everybody who may keep something
        self.acknowledged: set[bytes] = set()  # everybody who does
        self.siblings = False  # another descriptor of this version stands at this address
        self.taken = False  # a tombstone or a higher version stands there
        self.refusals: list[LockboxError] = []
        self._vault = vault
        self._siblings_matter = siblings_matter
        self._holders = dict(holders)  # who is to keep which index; replaced ones are gone
        self._pending: dict[bytes, Attempt] = {}
        self._replies: Replies[Attempt] = Replies()
        self._failed: set[bytes] = set()
        self._doubtful: dict[bytes, Kept] = {}  # replaced ones that may store their shard all the same
        self._replaced = 0
        self._table: list[HolderEntry] | None = None
        self._sequence = 1
        self._excused_until = 0.0

    @property
    def in_use(self) -> bool:
        """Whether somebody with our key has used this address before us."""
        return (self.siblings and self._siblings_matter) or self.taken

    async def run(self) -> None:
        """Return when every index is durable, or nobody is left to try, or the address turned out to be in use."""
        for index, holder in list(self._holders.items()):
            self._ask(Attempt(index, holder))
        while self._pending and not self.in_use:
            moment = self._next_moment()
            for attempt, outcome in await self._replies.take(moment):
                self._judge(attempt, outcome)
            self._excuse(moment)
            self._look_after()
        if self._replaced and self.stored and not self.in_use:
            await self._tell()

    async def drain(self, deadline: float) -> None:
        """Take the answers that are still to come, until `deadline` (trio time); nobody is replaced any more."""
        self._replaced = REPLACED_PER_INDEX_MAX * self.stripe.tier.n
        while self._replies.pending and (come := await self._replies.take(deadline)):
            for attempt, outcome in come:
                self._judge(attempt, outcome)

    def refusal(self, consequence: str) -> LockboxError:
        """Why too few holders took the stripe: what most of them said, else how many were missing."""
        tier = self.stripe.tier
        refused = [error for error in self.refusals if isinstance(error, RequestRefused)]
        common = Counter(error.code for error in refused).most_common(1)
        said = f"only {len(self.stored)} of {tier.n} holders stored a stripe, {tier.durable_min} are needed"
        if common and common[0][1] > tier.n - tier.durable_min:
            error = next(error for error in refused if error.code == common[0][0])
            return LockboxError(f"{said}; most refused: {error.message}; {consequence}", error.hint, error.code)
        hint = "try again when more nodes are reachable"
        return LockboxError(f"{said}; {consequence}", hint, ErrorCode.INSUFFICIENT_NODES)

    def release(self) -> None:
        """Let go of the shards; what is needed for an undo stays."""
        self.stripe = self.stripe.without_shards()

    def _ask(self, attempt: Attempt) -> None:
        stripe, node = self.stripe, attempt.holder.node
        self._pending[node] = attempt
        attempt.posted_at, attempt.again_at = trio.current_time(), NEVER
        attempt.tries += 1
        member = self._vault.members.get(node)
        if member is None:
            self._fail(attempt, doubtful=False)
            return
        self.touched.add(node)
        shards = cast("list[bytes]", list(stripe.shards[attempt.index]))  # any buffer encodes as bytes do
        request = PutStripe(stripe.descriptor, list(stripe.slots), attempt.index, shards, self._entries())
        attempt.posted = self._vault.post(member, request, self._replies.answer_to(attempt))

    def _entries(self) -> list[HolderEntry]:
        """The table as it is planned now; made once for all who are asked between two changes."""
        if self._table is None:
            places = ((index, one.node) for index, one in self._holders.items())
            self._table = list(entries_of(places, self._sequence))
        return self._table

    def _assign(self, index: int, holder: Candidate) -> None:
        self._holders[index] = holder
        self._table = None

    def _next_moment(self) -> float:
        """When the next holder counts as stalled, or may be asked again."""
        return min(min(attempt.again_at, self._stalls_at(attempt)) for attempt in self._pending.values())

    def _stalls_at(self, attempt: Attempt) -> float:
        if attempt.again_at < NEVER:
            return NEVER
        params = self._vault.params
        progress = attempt.posted.last_progress if attempt.posted is not None else attempt.posted_at
        stall_s = params.patience_s if attempt.alone else params.stall_s
        return min(max(progress + stall_s, self._excused_until), attempt.posted_at + params.put_s)

    def _excuse(self, moment: float) -> None:
        """When we come late ourselves, on a busy machine, nobody else is blamed for it: all get their time again."""
        now = trio.current_time()
        if now > moment + self._vault.params.stall_s / 4:
            self._excused_until = now + self._vault.params.stall_s

    def _judge(self, attempt: Attempt, outcome: Outcome) -> None:
        node = attempt.holder.node
        attempt.posted = None  # it holds the shards, and through its answer this attempt: a cycle
        current = self._pending.get(node) is attempt
        if isinstance(outcome, Stored):
            self.acknowledged.add(node)
            self.siblings |= any(sibling_of(self.stripe, other) for other in outcome.siblings)
            if current:
                del self._pending[node]
            if attempt.index not in self.stored and (current or self._may_return(attempt)):
                self.stored[attempt.index] = attempt.holder
                if not current:
                    self._assign(attempt.index, attempt.holder)
            return
        assert isinstance(outcome, LockboxError)
        refused = isinstance(outcome, RequestRefused)
        if isinstance(outcome, RequestRefused):
            self._doubtful.pop(node, None)
            self.taken |= taken_by(self.stripe, outcome)
        again_s = again_after_s(outcome)
        if not current:
            return  # replaced already
        if again_s is not None and attempt.tries < TRIES_MAX:
            attempt.again_at = trio.current_time() + again_s
            return
        self.refusals.append(outcome)
        self._fail(attempt, doubtful=not refused)

    def _may_return(self, attempt: Attempt) -> bool:
        """Whether a replaced holder that answered late may keep its index: nobody else has it, and it is legal."""
        if attempt.index in self._holders:
            return False
        try:
            self._replacement([attempt.holder], attempt.index)
        except LockboxError:
            return False
        return True

    def _look_after(self) -> None:
        now = trio.current_time()
        for attempt in list(self._pending.values()):
            if attempt.again_at <= now:
                self._ask(attempt)
            elif self._stalls_at(attempt) <= now:
                self._vault.shun(attempt.holder.node)
                self._fail(attempt, patient=not attempt.alone and now < attempt.posted_at + self._vault.params.put_s)

    def _fail(self, attempt: Attempt, *, patient: bool = False, doubtful: bool = True) -> None:
        """Give the index to the next eligible node; without one it stays open, or with whom we can be `patient`."""
        del self._holders[attempt.index]
        self._table = None
        self._failed.add(attempt.holder.node)
        if doubtful:
            self._doubtful[attempt.holder.node] = (attempt.index, attempt.holder)
        holder = self._next_holder(attempt.index)
        if holder is None and patient:
            self._doubtful.pop(attempt.holder.node)
            attempt.alone = True
            self._assign(attempt.index, attempt.holder)
            return
        del self._pending[attempt.holder.node]
        if holder is not None:
            self._replaced += 1
            self._assign(attempt.index, holder)
            self._ask(Attempt(attempt.index, holder))

    def _next_holder(self, index: int) -> Candidate | None:
        if self._replaced >= REPLACED_PER_INDEX_MAX * self.stripe.tier.n:
            return None
        try:
            return self._vault.chosen(
                self.stripe.address, lambda near: self._replacement(near, index), without=self._failed
            )
        except LockboxError as error:
            self.refusals.append(error)
            return None

    def _replacement(self, candidates: Iterable[Candidate], index: int) -> Candidate:
        """Who of these may hold `index` beside the other holders; as core.placement."""
        tier, address, doubtful = self.stripe.tier, self.stripe.address, self._doubtful.values()
        return replacement(tier, address, candidates, self._holders, index, doubtful, self._vault.regions)

    async def _tell(self) -> None:
        """Give every holder the final table; those who do not answer in time learn it from one another."""
        self._sequence += 1
        self._table = None
        stripe, vault = self.stripe, self._vault
        table = HolderTable(stripe.address, stripe.version, stripe.descriptor_hash, self._entries())
        claim = vault.claim(stripe.key, TellHolders)
        replies: Replies[bytes] = Replies()
        for holder in self.stored.values():
            member = vault.members.get(holder.node)
            if member is not None:
                vault.post(member, TellHolders([table], claim), replies.answer_to(holder.node))
        deadline = trio.current_time() + vault.params.stall_s
        while replies.pending and await replies.take(deadline):
            pass
