"""Audits in whole nodes over real rpc: what one of them forgot or hides is found, by whom the draw made its judge."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from lockbox_node.core.audit import Verdict
from lockbox_node.core.audit_pace import AuditParams
from lockbox_node.errors import LockboxError
from protocol.errors import ErrorCode
from simulations.identities import NOW_UNIX_S
from tests.fakes.hamlet import QUICK, Hamlet
from tests.fakes.memory_store import BreakingStore
from tests.fakes.stripes import coded_parts

if TYPE_CHECKING:
    from trio.testing import MockClock

    from lockbox_node.ports import Answer, StripePart
    from protocol.ids import Address, DescriptorHash

PERIOD_S = 60.0
CONFIG = replace(QUICK, audit=AuditParams(period_s=PERIOD_S, first_s=1.0, retry_s=3.0, again_s=10.0))
HOLDERS = range(1, 11)


def audited() -> Hamlet:
    """Thirteen nodes, ten of which hold a stripe."""
    return Hamlet(13, CONFIG)


def stripe_of(hamlet: Hamlet) -> list[StripePart]:
    """A stripe on the first ten."""
    return coded_parts("kept", hamlet.holders(*HOLDERS), created_unix_s=int(NOW_UNIX_S))


class Hiding(BreakingStore):
    """Shows nothing of what it holds, whoever asks."""

    def get(self, address: Address, descriptor_hash: DescriptorHash, answer: Answer[StripePart]) -> None:
        answer(LockboxError("later", code=ErrorCode.INTERNAL))


def shown(hamlet: Hamlet, verdict: Verdict) -> int:
    """By all wards to all judges."""
    return sum(node.rounds.counts[verdict] for node in hamlet.nodes.values())


async def test_a_part_that_its_holder_forgot_is_found_and_fetched_back(autojump_clock: MockClock) -> None:
    hamlet = audited()
    parts = stripe_of(hamlet)
    await hamlet.keep(parts)
    async with hamlet.running():
        await trio.sleep(PERIOD_S)
        assert shown(hamlet, Verdict.HELD) >= 8
        hamlet.stores[4].lose(parts[0].address)
        await trio.sleep(PERIOD_S + 10)
        assert shown(hamlet, Verdict.MISSING) >= 1
        assert [part.index for part in (await hamlet.look(4, parts[0].address)).parts] == [3]
        await trio.sleep(20)
        assert not any(len(node.rounds.findings) for node in hamlet.nodes.values())
        assert not any(node.rounds.standings.all(0.0) for node in hamlet.nodes.values())


async def test_what_one_hides_from_its_judge_is_rebuilt_elsewhere_and_it_is_given_nothing_new(
    autojump_clock: MockClock,
) -> None:
    hamlet = audited()
    hamlet.stores[4] = Hiding(CONFIG.store, hamlet.town.clock)
    parts = stripe_of(hamlet)
    await hamlet.keep(parts)
    async with hamlet.running():
        await trio.sleep(2 * PERIOD_S + 30 * 6 + 20)  # the hold-off of the last rank
        others = [number for number in hamlet.nodes if number not in HOLDERS]
        held = [part.index for number in others for part in (await hamlet.look(number, parts[0].address)).parts]
        assert held == [3]
        judge = hamlet.nodes[1]
        node = hamlet.ids[4]
        assert node in [one.node for one in judge.discovery.candidates()]
        for _ in range(2):
            judge.rounds.standings.denied(node, Verdict.CORRUPT, trio.current_time())
        assert node not in [one.node for one in judge.discovery.candidates()]
        assert node not in judge.discovery.failing(), "what it keeps is read and stays"
