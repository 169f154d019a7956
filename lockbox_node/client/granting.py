"""Ask verifiers for leave to fetch one stripe: a quorum of grants, of distinct operators, as fast as they come.

The asset key signs one request; it goes to as many verifiers as the tier names at once, and to the next candidate when
one is slow, silent, or answers what does not hold. One that says "too often" is asked again when that is in a moment,
as it is when it limits its peers and not this asset. Else it may lie: it is replaced as soon as another has granted,
unless we know of ourselves that it is true; nobody granting is believed. So an honest client escapes no limit; holders
bound the others. When every candidate was asked, what there is must do: a holder asks no more grants than there are
live candidates in its own view. Source: DESIGN, Client pipeline, Unlock; SPEC.md, Grants.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from lockbox_node.client.chance import fresh
from lockbox_node.client.replies import AGAIN_S_MIN, Replies
from lockbox_node.core.admission import CLAIM_AHEAD_S
from lockbox_node.core.grants import LIFE_S, NEAR, independent, is_quorum, target_of, verifier_order
from lockbox_node.core.paces import WINDOW_S
from lockbox_node.errors import LockboxError, PeerUnreachable
from protocol.certificates import verify_grant
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.grants import GrantRequest
from protocol.messages import GRANTS_MAX, NUMBERS, AskGrant, GetShards, Signed
from protocol.records import sign

if TYPE_CHECKING:
    from collections.abc import Container

    from lockbox_node.client.members import Member
    from lockbox_node.client.replies import Outcome
    from lockbox_node.client.vault import Vault
    from lockbox_node.core.derivation import AssetKey
    from lockbox_node.core.placement import Candidate
    from lockbox_node.core.tiers import Tier
    from lockbox_node.rpc.pool import Posted

NONCE_BYTES = 32
NEVER = float("inf")
MOMENT_S = 1.0  # a verifier that wants to be asked again so soon is asked again
TRIES_MAX = 4  # of one verifier
LIMITED_PER_VERIFIER = 2  # of the verifiers that a tier asks: when so many times as many say "too often", we stop


@dataclass(frozen=True, slots=True)
class VerifierCounts:
    """Of a stripe, or of the stripe of an asset that had the fewest: verifiers that granted, the tier's quorum, how
    many were asked, and how many of the granters hold nothing of it and are of distinct operators and regions.
    """

    granted: int = 0
    quorum: int = 0
    asked: int = 0
    independent: int = 0

    def weaker(self, other: VerifierCounts) -> VerifierCounts:
        """Of two stripes of one asset: what can be said of both. `other` may be that of none."""
        if other.quorum == 0:
            return self
        return VerifierCounts(
            min(self.granted, other.granted),
            self.quorum,
            max(self.asked, other.asked),
            min(self.independent, other.independent),
        )


class _Asked:
    """One verifier that was asked. Times are trio's. `hedged`: the next one was asked in its place too."""

    __slots__ = ("again_at", "hedged", "member", "posted", "posted_at", "tries")

    def __init__(self, member: Member) -> None:
        self.member = member
        self.posted: Posted | None = None
        self.posted_at = 0.0
        self.again_at = NEVER
        self.hedged = False
        self.tries = 0


def verifiers_near(vault: Vault, address: bytes, holders: Container[bytes]) -> list[Candidate]:
    """Whom to ask about an address, best first; who failed us lately comes last."""
    now = trio.current_time()
    near = [member.candidate for member in vault.members.nearest(target_of(address), NEAR, now)]
    live = [one for one in near if vault.members.is_live(one.node, now)]
    rest = [one for one in near if not vault.members.is_live(one.node, now)]
    return [*verifier_order(live, holders), *rest]


