"""A city that the authority adds carries shards within seconds; where it takes one away, nothing new is put.

The whole way in one network: a signed table, nodes that name its city, a client that learns it while it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.client.lock import lock
from lockbox_node.client.rule_book import ASK_EVERY_S
from lockbox_node.client.sink import MemorySink
from lockbox_node.client.source import BytesSource
from lockbox_node.client.unlock import unlock
from lockbox_node.client.verify import verify
from lockbox_node.core.regions import BUILT_IN, MICRODEGREES, Region, RegionTable
from lockbox_node.core.tiers import ELITE, STANDARD
from lockbox_node.errors import LockboxError, RequestRefused
from protocol.documents import Place, Regions
from protocol.errors import ErrorCode
from protocol.messages import PutStripe
from protocol.records import NodeRecord, parse
from tests.fakes.cluster import Cluster, FakeNode, a_wallet

if TYPE_CHECKING:
    from pathlib import Path

    from protocol.messages import SignedDocument

HONOLULU = Region("honolulu", "Honolulu", 21.31, -157.86)
HONOLULU_BESIDE_ASHBURN = Region("honolulu", "Honolulu", 39.0, -77.0)
SECRET = b"worth keeping in five places" * 40
TOLD_S = 2 * ASK_EVERY_S


def table(cluster: Cluster, version: int, regions: RegionTable) -> SignedDocument:
    places = [
        Place(name, round(one.latitude * MICRODEGREES), round(one.longitude * MICRODEGREES))
        for name, one in sorted(regions.regions.items())
    ]
    return cluster.authority.sign(Regions(version, 0, places))


def full(cluster: Cluster) -> list[FakeNode]:
    """Two of the six nodes of the city: the other four are just enough."""
    records = {node.number: node.identity.record for node in cluster.nodes.values()}
    there = [
        number
        for number, record in records.items()
        if record is not None and parse(record, NodeRecord).region == HONOLULU.name
    ]
    assert len(there) == 6
    return [node for node in cluster.nodes.values() if node.number in there[:2]]


async def test_a_client_locks_in_a_city_that_a_new_table_adds_and_no_longer_once_it_is_gone(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    cluster = Cluster(30, regions=4, cities=[HONOLULU.name])  # four regions are too few for Elite
    await nursery.start(cluster.run)
    async with cluster.client(a_wallet(cluster, tmp_path / "w")) as vault:
        with pytest.raises(LockboxError) as caught:
            await lock(vault, BytesSource(bytearray(SECRET)), ELITE)
        assert caught.value.code is ErrorCode.INSUFFICIENT_REGIONS
        assert "such regions found: 4" in caught.value.message

        cluster.library.take(table(cluster, 1, BUILT_IN.with_region(HONOLULU)))
        await trio.sleep(TOLD_S)
        for node in full(cluster):
            node.refuse[PutStripe] = RequestRefused("full", code=ErrorCode.STORE_FULL)
        locked = await lock(vault, BytesSource(bytearray(SECRET)), ELITE)
        assert HONOLULU.name in locked.regions
        assert locked.placed == locked.wanted, "others in that city took what two of it refused"
        seen = await verify(vault, locked.asset)
        assert seen.state == "healthy"
        assert HONOLULU.name in {holder.region for holder in seen.holders}

        for version, regions in ((2, BUILT_IN), (3, BUILT_IN.with_region(HONOLULU_BESIDE_ASHBURN))):
            cluster.library.take(table(cluster, version, regions))
            await trio.sleep(TOLD_S)
            assert (await verify(vault, locked.asset)).state == "degraded", "it can be read, and is not where it should"
            with pytest.raises(LockboxError):
                await lock(vault, BytesSource(bytearray(SECRET)), ELITE)
            smaller = await lock(vault, BytesSource(bytearray(SECRET)), STANDARD)
            assert version == 3 or HONOLULU.name not in smaller.regions
            assert not {HONOLULU.name, "us-east-1"} <= set(smaller.regions)
        sink = MemorySink()
        await unlock(vault, locked.asset, sink)
        assert bytes(sink.content) == SECRET
