"""Ten nodes part into six and four, in virtual time, ten seeds: who may judge repairs, and nobody else does.

Two machines of one wallet have locked under one index before, while halves did not hear each other: siblings, which
every later repair must keep apart. After healing the network is one again: nothing is lost, both siblings stand and are
found, and what was repaired meanwhile stands at one place too many at most. On real processes, in halves, the story
stands in tests/end_to_end/split_story.py.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.client.finding import Finding
from lockbox_node.client.words import new_words
from lockbox_node.core.tiers import BASIC, STANDARD
from simulations.people import a_person
from simulations.staging import holdings, keepers, short, until
from tests.simulations.suite import HEAL_S, MERGED_S, NOTICED_S, is_settled, node_of, running, until_equal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from random import Random

    from simulations.cluster import Cluster, Host
    from simulations.people import Person
    from simulations.world import World

SEEDS = [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 11))]
pytestmark = [pytest.mark.slow, pytest.mark.parametrize("seed", SEEDS)]

NODES, MAJORITY = 10, 6
NEAR_PERSON, FAR_PERSON = "client2", "client3"
TRIES = 50
APART_S = 200.0  # several hold-offs and sweeps
QUIET_S = 120.0  # the guard trusts what is one again
SIZES = (100, 5_000, 100_000)


def part(cluster: Cluster, near: Sequence[str], far: Sequence[str]) -> Callable[[], None]:
    """Cut the two sides apart; FAR_PERSON stands with the second, everybody else with the first."""
    people = [name for name in (*cluster.geography.hosts(), NEAR_PERSON) if name not in cluster.hosts]
    return cluster.hub.partition([*near, *(name for name in people if name != FAR_PERSON)], [*far, FAR_PERSON])


async def parted(cluster: Cluster, *sides: Sequence[str]) -> None:
    """Until each side sees its own and nobody else."""
    hosts = [[cluster.hosts[name] for name in side] for side in sides]
    await until(lambda: all(is_settled(side) for side in hosts), NOTICED_S, "a side does not see its own")


@asynccontextmanager
async def siblings(cluster: Cluster) -> AsyncIterator[tuple[Person, Person]]:
    """Two machines of one wallet, which have locked under one index while halves did not hear each other."""
    names = shuffled(cluster, cluster.world.rng("halves"))
    words = new_words(cluster.world.entropy("words of two machines"))
    halves = names[: NODES // 2], names[NODES // 2 :]
    heal = part(cluster, *halves)
    await parted(cluster, *halves)
    async with a_person(cluster, 2, words=words) as one, a_person(cluster, 3, words=words) as other:
        assert [one.name, other.name] == [NEAR_PERSON, FAR_PERSON]
        locked = [await person.lock(1_000 + number, BASIC) for number, person in enumerate((one, other))]
        heal()
        await until(lambda: is_settled(cluster.living()), MERGED_S, "the halves have not become one")
        assert None not in locked
        assert one.kept[0].asset.address == other.kept[0].asset.address
        assert one.kept[0].asset.descriptor_hash != other.kept[0].asset.descriptor_hash
        yield one, other


def shuffled(cluster: Cluster, rng: Random) -> list[str]:
    """All nodes."""
    return rng.sample(names := list(cluster.hosts), len(names))


def repairs(hosts: Sequence[Host]) -> int:
    """Begun by these in their lives."""
    return sum(node_of(host).healing.repairs_begun for host in hosts)


def is_trusted(cluster: Cluster) -> bool:
    """Whether nobody doubts his view."""
    return not any(node_of(host).healing.doubted for host in cluster.living())


async def listed(person: Person, address: bytes) -> set[bytes]:
    """Hashes of all descriptors that the nodes list at an address."""
    finding = Finding(person.vault, address)
    await finding.hear_until(lambda: False)  # three answers may all be of one side
    return {bytes(table.descriptor_hash) for table in finding.tables()}


async def test_six_of_ten_repair_and_four_do_not_and_after_healing_nothing_is_lost_and_siblings_are_both_kept(
    world: World,
) -> None:
    async with (
        running(world, seeds=NODES, nodes=NODES) as cluster,
        a_person(cluster, 1) as carol,
        siblings(cluster) as (alice, bob),
    ):
        for tier, size in [*((BASIC, size) for size in SIZES), (STANDARD, SIZES[-1])]:
            assert await carol.lock(size, tier) is not None
        await until_equal(cluster)
        await until(lambda: is_trusted(cluster), QUIET_S, "views are doubted still")
        stood = set(holdings(cluster))

        names = sides(cluster)
        six, four = ([cluster.hosts[name] for name in side] for side in (names[:MAJORITY], names[MAJORITY:]))
        begun = repairs(six), repairs(four)
        heal = part(cluster, names[:MAJORITY], names[MAJORITY:])
        await parted(cluster, names[:MAJORITY], names[MAJORITY:])
        owed = rebuildable(cluster, six)
        await until(lambda: not rebuildable(cluster, six), HEAL_S, "the six have not repaired what they can")
        await trio.sleep(APART_S)
        assert repairs(six) >= begun[0] + len(owed)
        assert repairs(four) == begun[1], "four of ten repair nothing"
        assert all(node_of(host).healing.doubted for host in four)

        heal()
        await until(lambda: is_settled(cluster.living()), MERGED_S, "the sides have not become one")
        await until(lambda: is_trusted(cluster), QUIET_S, "views are doubted still")
        await until_equal(cluster)
        healed = repairs(cluster.living())
        check_copies(cluster, set(owed), {host.name for host in four})
        assert set(holdings(cluster)) == stood, "no stripe is lost, none came to be"
        await trio.sleep(APART_S)
        assert repairs(cluster.living()) == healed, "what is whole is left alone"
        for person in (carol, alice, bob):
            await person.read_all()
        pair = [alice.kept[0].asset, bob.kept[0].asset]
        assert await listed(alice, pair[0].address) == {bytes(one.descriptor_hash) for one in pair}


def sides(cluster: Cluster) -> list[str]:
    """All nodes, of which the first six, once alone, have something to repair and a legal place for it."""
    rng = cluster.world.rng("sides")
    for _ in range(TRIES):
        names = shuffled(cluster, rng)
        if rebuildable(cluster, [cluster.hosts[name] for name in names[:MAJORITY]]):
            return names
    raise AssertionError("no six of these ten would have anything to repair")


def rebuildable(cluster: Cluster, hosts: Sequence[Host]) -> list[tuple[bytes, bytes]]:
    """Stripes that miss a shard among these, who hold enough of it and have a legal place for the rest."""
    held = holdings(cluster, hosts)
    return [key for key in short(cluster, hosts) if len(held[key][0]) >= held[key][1].k]


def check_copies(cluster: Cluster, repaired: set[tuple[bytes, bytes]], away: set[str]) -> None:
    """A shard stands twice at most, and only where a node that was away kept what was repaired meanwhile."""
    for key, kept in keepers(cluster).items():
        by_index: dict[int, list[str]] = {}
        for index, host in kept:
            by_index.setdefault(index, []).append(host.name)
        doubled = {index: names for index, names in by_index.items() if len(names) > 1}
        assert all(len(names) == 2 and len(away.intersection(names)) == 1 for names in doubled.values()), doubled
        assert key in repaired or not doubled, "repaired though it missed nothing"
