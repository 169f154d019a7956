"""The suites autopeering, common and snapshot in virtual time, ten seeds each: what they must hold is in the names.

On real processes they stand in tests/end_to_end. Here every disk can be looked into, so that what nodes hold is
compared in all pairs of siblings, and repairs go on as they do in a real network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.core.admission import CLAIM_AHEAD_S
from lockbox_node.core.tiers import BASIC
from lockbox_node.services.reconciling import RESTORED
from protocol.documents import Revocations
from simulations.people import a_person
from simulations.staging import bring_back, until
from tests.simulations.suite import (
    COMPARED_S,
    MERGED_S,
    NODES,
    NOTICED_S,
    is_settled,
    node_of,
    root_of,
    running,
    until_equal,
)

if TYPE_CHECKING:
    from simulations.people import Person
    from simulations.world import World

SEEDS = [1, 2, 3, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(4, 11))]
pytestmark = [pytest.mark.slow, pytest.mark.parametrize("seed", SEEDS)]

EPOCHS = 1_000_000  # what a restore adds


async def test_nodes_that_know_one_seed_find_each_other_in_halves_too_and_are_one_30_s_after_healing(
    world: World,
) -> None:
    rng = world.rng("halves")
    async with running(world, seeds=1) as cluster:
        names = list(cluster.hosts)
        near = sorted({names[0], *rng.sample(names[1:], NODES // 2 - 1)})  # the seed's half
        far = [name for name in names if name not in near]

        def parted() -> bool:
            return all(is_settled([cluster.hosts[name] for name in side]) for side in (near, far))

        heal = cluster.hub.partition(near, far)
        await until(parted, NOTICED_S, "the halves do not see their own")
        again = rng.choice(far)
        cluster.crash(again)
        await cluster.start(again).ready.wait()
        await until(parted, NOTICED_S, "who restarted far from the seed does not find its half")
        assert root_of(cluster.hosts[near[0]]) != root_of(cluster.hosts[far[0]])
        heal()
        await until(lambda: is_settled(cluster.living()), MERGED_S, "the halves have not become one")


async def test_who_is_late_or_was_away_catches_up_and_then_siblings_hold_the_same(world: World) -> None:
    rng = world.rng("common")
    async with running(world, late=1) as cluster, a_person(cluster, 1) as person:
        await locked(person, 4)
        first = list(cluster.living())
        node_of(first[0]).documents.take([cluster.authority.sign(Revocations(1, 0, []))])
        late = list(cluster.hosts)[-1]
        await bring_back(cluster, [late])
        await until(lambda: is_settled(cluster.living()), MERGED_S, "who came late does not know what all know")
        cluster.crash(rng.choice(first).name)  # for good: who came late may have to take its place
        await until_equal(cluster)

        away = rng.choice([host.name for host in cluster.living() if host.disk.parts.figures().stripes])
        cluster.crash(away, power=rng.random() < 0.5)
        await locked(person, 2)
        heal = cluster.hub.partition([away], [name for name in cluster.geography.hosts() if name != away])
        life = cluster.start(away)
        await life.ready.wait()
        await trio.sleep(rng.uniform(0, 20))
        assert not life.node.joined
        heal()
        await until(lambda: life.node.joined, MERGED_S, "who was away reaches nobody")
        await until_equal(cluster)
        await person.read_all()


async def test_a_network_restored_from_its_backups_agrees_and_holds_what_was_backed_up(world: World) -> None:
    rng = world.rng("snapshot")
    async with running(world) as cluster, a_person(cluster, 1) as person:
        await locked(person, 4)
        saved = {host.name: host.disk.snapshot() for host in cluster.hosts.values()}
        held = {name: image.parts.digests(None) for name, image in saved.items()}
        later = await person.lock(1000, BASIC)
        assert later is not None
        for name, image in saved.items():
            cluster.crash(name, power=rng.random() < 0.5)
            image.parts.notes[RESTORED] = b"\x80"
            image.epoch += EPOCHS
            cluster.put_back(name, image)
        await bring_back(cluster)
        nodes = [node_of(host) for host in cluster.living()]
        assert all(node.rejoining.unconfirmed() for node in nodes)
        await until(lambda: not any(node.rejoining.unconfirmed() for node in nodes), COMPARED_S, "nodes still ask")
        await until_equal(cluster)
        assert {name: cluster.hosts[name].disk.parts.digests(None) for name in held} == held
        assert {node.rejoining.reconciler.siblings.differing for node in nodes} == {0}
        person.kept.remove(later)  # newer than every backup: gone, as it must be
        # Who lost its power serves nothing that it can have served before: requests of the first minute.
        await trio.sleep(CLAIM_AHEAD_S)
        await person.read_all()


async def locked(person: Person, count: int) -> None:
    """So many assets, small and large."""
    for _ in range(count):
        assert await person.lock(person.rng.choice((100, 5_000, 100_000)), BASIC) is not None
