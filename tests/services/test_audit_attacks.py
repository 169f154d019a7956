"""What a hostile member, or a broken way, can make of audits between siblings."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import trio.testing

from protocol.ids import NodeId
from tests.fakes.audits import AUDIT, ROUND_S, whole_without
from tests.fakes.healing_cluster import Cluster, running


async def test_what_is_replaced_makes_room_for_the_rest_that_a_mute_node_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster(), audit=replace(AUDIT, findings_max=4)) as cluster:
        parts = [await cluster.lock(seed) for seed in range(40)]
        ward = NodeId(Counter(entry.node for part in parts for entry in part.entries).most_common(1)[0][0])
        lost = [part for part in parts if any(entry.node == ward for entry in part.entries)]
        cluster.mute.add(ward)
        await trio.sleep(8 * ROUND_S)
        assert sum(rounds.overflow for rounds in cluster.rounds.values()) >= 1
        left = [part for part in lost if not await whole_without(cluster, part, ward)]
        assert left == []
