"""What a holder asks before it hands out shards: the asset key's request, enough grants for it, and that both are new.

A holder goes by its own view of the members alone (core.grants). One request is served once by each holder, whichever
grants come with it, and one requester so often as honest verifiers let it (core.paces); what was served is journalled,
so that a restart serves it no second time and no sooner. A node that rebuilds shows no request: it is served when our
own table of that slot names it (services.storage). Source: SPEC.md, Grants.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import trio

from lockbox_node.core.admission import CLAIM_AHEAD_S
from lockbox_node.core.grants import judge_request, needed, require_grants, target_of
from lockbox_node.core.paces import WINDOW_S, Paces
from lockbox_node.core.spent import SERVED_HERE, Spent, unpacked, use_of
from lockbox_node.core.tiers import tier_numbered
from lockbox_node.errors import LockboxError
from protocol.certificates import Role
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.messages import NUMBERS, GetShards
from protocol.records import open_grant_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.core.grants import Around
    from lockbox_node.core.spent import Use
    from lockbox_node.ports import Journal, WallClock
    from lockbox_node.rpc.hello import Peer
    from protocol.certificates import NetworkRoot
    from protocol.grants import GrantRequest

GET_SHARDS = NUMBERS[GetShards]


class Redeeming:
    """Judges who may have shards. `counts`: served, and refusals by their code."""

    def __init__(
        self,
        root: NetworkRoot,
        around: Callable[[], Around],
        clock: WallClock,
        journal: Journal,
        now: Callable[[], float] = trio.current_time,
    ) -> None:
        """`now` never falls, whatever becomes of the wall clock."""
        self.counts: Counter[str] = Counter()
        self._root, self._around, self._clock, self._journal, self._now = root, around, clock, journal, now
        self._spent = recalled(journal, SERVED_HERE, clock.now_unix_s())
        self._paces = Paces()
        for use, served_at in lately(journal, SERVED_HERE, clock.now_unix_s(), now()):
            self._paces.recall(use, served_at)

    def opened(self, request: GetShards, peer: Peer) -> GrantRequest | None:
        """What the asset key asks for, its signature checked; None for a node that shows nothing.

        LockboxError when it does not hold.
        """
        try:
            if request.access is None:
                if peer.role is Role.NODE:
                    return None
                raise LockboxError(
                    "this needs a request signed by the asset's key", "sign one", ErrorCode.ACCESS_DENIED
                )
            wish = open_grant_request(request.access)
            judge_request(wish, request.address, GET_SHARDS, peer.id, self._clock.now_unix_s())
        except (LockboxError, RemoteProtocolError) as refusal:
            raise self._counted(refusal) from None
        return wish

    def redeem(self, wish: GrantRequest, request: GetShards, tier: int, peer: Peer) -> None:
        """The shards may go out now, and this request is used up here. LockboxError: they may not, and nothing
        is used up.
        """
        now_unix_s = self._clock.now_unix_s()
        use = use_of(SERVED_HERE, wish, peer.rate_key, now_unix_s, guest=peer.role is Role.GUEST)
        around = self._around()
        named = tier_numbered(tier)
        try:
            wanted = needed(named.quorum, target_of(request.address), around)
            require_grants(self._root, request.grants, wish, wanted, around, now_unix_s)
            self._spent.require_new(use, now_unix_s)
            _require_pace(self._paces.shards(use, named, self._now()))
        except (LockboxError, RemoteProtocolError) as refusal:
            raise self._counted(refusal) from None
        self._spent.add(use)
        self._journal.append(use.packed())
        self.counts["served"] += 1

    def check_proof(self, address: bytes, peer: Peer, *, claimed: bool) -> None:
        """LockboxError(RATE_LIMITED) when a peer had proofs too often: by the asset key's claim, or as our table names
        it.
        """
        wait_s = self._paces.proof(address, peer.rate_key, self._now(), claimed=claimed, guest=peer.role is Role.GUEST)
        try:
            _require_pace(wait_s)
        except LockboxError as refusal:
            raise self._counted(refusal) from None

    def _counted(self, refusal: LockboxError | RemoteProtocolError) -> LockboxError:
        self.counts[refusal.code.value] += 1
        return refusal if isinstance(refusal, LockboxError) else LockboxError(str(refusal), code=refusal.code)


def _require_pace(wait_s: float) -> None:
    if wait_s:
        error = LockboxError(
            f"you read this address too often within {WINDOW_S:.0f} s", f"wait {wait_s:.0f} s", ErrorCode.RATE_LIMITED
        )
        error.retry_after_s = wait_s
        raise error


def lately(journal: Journal, kind: int, now_unix_s: float, now: float) -> list[tuple[Use, float]]:
    """The uses of a kind that earlier lives saw within the window, oldest first, and when that was by `now`'s clock."""
    uses = [use for record in journal.kept() if (use := unpacked(record)) is not None and use.kind == kind]
    recent = [use for use in uses if now_unix_s - use.seen_unix_s < WINDOW_S]
    recent.sort(key=lambda use: use.seen_unix_s)
    return [(use, min(now, now - (now_unix_s - use.seen_unix_s))) for use in recent]


def recalled(journal: Journal, kind: int, now_unix_s: float) -> Spent:
    """The uses of a kind that earlier lives kept."""
    spent = Spent()
    for record in journal.kept():
        use = unpacked(record)
        if use is not None and use.kind == kind:
            spent.add(use)
    if not journal.whole:
        spent.distrust(now_unix_s, CLAIM_AHEAD_S)
    return spent
