"""Fetch one stripe: enough good shards of every group, hedged, every byte checked against what the owner signed.

k holders are asked first; one that refuses, breaks, sends something false or moves no byte for a while brings in the
next. First k good shards of each group win. Real and decoy groups are fetched, checked and decoded alike, for nothing
here can tell them apart. Source: DESIGN, Client pipeline, Unlock.
"""

from __future__ import annotations

import hashlib
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import trio

from lockbox_node.client.replies import AGAIN_S_MIN, Replies, again_after_s
from lockbox_node.core.erasure import code
from lockbox_node.errors import LockboxError, NotEnoughShards
from protocol import merkle
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.messages import GetShards, Shards
from protocol.records import Descriptor, descriptor_hash, open_descriptor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lockbox_node.client.finding import SlotTable
    from lockbox_node.client.granting import Leave
    from lockbox_node.client.members import Member
    from lockbox_node.client.replies import Outcome
    from lockbox_node.client.vault import Vault
    from lockbox_node.core.derivation import AssetKey
    from lockbox_node.rpc.pool import Posted

WORKER_BYTES_MIN = 512 * 1024  # of shards to hash: below, a thread costs more than it gives
GRANT_CODES = frozenset(code for code in ErrorCode if code.startswith("GRANT"))
LATER = (ErrorCode.BUSY, ErrorCode.RATE_LIMITED)
MORE_GRANTS = GRANT_CODES - {ErrorCode.GRANT_REPLAYED}
WIDEN_TRIES = 8  # then the holder's own word counts
GRANTS_AGAIN_S = 0.3  # while further verifiers are asked
LATER_S_MAX = 600.0  # whatever a holder says
TRIES_MAX = 20  # of one holder that asks us to come back later
NEVER = float("inf")


class Attempt:
    """One holder asked for its part. Times are trio's."""

    __slots__ = ("again_at", "hedged", "index", "member", "posted", "posted_at", "tries")

    def __init__(self, index: int, member: Member) -> None:
        self.index = index
        self.member = member
        self.posted: Posted | None = None
        self.posted_at = 0.0
        self.again_at = NEVER
        self.hedged = False
        self.tries = 0


