"""The contacts of a node in one bucket per bit length of the distance, and the exact XOR order over them.

Contact and bucket are `kademlia`'s Node and KBucket, used as an ordered LRU only: its clock field, splitting and
visiting order are not (they are wrong under churn). A contact moves to the tail each time that it is seen; a full
bucket keeps the newcomer as a replacement and asks for a probe of its oldest contact, which goes only when that fails.
At most 2 contacts of a /24 (IPv4) or /48 (IPv6) and of one operator per bucket; loopback is exempt from the former.
Feed it authenticated contacts only. Maymounkov and Mazieres, Kademlia, 2002, sections 2.2 and 2.4.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kademlia.node import Node
from kademlia.routing import KBucket

from lockbox_node.errors import ConfigError
from protocol.ids import ID_BYTES, NodeId, distance

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKETS = 8 * ID_BYTES
_V4_BITS, _V6_BITS = 24, 48


@dataclass(frozen=True, slots=True)
class RoutingParams:
    """Bucket size `k`; how many contacts of one network and of one operator a bucket takes."""

    k: int = 20
    network_max: int = 2
    operator_max: int = 2

    def __post_init__(self) -> None:
        for name in ("k", "network_max", "operator_max"):
            if getattr(self, name) < 1:
                raise ConfigError(f"routing.{name} must be at least 1")


class KnownNode(Node):  # type: ignore[misc]  # the package carries no types
    """The package's contact (`id`, `ip`, `port`) and its operator."""

    def __init__(self, node: NodeId, host: str, port: int, operator: str) -> None:
        super().__init__(node, host, port)
        self.operator = operator


class RoutingTable:
    """Contacts of node `own`, which is never in it."""

    def __init__(self, own: NodeId, params: RoutingParams) -> None:
        self._own = own
        self._params = params
        # The range argument is the package's own bookkeeping; buckets here go by bit length.
        self._buckets = [KBucket(0, 1, params.k, replacementNodeFactor=1) for _ in range(BUCKETS + 1)]

    def __len__(self) -> int:
        """Contacts in the buckets; replacements are not counted."""
        return sum(len(bucket) for bucket in self._buckets)

    def __contains__(self, node: NodeId) -> bool:
        """Whether the node is a contact (not merely a replacement)."""
        return node in self._bucket(node).nodes

    def seen(self, node: NodeId, host: str, port: int, operator: str) -> NodeId | None:
        """The node answered over an authenticated connection: it is now the newest of its bucket.

        Returns the contact to probe when the bucket is full: report the outcome by `seen` or `failed`. None when there
        is nothing to do, too when the limits of network or operator keep the node out.
        """
        assert len(node) == ID_BYTES
        if node == self._own:
            return None
        bucket = self._bucket(node)
        if node not in bucket.nodes and not self._admits(bucket, node, host, operator):
            return None
        if bucket.add_node(KnownNode(node, host, port, operator)):
            return None
        return NodeId(bucket.head().id)

    def failed(self, node: NodeId) -> NodeId | None:
        """The node did not answer: it goes, the newest replacement takes its place.

        Returns that replacement, which must be probed before it counts as reachable.
        """
        bucket = self._bucket(node)
        held = bucket.nodes.get(node, bucket.replacement_nodes.get(node))
        if held is None:
            return None
        before = set(bucket.nodes)
        bucket.remove_node(held)
        return next((NodeId(other) for other in bucket.nodes if other not in before), None)

    def nearest(self, target: bytes, count: int) -> list[KnownNode]:
        """The `count` contacts nearest to `target` (32 bytes), nearest first: exactly a sort of the whole table."""
        assert len(target) == ID_BYTES
        found: list[KnownNode] = []
        for bucket in self._visit(target):
            found += bucket.nodes.values()
            if len(found) >= count:
                break
        return sorted(found, key=lambda contact: distance(contact.id, target))[:count]

    def _visit(self, target: bytes) -> Iterator[KBucket]:
        """Buckets by rising distance of their contacts from `target`; their distance ranges do not overlap."""
        offset = distance(self._own, target)
        top = offset.bit_length()
        yield self._buckets[top]
        for index in range(top - 1, 0, -1):
            if offset >> (index - 1) & 1:
                yield self._buckets[index]
        for index in range(1, top):
            if not offset >> (index - 1) & 1:
                yield self._buckets[index]
        yield from self._buckets[top + 1 :]

    def _bucket(self, node: bytes) -> KBucket:
        return self._buckets[distance(self._own, node).bit_length()]

    def _admits(self, bucket: KBucket, node: NodeId, host: str, operator: str) -> bool:
        others = [held for held in (*bucket.nodes.values(), *bucket.replacement_nodes.values()) if held.id != node]
        same_operator = sum(held.operator == operator for held in others)
        network = network_of(host)
        same_network = sum(network_of(held.ip) == network for held in others) if network else 0
        return same_operator < self._params.operator_max and same_network < self._params.network_max


def network_of(host: str) -> str:
    """The /24 or /48 that `host` is in; a name stands for itself, loopback for nothing ('')."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return "" if host == "localhost" else host
    if ip.is_loopback:
        return ""
    return str(ipaddress.ip_network((ip, _V4_BITS if ip.version == 4 else _V6_BITS), strict=False))
