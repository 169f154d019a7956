"""Audits in whole nodes over real rpc: what one of them forgot or hides is found, by whom the draw made its judge."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.core.audit import Verdict
from lockbox_node.core.audit_pace import AuditParams
from lockbox_node.errors import LockboxError
from lockbox_node.ports import settled
from lockbox_node.services.reconciling import RESTORED
from protocol.errors import ErrorCode
from simulations.identities import NOW_UNIX_S
from tests.fakes.hamlet import QUICK, Hamlet
from tests.fakes.memory_store import BreakingStore
from tests.fakes.stripes import DAY_S, AssetSigner, coded_parts

if TYPE_CHECKING:
    from trio.testing import MockClock

    from lockbox_node.ports import Answer, StripePart
    from protocol.ids import Address, DescriptorHash

PERIOD_S = 60.0
COMPARED = replace(QUICK.reconcile, first_s=10_000.0)  # not in these tests: it finds what is missing too
CONFIG = replace(
    QUICK, reconcile=COMPARED, audit=AuditParams(period_s=PERIOD_S, first_s=1.0, retry_s=3.0, again_s=10.0)
)
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


async def test_a_judge_that_missed_a_deletion_hears_of_it_from_its_ward(autojump_clock: MockClock) -> None:
    repair = replace(CONFIG.repair, enabled=False)  # a repair asks for deletions too, and pointers tell after 30 s
    hamlet = Hamlet(13, replace(CONFIG, repair=repair, audit=replace(CONFIG.audit, period_s=8.0)))
    parts = stripe_of(hamlet)
    await hamlet.keep(parts[:1])
    tombstone = AssetSigner("kept").tombstone(1, int(NOW_UNIX_S) + 30 * DAY_S)
    for number in HOLDERS[1:]:
        await settled(partial(hamlet.stores[number].delete, tombstone, parts[0].address, 1, 2**40))
    async with hamlet.running():
        await trio.sleep(15)
        view = await hamlet.look(1, parts[0].address)
        assert (view.parts, view.tombstone) == ((), tombstone)
        assert hamlet.nodes[1].rounds.counts[Verdict.MISSING] >= 1
        await trio.sleep(20)
        assert len(hamlet.nodes[1].rounds.findings) == 0


async def test_what_one_hides_from_its_judge_is_rebuilt_elsewhere_and_it_is_given_nothing_new(
    autojump_clock: MockClock,
) -> None:
    hamlet = Hamlet(13, replace(CONFIG, repair=replace(CONFIG.repair, hold_off_s=4.0)))
    hamlet.stores[4] = Hiding(CONFIG.store, hamlet.town.clock)
    parts = stripe_of(hamlet)
    await hamlet.keep(parts)
    async with hamlet.running():
        await trio.sleep(PERIOD_S + 3 * 10 + 4 * 6)  # a round, three times silent, the hold-off of the last rank
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


async def test_who_may_hold_what_is_stale_or_lost_its_disk_judges_nobody(autojump_clock: MockClock) -> None:
    hamlet = audited()
    await settled(partial(hamlet.stores[1].note, RESTORED, b"\x80"))
    async with hamlet.running(1, 2, 3):
        assert [hamlet.nodes[number].rounds.word for number in (1, 2)] == ["paused", "on"]
        hamlet.stores[2].fail("a disk that failed")
        assert hamlet.nodes[2].rounds.word == "paused"
        with pytest.raises(LockboxError):
            hamlet.nodes[1].rounds.start_now()
