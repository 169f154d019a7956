"""What is learned from answers, what is not believed, and that no version is lost to an update that was cut off."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio
import trio.testing

from lockbox_node.ports import settled
from lockbox_node.services import lessons as module
from lockbox_node.services.lessons import Lessons
from lockbox_node.services.sources import Sources
from protocol.ids import NodeId
from protocol.messages import HolderTable, Signed, Told
from tests.fakes.healing_cluster import Cluster, View, look
from tests.fakes.stripes import OWNER, AssetSigner, Stripe, make_stripe

if TYPE_CHECKING:
    import pytest

TEACHER = 5


class Pupil:
    """Node 0 of a cluster whose nodes 0 to 9 hold version 1 of asset 1, and some of 10 to 19 version 2."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.store = self.cluster.stores[self.cluster.ids[0]]
        view = View(self.cluster.ids[0], self.cluster)
        self.lessons = Lessons(
            self.store, Sources(view, view, self.cluster.workers, self.cluster.params), self.cluster.clock
        )
        self.old = make_stripe(1)
        self.new = make_stripe(1, version=2, replaces=[self.old.parts[0].descriptor_hash], holders=range(10, 20))

    async def keep(self, stripe: Stripe, index: int, node: int) -> None:
        store = self.cluster.stores[self.cluster.ids[node]]
        await settled(partial(store.put, stripe.parts[index], (), OWNER))

    async def learn(self, told: Told, table: HolderTable | None = None, teacher: int = TEACHER) -> None:
        self.lessons.take(told, [table or self.old.table], self.cluster.ids[teacher])
        async with trio.open_nursery() as nursery:
            await nursery.start(self.lessons.run)
            await trio.sleep(5)
            nursery.cancel_scope.cancel()

    @property
    def holds(self) -> int:
        return self.store.figures().stripes


async def test_a_tombstone_buries_what_was_told(autojump_clock: trio.testing.MockClock) -> None:
    pupil = Pupil()
    await pupil.keep(pupil.old, 0, 0)
    tombstone = pupil.old.signer.tombstone(1)
    await pupil.learn(Told([tombstone], [], []))
    assert pupil.holds == 0
    assert (await look(pupil.store, pupil.old.signer.address)).tombstone == tombstone
    assert pupil.lessons.counts["buried"] == 1


async def test_what_the_owner_did_not_sign_teaches_nothing(autojump_clock: trio.testing.MockClock) -> None:
    pupil = Pupil()
    await pupil.keep(pupil.old, 0, 0)
    genuine = pupil.old.signer.tombstone(1)
    forged = Signed(genuine.body, bytes(64))
    other = AssetSigner(2).tombstone(1)
    older = pupil.old.signer.tombstone(0)
    await pupil.learn(Told([Signed(b"nonsense", bytes(64)), other, older], [Signed(b"x", bytes(64))], []))
    assert pupil.lessons.counts == {}
    await pupil.learn(Told([forged], [Signed(pupil.new.signed.body, bytes(64))], []))
    assert pupil.lessons.counts["refused"] >= 1
    assert pupil.holds == 1


async def test_a_durable_newer_version_drops_what_it_replaces(autojump_clock: trio.testing.MockClock) -> None:
    pupil = Pupil()
    await pupil.keep(pupil.old, 0, 0)
    for index in range(8):  # n - (n - k) // 2 = 8 of 10
        await pupil.keep(pupil.new, index, 10 + index)
    await pupil.learn(Told([], [pupil.new.signed], []), teacher=10)
    assert pupil.holds == 0
    assert pupil.lessons.counts["replaced"] == 1


async def test_an_update_that_was_cut_off_costs_no_older_part(autojump_clock: trio.testing.MockClock) -> None:
    pupil = Pupil()
    await pupil.keep(pupil.old, 0, 0)
    for index in range(7):
        await pupil.keep(pupil.new, index, 10 + index)
    await pupil.learn(Told([], [pupil.new.signed], []), teacher=10)
    assert pupil.holds == 1
    assert pupil.lessons.counts["unsettled"] == 1


async def test_a_version_that_does_not_replace_ours_drops_nothing(autojump_clock: trio.testing.MockClock) -> None:
    pupil = Pupil()
    await pupil.keep(pupil.old, 0, 0)
    beside = make_stripe(1, version=2, holders=range(10, 20))
    for index in range(10):
        await pupil.keep(beside, index, 10 + index)
    await pupil.learn(Told([], [beside.signed], []), teacher=10)
    assert pupil.holds == 1


async def test_lessons_that_wait_are_bounded(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LESSONS_MAX", 2)
    pupil = Pupil()
    for number in range(4):
        stripe = make_stripe(number)
        pupil.lessons.take(Told([stripe.signer.tombstone(1)], [], []), [stripe.table], NodeId(bytes(32)))
    assert pupil.lessons.counts["overflow"] == 2
