"""A verifier's part: grants leave to fetch shards to whom the asset key wants to have it, as often as the rate allows.

It checks the asset key's signature, that the request is for its peer and is new, that it is itself near enough, and the
rate; it sees no content, no label, and cannot tell real from decoy. A verdict holds for one request alone and is never
kept. What was granted is journalled: a restart forgets neither nonces nor rates. Source: SPEC.md, Grants.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import trio

from lockbox_node.core.admission import SlidingLog
from lockbox_node.core.grants import LIFE_S, Around, judge_request, require_near, target_of
from lockbox_node.core.paces import ATTEMPTS_MAX, WINDOW_S
from lockbox_node.core.placement import Candidate
from lockbox_node.core.spent import GRANTED_HERE, KEYS_MAX, SHARE_MAX, Use, use_of
from lockbox_node.errors import LockboxError
from lockbox_node.rpc.dispatch import Route
from lockbox_node.services.redeeming import Redeeming, lately, recalled
from protocol.certificates import Role
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.grants import Grant
from protocol.ids import NodeId, address_of
from protocol.messages import AskGrant, Message
from protocol.records import open_grant_request, sign

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.core.documents import Rules
    from lockbox_node.ports import Answer, Journal, WallClock
    from lockbox_node.rpc.hello import Peer
    from lockbox_node.services.announcing import Operational
    from lockbox_node.services.discovery import Discovery
    from protocol.certificates import NetworkRoot
    from protocol.grants import GrantRequest
    from protocol.messages import Signed


class Granting:
    """Serves ask_grant. `counts`: granted, and refusals by their code."""

    def __init__(
        self,
        identity: Operational,
        root: NetworkRoot,
        around: Callable[[], Around],
        clock: WallClock,
        journal: Journal,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.redeeming = Redeeming(root, around, clock, journal)
        self._identity, self._around, self._clock, self._journal = identity, around, clock, journal
        self._rates = SlidingLog(ATTEMPTS_MAX, WINDOW_S, KEYS_MAX, SHARE_MAX)
        now_unix_s = clock.now_unix_s()
        self._spent = recalled(journal, GRANTED_HERE, now_unix_s)
        for use, granted_at in lately(journal, GRANTED_HERE, now_unix_s, trio.current_time()):
            self._rates.take(use.pair, use.owner, granted_at)

    def routes(self) -> list[Route]:
        """Handlers for the server."""
        return [Route(AskGrant, self._ask_grant)]

    def _ask_grant(self, request: AskGrant, peer: Peer, answer: Answer[Message]) -> None:
        try:
            grant = self._granted(request.request, peer)
        except (LockboxError, RemoteProtocolError) as refusal:
            self.counts[refusal.code.value] += 1
            raise
        self.counts["granted"] += 1
        answer(grant)

    def _granted(self, signed: Signed, peer: Peer) -> Signed:
        """In one step: of the same request asked many times at once, one is granted."""
        around, now_unix_s = self._around(), self._clock.now_unix_s()
        if peer.id in around.revoked:
            raise LockboxError("this client is revoked", "ask the network's authority", ErrorCode.REVOKED)
        wish = open_grant_request(signed)
        address = address_of(wish.public_key)
        judge_request(wish, address, wish.operation, peer.id, now_unix_s)
        require_near(around.own, target_of(address), around)
        use = use_of(GRANTED_HERE, wish, peer.rate_key, now_unix_s, guest=peer.role is Role.GUEST)
        self._spent.require_new(use, now_unix_s)
        self._require_rate(use)
        self._spent.add(use)
        self._journal.append(use.packed())
        return self._signed(wish, address, now_unix_s)

    def _require_rate(self, use: Use) -> None:
        wait_s = self._rates.take(use.pair, use.owner, trio.current_time())
        if wait_s:
            error = LockboxError(
                f"this asset was unlocked {ATTEMPTS_MAX} times within {WINDOW_S:.0f} s by you",
                f"wait {wait_s:.0f} s",
                ErrorCode.RATE_LIMITED,
            )
            error.retry_after_s = wait_s
            raise error

    def _signed(self, wish: GrantRequest, address: bytes, now_unix_s: float) -> Signed:
        expires_unix_s = int(now_unix_s + LIFE_S)
        chain = list(self._identity.chain)
        grant = Grant(address, wish.requester, wish.operation, wish.nonce, expires_unix_s, chain)
        return sign(grant, self._identity)


def around_of(discovery: Discovery, rules: Callable[[], Rules]) -> Callable[[], Around]:
    """What a node's member table says, each time it is asked."""

    def near(target: bytes, count: int) -> list[Candidate]:
        records = discovery.alive()
        nodes = discovery.nearest_nodes(target, count)
        return [Candidate(node, records[node].region, records[node].operator) for node in nodes]

    def around() -> Around:
        known = discovery.known
        live = len(discovery.alive())
        return Around(discovery.own, live, near, lambda node: known(NodeId(node)) is not None, rules().revoked)

    return around
