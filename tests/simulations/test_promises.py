"""An asset of several stripes is followed in all of them: what of it stands where, and what breaks in a data stripe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lockbox_node.core.tiers import BASIC
from lockbox_node.observe import logging
from protocol.ids import Address, DescriptorHash
from simulations.promises import promises
from simulations.watching import BrokenInvariant
from simulations.world import World
from tests.simulations.nets import a_net, paused

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGE_BYTES = 4_000_000  # two stripes at Basic, of several groups each


@pytest.fixture(autouse=True)
def world() -> Iterator[World]:
    world = World(1)
    world.listen()
    yield world
    logging.configure(strict=True)


async def test_every_stripe_of_a_large_asset_is_followed(world: World) -> None:
    async with a_net(world, paused, LARGE_BYTES) as net:
        await net.pass_by(2)
        root, data = net.watcher.snapshot().stripes
        assert (root.address, len(root.holders)) == (net.asset.asset.address, BASIC.n)
        assert (len(data.holders), data.tier) == (BASIC.n, BASIC.number)
        assert {host.id for host in net.holders(data.address)} == set(data.holders.values())

        made = promises(net.cluster.hosts.values(), net.asset.asset, net.person.vault.wallet.master)
        assert [promise.stripe for promise in made] == [root, data]
        with pytest.raises(BrokenInvariant, match="11 parts of an asset were acknowledged, 10 are on disks"):
            net.watcher.acknowledged(net.asset, 2 * BASIC.n + 1)

        parts = net.holders(data.address)[0].disk.parts
        parts.quarantine(parts.standing(Address(data.address))[0])
        await net.until_broken("4 of 5 live shards, one is missing", 200)


async def test_what_a_holder_acknowledged_of_a_data_stripe_must_stand(world: World) -> None:
    async with a_net(world, paused, LARGE_BYTES) as net:
        _, data = net.watcher.snapshot().stripes
        parts = net.holders(data.address)[0].disk.parts
        parts.drop(Address(data.address), DescriptorHash(data.descriptor_hash))
        await net.until_broken("acknowledged a shard that is on no disk", 1)


async def test_an_asset_that_stands_nowhere_has_one_stripe_without_holders(world: World) -> None:
    async with a_net(world) as net:
        (made,) = promises([], net.asset.asset, net.person.vault.wallet.master)
        assert made.stripe.address == net.asset.asset.address
        assert made.stripe.holders == {}
        (made,) = promises(net.cluster.hosts.values(), net.asset.asset, net.person.vault.wallet.master)
        disks = {host.id: host.disk for host in net.cluster.hosts.values()}
        assert made.now(disks) == made.stripe
        gone = made.stripe.holders[2]
        others = {0, 1, 3, 4}
        assert set(made.now({**disks, gone: net.cluster.hosts["node1"].disk.snapshot()}).holders) == others