class Fetch:
    """The parts of one slot identity. `run` it, then `groups` and `slots` are there."""

    def __init__(self, vault: Vault, key: AssetKey, table: SlotTable, leave: Leave) -> None:
        self.descriptor: Descriptor | None = None
        self.slots: tuple[bytes, ...] = ()
        self.fetched = 0  # parts that were good, whole or in part
        self.corrupt = 0
        self.missing = 0
        self._vault = vault
        self._key = key
        self._table = table
        self._leave = leave
        self._ungranted: list[LockboxError] = []  # what holders said to our grants
        self._later: dict[int, LockboxError] = {}  # by index: what was said by who wants to be asked later
        self._good: list[dict[int, bytes]] = []
        self._waiting = deque(self._order())
        self._pending: list[Attempt] = []
        self._replies: Replies[Attempt] = Replies()

    @property
    def needed(self) -> int:
        """k, or 0 while no descriptor was seen."""
        return self.descriptor.k if self.descriptor is not None else 0

    async def run(self, k: int) -> None:
        """Fetch until every group has enough shards; `k` is how many holders are asked first.

        NotEnoughShards when all were asked in vain.
        """
        try:
            await self._gather(k)
        finally:
            for attempt in self._pending:
                if attempt.posted is not None:
                    attempt.posted.forget()

    async def _gather(self, k: int) -> None:
        self._ask(k)
        moved_at = trio.current_time()
        while not self._complete():
            if self._is_hopeless(moved_at):
                raise self._short(k)
            for attempt, outcome in await self._replies.take(self._next_moment(moved_at)):
                if attempt in self._pending:
                    moved_at = trio.current_time()
                    await self._judge(attempt, outcome)
            moved_at = max([moved_at, *(self._progress(attempt) for attempt in self._pending)])
            if trio.current_time() >= moved_at + self._vault.params.get_s and not self._complete():
                raise self._short(k)
            self._look_after()

    def _is_hopeless(self, moved_at: float) -> bool:
        """Nobody will say anything in time: all have answered, or want to be asked too late."""
        limit = moved_at + self._vault.params.get_s
        return not any(attempt.again_at == NEVER or attempt.again_at < limit for attempt in self._pending)

    def decode(self, group: int, length: int) -> memoryview:
        """The first `length` bytes of a group."""
        assert self.descriptor is not None
        return code(self.descriptor.k, self.descriptor.n).decode(self._good[group], length)

    def _order(self) -> Iterable[tuple[int, Member]]:
        """Whom to ask: live ones first, of them one holder of each index, of them those that will answer soonest.

        Who has granted comes last of its kind: its own grant does not count with it.
        """
        vault, now = self._vault, trio.current_time()
        known = [
            (
                not vault.members.is_live(node, now),
                vault.expected_s(member),
                vault.pool.ready(node) is None,
                index,
                node,
            )
            for index, node in self._table.holders
            if (member := vault.members.get(node)) is not None
        ]
        taken: dict[int, int] = {}
        ranked: list[tuple[bool, int, bool, float, bool, int, bytes]] = []
        for away, expected_s, cold, index, node in sorted(known):
            rank = taken.get(index, 0)
            taken[index] = rank + 1
            ranked.append((away, rank, self._leave.is_by(node), expected_s, cold, index, node))
        for *_, index, node in sorted(ranked):
            member = vault.members.get(node)
            assert member is not None
            yield index, member

    def _ask(self, count: int) -> None:
        """Ask the next `count` holders of indices that are still wanted."""
        while count > 0 and self._waiting:
            index, member = self._waiting.popleft()
            if any(index in group for group in self._good):
                continue
            count -= 1
            attempt = Attempt(index, member)
            self._pending.append(attempt)
            self._post(attempt)

    def _post(self, attempt: Attempt) -> None:
        attempt.posted_at, attempt.again_at = trio.current_time(), NEVER
        attempt.tries += 1
        grants = self._leave.grants_for(attempt.member.record.node, all_of_them=attempt.tries > 1)
        request = GetShards(self._key.address, self._table.descriptor_hash, self._leave.request, grants)
        attempt.posted = self._vault.post(attempt.member, request, self._replies.answer_to(attempt))

    def _hedge_s(self) -> float:
        return max(self._vault.params.hedge_get_s, 4 * self._vault.usual_s(GetShards))

    def _progress(self, attempt: Attempt) -> float:
        return attempt.posted.last_progress if attempt.posted is not None else attempt.posted_at

    def _next_moment(self, moved_at: float) -> float:
        moments = [moved_at + self._vault.params.get_s]
        for attempt in self._pending:
            if attempt.again_at < NEVER:
                moments.append(attempt.again_at)
            elif not attempt.hedged and self._waiting:
                moments.append(self._progress(attempt) + self._hedge_s())
        return min(moments)

    def _look_after(self) -> None:
        now = trio.current_time()
        for attempt in list(self._pending):
            if attempt.again_at <= now:
                self._post(attempt)
            elif attempt.again_at == NEVER and not attempt.hedged and self._progress(attempt) + self._hedge_s() <= now:
                attempt.hedged = True
                self._vault.nearness.late(attempt.member.record, now - attempt.posted_at)
                self._ask(1)

    async def _judge(self, attempt: Attempt, outcome: Outcome) -> None:
        attempt.posted = None  # its answer holds this attempt: a cycle
        if isinstance(outcome, LockboxError):
            again_s = again_after_s(outcome)
            self._later.pop(attempt.index, None)
            if outcome.code in LATER:
                self._later[attempt.index] = outcome
            if outcome.code in MORE_GRANTS:  # then with every grant that has come
                hopeful = self._leave.widen()
                if attempt.tries == 1:
                    again_s = AGAIN_S_MIN
                elif hopeful and attempt.tries < WIDEN_TRIES:
                    again_s = GRANTS_AGAIN_S
            if again_s is not None and attempt.tries < TRIES_MAX:
                attempt.again_at = trio.current_time() + again_s
                if not attempt.hedged:
                    attempt.hedged = True
                    self._ask(1)
                return
            self._pending.remove(attempt)
            self._count(outcome)
            self._ask(1)
            return
        self._pending.remove(attempt)
        assert isinstance(outcome, Shards)
        self._leave.spent = True
        if not await self._take(attempt, outcome):
            self.corrupt += 1
            self._ask(1)

    def _count(self, error: LockboxError) -> None:
        if error.code in (ErrorCode.SHARD_CORRUPT, ErrorCode.PROOF_INVALID):
            self.corrupt += 1
        else:
            self.missing += 1
        if error.code in GRANT_CODES:
            self._ungranted.append(error)

    async def _take(self, attempt: Attempt, reply: Shards) -> bool:
        """Keep what is good of a reply; False when anything about it is false."""
        if descriptor_hash(reply.descriptor) != self._table.descriptor_hash or reply.index != attempt.index:
            return False
        if self.descriptor is None and not self._open(reply):
            return False
        descriptor = self.descriptor
        assert descriptor is not None
        if not self.slots and [hashlib.sha256(slot).digest() for slot in reply.slots] == descriptor.slot_hashes:
            self.slots = tuple(reply.slots)
        if len(reply.shards) != len(descriptor.groups) or reply.index >= descriptor.n:
            return False
        check = partial(_good_groups, descriptor, reply)
        large = sum(map(len, reply.shards)) >= WORKER_BYTES_MIN
        good = await self._vault.workers.run(check) if large else check()
        for group in good:
            self._good[group][reply.index] = reply.shards[group]
        self.fetched += bool(good)
        return len(good) == len(reply.shards)

    def _open(self, reply: Shards) -> bool:
        try:
            descriptor = open_descriptor(reply.descriptor)
        except RemoteProtocolError:
            return False
        if descriptor.public_key != self._key.public_key or descriptor.version != self._table.version:
            return False
        self.descriptor = descriptor
        self._good = [{} for _ in descriptor.groups]
        return True

    def _complete(self) -> bool:
        descriptor = self.descriptor
        if descriptor is None or not self.slots:
            return False
        return all(len(group) >= descriptor.k for group in self._good)

    def _short(self, k: int) -> LockboxError:
        reached = min((len(group) for group in self._good), default=0)
        if self._ungranted and reached + len(self._ungranted) >= (self.needed or k):
            return self._ungranted[0]
        later = [error for index, error in self._later.items() if not any(index in group for group in self._good)]
        if later and reached + len(later) >= (self.needed or k):
            return _come_again(later, (self.needed or k) - reached)
        placed = len({index for index, _ in self._table.holders})
        needed = self.needed or k
        corrupt = f", {self.corrupt} of them corrupt" if self.corrupt else ""
        return NotEnoughShards(
            f"{reached} of {needed} needed shards of this asset can be reached ({placed} were placed{corrupt})",
            "start more holders, or wait and try again",
        )


def _come_again(later: list[LockboxError], missing: int) -> LockboxError:
    """What to tell when the holders are there and serve later: when so many of them do as are missing."""
    waits = sorted(later, key=lambda error: error.retry_after_s)
    last = waits[missing - 1]
    wait_s = min(max(AGAIN_S_MIN, last.retry_after_s), LATER_S_MAX)
    why = "were asked for it too often" if last.code is ErrorCode.RATE_LIMITED else "are busy or have just started"
    error = LockboxError(
        f"enough holders of this asset are there, but {why}", f"try again in {max(1.0, wait_s):.0f} s", last.code
    )
    error.retry_after_s = wait_s
    return error


def _good_groups(descriptor: Descriptor, reply: Shards) -> list[int]:
    """The groups whose shard is what the owner signed."""
    return [
        number
        for number, (group, shard) in enumerate(zip(descriptor.groups, reply.shards, strict=True))
        if len(shard) == descriptor.shard_bytes
        and merkle.root(shard, descriptor.leaf_bytes) == group.shard_ids[reply.index]
    ]