class Leave:
    """Leave to fetch one stripe once from each of its holders. Asks at once; wait for `quorum` before `grants_for`."""

    def __init__(self, vault: Vault, key: AssetKey, tier: Tier) -> None:
        nonce = bytes(fresh(NONCE_BYTES, vault.entropy))
        self._wish = GrantRequest(key.public_key, NUMBERS[GetShards], vault.own_id, nonce, int(vault.now_unix_s()))
        self.request: Signed = sign(self._wish, key)
        self.asked = 0
        self.spent = False  # some holder has served for it: it serves no second time
        self._vault = vault
        self._tier = tier
        self._granted: dict[bytes, tuple[Candidate, Signed]] = {}
        self._limited: list[LockboxError] = []
        self._owed = 0  # of these, how many are not replaced yet
        self._refused: list[LockboxError] = []
        self._pending: list[_Asked] = []
        self._replies: Replies[_Asked] = Replies()
        now = trio.current_time()
        self._over = vault.restraint.is_over(key.address, now)  # by our own count
        # Who holds the stripe is not known yet: most likely those who would be given it now.
        holders = {one.node for one in vault.members.candidates(key.address, now, tier.n)}
        self._waiting = deque(verifiers_near(vault, key.address, holders))
        self._address = key.address
        self._ask(tier.verifiers)

    async def quorum(self) -> None:
        """Wait until there are enough grants for every holder, or every candidate was asked and there is at least one.

        LockboxError: RATE_LIMITED when the rate of verifiers stands in the way, what they answered when none granted,
        PeerUnreachable when none answered.
        """
        deadline = trio.current_time() + self._vault.params.grant_s
        while not self._is_enough():
            over = not self._pending or trio.current_time() >= deadline
            if self._limited and (over or self._is_limit()):
                raise self._too_often()
            if over and self._granted:
                return
            if over:
                raise self._none()
            for asked, outcome in await self._replies.take(min(deadline, self._next_moment())):
                self._judge(asked, outcome)
            self._look_after()

    def grants_for(self, holder: bytes, *, all_of_them: bool = False) -> list[Signed]:
        """What to show a holder, whose own grant does not count with it: a quorum, or all that fit; distinct operators
        first.
        """
        self._look()
        first: dict[str, Signed] = {}
        further: list[Signed] = []
        for node, (candidate, signed) in self._granted.items():
            if node == holder:
                continue
            if candidate.operator in first:
                further.append(signed)
            else:
                first[candidate.operator] = signed
        return [*first.values(), *further][: GRANTS_MAX if all_of_them else self._tier.quorum]

    def widen(self) -> bool:
        """A holder wants more than these grants: ask one more verifier, unless one that was asked lately may answer.

        False when everybody was asked and nobody's answer is awaited.
        """
        self._look()
        late_at = trio.current_time() - self._hedge_s()
        if all(asked.hedged or asked.posted_at <= late_at for asked in self._pending):
            for asked in self._pending:
                asked.hedged = True
            self._ask(1)
        return bool(self._pending)

    def is_by(self, holder: bytes) -> bool:
        """Whether one of the grants is this node's own."""
        self._look()
        return holder in self._granted

    def counts(self, holders: Container[bytes]) -> VerifierCounts:
        """What to say of it, once it is known who holds the stripe."""
        granters = [candidate for candidate, _ in self._granted.values()]
        return VerifierCounts(len(granters), self._tier.quorum, self.asked, independent(granters, holders))

    def forget(self) -> None:
        """Nobody waits for what is still under way."""
        for asked in self._pending:
            if asked.posted is not None:
                asked.posted.forget()
        self._pending.clear()

    def _is_limit(self) -> bool:
        """Whether "too often" is believed, whatever others may still say."""
        if self._over:
            return bool(self._limited) and len(self._granted) + len(self._pending) < self._tier.quorum
        return len(self._limited) >= (LIMITED_PER_VERIFIER if self._granted else 1) * self._tier.verifiers

    def _too_often(self) -> LockboxError:
        """When so many of them grant again that there is a quorum with those who did now. Nobody's wait is longer than
        the window.
        """
        waits = sorted(self._limited, key=lambda refusal: refusal.retry_after_s)
        missing = max(1, self._tier.quorum - len(self._granted))
        refusal = waits[min(missing, len(waits)) - 1]
        refusal.retry_after_s = min(refusal.retry_after_s, WINDOW_S)
        return refusal

    def _is_enough(self) -> bool:
        return is_quorum([candidate.operator for candidate, _ in self._granted.values()], self._tier.quorum)

    def _ask(self, count: int) -> None:
        members = self._vault.members
        while count > 0 and self._waiting:
            member = members.get(self._waiting.popleft().node)
            if member is None or not members.verify(member.record.node):
                continue
            count -= 1
            self.asked += 1
            asked = _Asked(member)
            self._pending.append(asked)
            self._post(asked)

    def _post(self, asked: _Asked) -> None:
        asked.posted_at, asked.again_at = trio.current_time(), NEVER
        asked.tries += 1
        asked.posted = self._vault.post(asked.member, AskGrant(self.request), self._replies.answer_to(asked))

    def _hedge_s(self) -> float:
        return max(self._vault.params.hedge_get_s, 4 * self._vault.usual_s(AskGrant))

    def _next_moment(self) -> float:
        waits = [asked.posted_at + self._hedge_s() for asked in self._pending if not asked.hedged and self._waiting]
        return min([*waits, *(asked.again_at for asked in self._pending)], default=NEVER)

    def _look_after(self) -> None:
        now = trio.current_time()
        for asked in list(self._pending):
            if asked.again_at <= now:
                self._post(asked)
            elif not asked.hedged and asked.posted_at + self._hedge_s() <= now:
                asked.hedged = True
                self._ask(1)
        if self._is_enough() or self._is_limit() or (self._limited and self._over):
            return
        if self._owed and self._granted:
            self._ask(self._owed)
            self._owed = 0
        # Grants of one operator twice: the quorum is short of operators, and nobody else is under way.
        if not self._pending and self._granted:
            self._ask(1)

    def _look(self) -> None:
        """Take in what has come meanwhile, without waiting."""
        for asked, outcome in self._replies.come():
            self._judge(asked, outcome)

    def _judge(self, asked: _Asked, outcome: Outcome) -> None:
        if asked not in self._pending:
            return
        self._pending.remove(asked)
        asked.posted = None
        if isinstance(outcome, Signed):
            refusal = self._take(asked.member, outcome)
            if refusal is None:
                return
            self._vault.shun(asked.member.record.node)
        else:
            assert isinstance(outcome, LockboxError)
            refusal = outcome
        if refusal.code is ErrorCode.RATE_LIMITED:
            if refusal.retry_after_s <= MOMENT_S and asked.tries < TRIES_MAX:
                asked.again_at = trio.current_time() + max(AGAIN_S_MIN, refusal.retry_after_s)
                self._pending.append(asked)
                return
            self._limited.append(refusal)
            self._owed += not asked.hedged
            return
        self._refused.append(refusal)
        if not asked.hedged:
            self._ask(1)

    def _take(self, member: Member, signed: Signed) -> LockboxError | None:
        """Keep a grant that its holders will believe; else what is wrong with it."""
        try:
            grant, signer = verify_grant(self._vault.local.root, signed)
        except RemoteProtocolError as error:
            return LockboxError(str(error), code=error.code)
        wish, said = self._wish, (grant.address, grant.requester, grant.operation, grant.nonce)
        if signer.id != member.record.node or said != (self._address, wish.requester, wish.operation, wish.nonce):
            return LockboxError("a verifier granted something else", code=ErrorCode.GRANT_INVALID)
        if not 0 < grant.expires_unix_s - self._vault.now_unix_s() <= LIFE_S + CLAIM_AHEAD_S:
            return LockboxError("a verifier's clock is off", code=ErrorCode.GRANT_EXPIRED)
        self._granted[signer.id] = member.candidate, signed
        return None

    def _none(self) -> LockboxError:
        answered = [error for error in self._refused if not isinstance(error, PeerUnreachable)]
        busy = sorted(error.retry_after_s for error in answered if error.code is ErrorCode.BUSY)
        if busy:
            wait_s = min(busy[min(self._tier.quorum, len(busy)) - 1], LIFE_S)
            error = LockboxError(
                "the verifiers of this asset are busy or have just started",
                f"try again in {wait_s:.0f} s",
                ErrorCode.BUSY,
            )
            error.retry_after_s = wait_s
            return error
        if answered:
            return answered[0]
        return PeerUnreachable(f"none of {self.asked} verifiers answers", "check the connection, then try again")
