"""The contacts of a node in one bucket per bit length of the distance, and the exact XOR order over them.

Contact and bucket are `kademlia`'s Node and KBucket, used as an ordered LRU only: its clock field, splitting and
visiting order are not (they are wrong under churn). A contact moves to the tail each time that it is seen; a full
bucket keeps the newcomer as a replacement and asks for a probe of its oldest contact, which goes only when that fails.
At most 2 contacts of a /24 (IPv4) or /48 (IPv6) and of one operator per bucket, and 8 in the table, so that nobody who
rents one network fills it; loopback is exempt from the former. Who moves must fit where it is now.
Feed it authenticated contacts only. Maymounkov and Mazieres, Kademlia, 2002, sections 2.2 and 2.4.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kademlia.node import Node
from kademlia.routing import KBucket

from lockbox_node.errors import ConfigError
from protocol.ids import ID_BYTES, NodeId, bucket_index, distance

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKETS = 8 * ID_BYTES
_V4_BITS, _V6_BITS = 24, 48


@dataclass(frozen=True, slots=True)
class RoutingParams:
    """Bucket size `k`; how many contacts of one network and of one operator a bucket, and the whole table, takes."""

    k: int = 20
    network_max: int = 2
    operator_max: int = 2
    table_network_max: int = 8
    table_operator_max: int = 8

    def __post_init__(self) -> None:
        for name in ("k", "network_max", "operator_max", "table_network_max", "table_operator_max"):
            if getattr(self, name) < 1:
                raise ConfigError(f"routing.{name} must be at least 1")


class KnownNode(Node):  # type: ignore[misc]  # the package carries no types
    """The package's contact (`id`, `ip`, `port`), its operator and the network that its host is in."""

    def __init__(self, node: NodeId, host: str, port: int, operator: str) -> None:
        super().__init__(node, host, port)
        self.operator = operator
        self.network = network_of(host)


class RoutingTable:
    """Contacts of node `own`, which is never in it."""

    def __init__(self, own: NodeId, params: RoutingParams) -> None:
        self._own = own
        self._params = params
        # The range argument is the package's own bookkeeping; buckets here go by bit length.
        self._buckets: dict[int, KBucket] = {}  # those that ever held somebody, by bit length of the distance

    def __len__(self) -> int:
        """Contacts in the buckets; replacements are not counted."""
        return sum(len(bucket) for bucket in self._buckets.values())

    def __contains__(self, node: NodeId) -> bool:
        """Whether the node is a contact (not merely a replacement)."""
        bucket = self._buckets.get(bucket_index(self._own, node))
        return bucket is not None and node in bucket.nodes

    def seen(self, node: NodeId, host: str, port: int, operator: str) -> NodeId | None:
        """The node answered over an authenticated connection: it is now the newest of its bucket.

        Returns the contact to probe when the bucket is full, or when a replacement took the place of a contact that
        moved to where there are too many: report the outcome by `seen` or `failed`. None when there is nothing to do,
        too when the limits of network or operator keep the node out.
        """
        assert len(node) == ID_BYTES
        if node == self._own:
            return None
        bucket = self._bucket(node)
        contact = KnownNode(node, host, port, operator)
        if not self._admits(bucket, contact):
            return self.failed(node)
        if bucket.add_node(contact):
            return None
        return NodeId(bucket.head().id)

    def failed(self, node: NodeId) -> NodeId | None:
        """The node did not answer: it goes, the newest replacement takes its place.

        Returns that replacement, which must be probed before it counts as reachable.
        """
        bucket = self._buckets.get(bucket_index(self._own, node))
        if bucket is None:
            return None
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
        goal = int.from_bytes(target, "big")
        return sorted(found, key=lambda contact: int(contact.long_id) ^ goal)[:count]

    def _visit(self, target: bytes) -> Iterator[KBucket]:
        """Buckets by rising distance of their contacts from `target`; their distance ranges do not overlap."""
        offset = distance(self._own, target)
        top = offset.bit_length()
        held = sorted(self._buckets)
        order = [index for index in held if index == top]
        order += [index for index in reversed(held) if index < top and offset >> (index - 1) & 1]
        order += [index for index in held if index < top and not offset >> (index - 1) & 1]
        order += [index for index in held if index > top]
        return (self._buckets[index] for index in order)

    def _bucket(self, node: bytes) -> KBucket:
        index = bucket_index(self._own, node)
        if index not in self._buckets:
            # The range argument is the package's own bookkeeping; buckets here go by bit length.
            self._buckets[index] = KBucket(0, 1, self._params.k, replacementNodeFactor=1)
        return self._buckets[index]

    def _admits(self, bucket: KBucket, contact: KnownNode) -> bool:
        """Whether the limits leave room for it; who stands already, where it stood, does."""
        standing = bucket.nodes.get(contact.id)
        if standing is not None and (standing.network, standing.operator) == (contact.network, contact.operator):
            return True
        params, operator, network = self._params, contact.operator, contact.network
        kin = [  # who shares either with it; the second is whether in its bucket
            (one, held is bucket)
            for held in self._buckets.values()
            for contacts in (held.nodes, held.replacement_nodes)
            for one in contacts.values()
            if (one.operator == operator or one.network == network) and one.id != contact.id
        ]
        limits = (
            ([one for one, close in kin if close], params.network_max, params.operator_max),
            ([one for one, _ in kin], params.table_network_max, params.table_operator_max),
        )
        for others, network_max, operator_max in limits:
            if sum(one.operator == operator for one in others) >= operator_max:
                return False
            if network and sum(one.network == network for one in others) >= network_max:
                return False
        return True


def network_of(host: str) -> str:
    """The /24 or /48 that `host` is in; a name stands for itself, loopback for nothing ('')."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return "" if host == "localhost" else host
    if ip.is_loopback:
        return ""
    bits = _V4_BITS if ip.version == 4 else _V6_BITS
    host_bits = ip.max_prefixlen - bits
    return f"{type(ip)(int(ip) >> host_bits << host_bits)}/{bits}"
