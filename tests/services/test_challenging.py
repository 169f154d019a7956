"""Challenges over real connections: what each kind of holder shows, within which time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.core.audit import Verdict, deadline_s
from lockbox_node.errors import LockboxError, ShardCorrupt, ShardMissing
from lockbox_node.rpc.dispatch import Route
from lockbox_node.services.challenging import Challenger, Part, Shown
from protocol.errors import ErrorCode
from protocol.messages import Prove
from simulations.world import SeededEntropy
from tests.core.test_audit import proof_of
from tests.fakes.stripes import make_stripe
from tests.rpc.world import world

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from lockbox_node.rpc.hello import Peer
    from protocol.ids import NodeId
    from protocol.messages import Message
    from tests.rpc.world import World

STRIPE = make_stripe("audited", shard_bytes=9_000)
OTHER = make_stripe("else", shard_bytes=9_000)
INDEX, DELAY_S = 3, 0.05
PART = Part(STRIPE.signer.address, STRIPE.parts[0].descriptor_hash, STRIPE.descriptor, INDEX)


class Holder:
    """Answers after a while with what `shows` makes of a challenge; None is silence. `nonces`: those that came."""

    def __init__(self, shows: Callable[[Prove], Message | LockboxError | None]) -> None:
        self.nonces: list[bytes] = []
        self._shows = shows

    async def prove(self, request: Prove, _peer: Peer) -> Message:
        self.nonces.append(request.nonce)
        await trio.sleep(DELAY_S)
        outcome = self._shows(request)
        if isinstance(outcome, LockboxError):
            raise outcome
        if outcome is None:
            await trio.sleep_forever()
            raise AssertionError
        return outcome


async def challenged(w: World, holder: Holder, times: int = 1, round_trip_s: float = DELAY_S) -> list[Shown]:
    party = await w.node(routes=[Route(Prove, holder.prove)])
    judge = await w.node()
    known = {party.contact.node: party.contact}
    challenger = Challenger(judge.pool, known.get, lambda _node: round_trip_s, SeededEntropy(1))
    return [await challenger.challenge(party.contact.node, PART) for _ in range(times)]


async def test_an_honest_holder_shows_its_part_each_time_by_another_nonce(
    autojump_clock: MockClock,
) -> None:
    holder = Holder(lambda request: proof_of(STRIPE, INDEX, request.nonce))
    async with world() as w:
        shown = await challenged(w, holder, times=3)
    assert [one.verdict for one in shown] == [Verdict.HELD] * 3
    assert [one.round_trip_s for one in shown] == pytest.approx([DELAY_S] * 3)
    assert len(set(holder.nonces)) == 3


@pytest.mark.parametrize(
    ("shows", "verdict"),
    [
        (lambda _request: ShardMissing("gone", ""), Verdict.MISSING),
        (lambda _request: ShardCorrupt("rotten", ""), Verdict.CORRUPT),
        (lambda request: proof_of(OTHER, INDEX, request.nonce), Verdict.CORRUPT),
        (lambda _request: proof_of(STRIPE, INDEX, bytes(16)), Verdict.HELD),  # every leaf of a small shard is shown
    ],
    ids=["gone", "rotten", "another stripe", "an old answer"],
)
async def test_what_else_a_holder_may_show(
    shows: Callable[[Prove], Message | LockboxError], verdict: Verdict, autojump_clock: MockClock
) -> None:
    async with world() as w:
        [shown] = await challenged(w, Holder(shows))
    assert shown.verdict is verdict
    assert shown.round_trip_s == pytest.approx(DELAY_S)


async def test_a_refusal_is_told_from_wrong_bytes_and_from_silence(autojump_clock: MockClock) -> None:
    async with world() as w:
        [rotten] = await challenged(w, Holder(lambda _request: ShardCorrupt("rotten", "")))
        [busy] = await challenged(w, Holder(lambda _request: LockboxError("later", code=ErrorCode.BUSY)))
        [wrong] = await challenged(w, Holder(lambda request: proof_of(OTHER, INDEX, request.nonce)))
    assert (rotten.verdict, rotten.refused) == (Verdict.CORRUPT, ErrorCode.SHARD_CORRUPT)
    assert (busy.verdict, busy.refused) == (Verdict.SILENT, ErrorCode.BUSY)
    assert (wrong.verdict, wrong.refused) == (Verdict.CORRUPT, None)


async def test_who_says_nothing_is_silent_at_the_deadline(autojump_clock: MockClock) -> None:
    async with world() as w:
        began = trio.current_time()
        [shown] = await challenged(w, Holder(lambda _request: None), round_trip_s=0.3)
        took_s = trio.current_time() - began
    assert shown == Shown(Verdict.SILENT, 0.0)
    assert deadline_s(STRIPE.descriptor, 0.3) <= took_s < deadline_s(STRIPE.descriptor, 0.3) + 1


async def test_who_is_unknown_or_cannot_be_reached_is_silent(autojump_clock: MockClock) -> None:
    async with world() as w:
        gone, judge = await w.node(routes=[]), await w.node()
        gone.scope.cancel()
        known: dict[NodeId, object] = {}
        challenger = Challenger(judge.pool, known.get, lambda _node: 0.0, SeededEntropy(1))  # type: ignore[arg-type]
        assert (await challenger.challenge(gone.contact.node, PART)).verdict is Verdict.SILENT
        known[gone.contact.node] = gone.contact
        assert (await challenger.challenge(gone.contact.node, PART)).verdict is Verdict.SILENT
