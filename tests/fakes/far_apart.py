"""A cluster whose hosts stand where their records say, and what a round trip between them takes, without jitter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockbox_node.core.regions import BUILT_IN, distance_km
from protocol.records import NodeRecord, parse
from simulations.geography import DETOUR, FIBRE_KM_PER_S, NEAR_S, Geography

if TYPE_CHECKING:
    from tests.fakes.cluster import Cluster, FakeNode

CLIENT = "client1"
TICKS_S = 0.025  # arrivals are rounded up, once for each message, and nearness is known in steps


class FarApart(Geography):
    """The geography of a cluster; the client stands in one of its regions."""

    def __init__(self, cluster: Cluster, client_region: str) -> None:
        self.cluster = cluster
        self._region = {node.host: region_of(node) for node in cluster.nodes.values()} | {CLIENT: client_region}
        cluster.hub.geography = self

    def __contains__(self, host: str) -> bool:
        return host in self._region

    def one_way_s(self, source: str, target: str) -> float:
        """Always the same."""
        here, there = BUILT_IN.named(self._region[source]), BUILT_IN.named(self._region[target])
        return NEAR_S + distance_km(here, there) * DETOUR / FIBRE_KM_PER_S

    def round_trip_s(self, node: FakeNode) -> float:
        """From the client to a node and back."""
        return 2 * self.one_way_s(CLIENT, node.host)


def region_of(node: FakeNode) -> str:
    """Where a node says that it stands."""
    assert node.identity.record is not None
    return parse(node.identity.record, NodeRecord).region
