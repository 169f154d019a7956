"""The routing table against a plain sort, its LRU, and its limits."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockbox_node.core.routing_table import RoutingParams, RoutingTable, network_of
from lockbox_node.errors import ConfigError
from protocol.ids import NodeId, distance

OWN = NodeId(bytes(32))
WIDE = RoutingParams(k=1000, network_max=1000, operator_max=1000, table_network_max=1000, table_operator_max=1000)


def node_id(number: int) -> NodeId:
    return NodeId(number.to_bytes(32, "big"))


def filled(own: NodeId, ids: list[NodeId], params: RoutingParams = WIDE) -> RoutingTable:
    table = RoutingTable(own, params)
    for node in ids:
        table.seen(node, "127.0.0.1", 1, "op")
    return table


def test_nearest_equals_a_plain_sort_for_random_ids() -> None:
    rng = random.Random(1)
    ids = [NodeId(rng.randbytes(32)) for _ in range(300)]
    table = filled(ids[0], ids[1:])
    for target in [rng.randbytes(32) for _ in range(50)] + [bytes(ids[0]), bytes(ids[7])]:
        for count in (1, 20, 299, 500):
            expected = sorted(ids[1:], key=lambda node: distance(node, target))[:count]
            assert [contact.id for contact in table.nearest(target, count)] == expected


small_ids = st.integers(0, 2**10 - 1).map(node_id)


@given(own=small_ids, ids=st.lists(small_ids, unique=True, max_size=60), target=small_ids, count=st.integers(1, 30))
def test_nearest_equals_a_plain_sort_for_long_shared_prefixes(
    own: NodeId, ids: list[NodeId], target: NodeId, count: int
) -> None:
    others = [node for node in ids if node != own]
    table = filled(own, ids)
    assert [one.id for one in table.nearest(target, count)] == sorted(others, key=lambda x: distance(x, target))[:count]
    assert len(table) == len(others)


def test_a_full_bucket_asks_for_a_probe_of_its_oldest_contact() -> None:
    ids = [node_id(2**20 + number) for number in range(4)]
    table = filled(OWN, ids[:3], RoutingParams(k=3, operator_max=9))
    table.seen(ids[0], "127.0.0.1", 1, "op")  # answered again: the newest now
    assert table.seen(ids[3], "127.0.0.1", 1, "op") == ids[1]
    assert ids[3] not in table
    assert table.failed(ids[1]) == ids[3], "the replacement takes the place and must be probed"
    assert ids[3] in table
    assert ids[1] not in table
    assert table.failed(ids[2]) is None, "no replacement is left"


def test_a_contact_that_answers_its_probe_stays() -> None:
    ids = [node_id(2**20 + number) for number in range(4)]
    table = filled(OWN, ids[:3], RoutingParams(k=3, operator_max=9))
    oldest = table.seen(ids[3], "127.0.0.1", 1, "op")
    assert oldest == ids[0]
    assert table.seen(ids[0], "127.0.0.1", 1, "op") is None
    assert ids[0] in table
    assert table.seen(ids[3], "127.0.0.1", 1, "op") == ids[1], "the next oldest is asked"


def test_a_replacement_that_fails_is_forgotten() -> None:
    ids = [node_id(2**20 + number) for number in range(3)]
    table = filled(OWN, ids, RoutingParams(k=2, operator_max=9))
    assert table.failed(ids[2]) is None
    assert table.failed(ids[0]) is None
    assert len(table) == 1
    assert table.failed(node_id(5)) is None


def test_at_most_two_of_one_operator_in_a_bucket() -> None:
    table = filled(OWN, [node_id(2**20 + number) for number in range(5)], RoutingParams())
    assert len(table) == 2
    table.seen(node_id(2**21), "127.0.0.1", 1, "op")
    table.seen(node_id(2**20 + 9), "127.0.0.1", 1, "other")
    assert len(table) == 4, "another bucket, and another operator, have room"


def test_at_most_two_of_one_network_in_a_bucket() -> None:
    table = RoutingTable(OWN, RoutingParams())
    for number, host in enumerate(["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.1", "2001:db8::1", "2001:db8:1::1"]):
        table.seen(node_id(2**20 + number), host, 1, f"op {number}")
    assert len(table) == 5
    assert node_id(2**20 + 2) not in table


def test_one_operator_or_network_never_fills_the_table() -> None:
    by_operator, by_network = (RoutingTable(OWN, RoutingParams()) for _ in range(2))
    for number in range(5, 205):
        by_operator.seen(node_id(2**number), f"10.0.{number}.1", 1, "op")
        by_network.seen(node_id(2**number), f"10.0.0.{number}", 1, f"op {number}")
    assert (len(by_operator), len(by_network)) == (8, 8)


def test_replacements_count_for_the_limits_too() -> None:
    table = filled(OWN, [node_id(2**20 + number) for number in range(6)], RoutingParams(k=1, operator_max=2))
    table.failed(node_id(2**20))
    assert table.failed(node_id(2**20 + 1)) is None, "one contact and one replacement were all"


def test_a_contact_that_moves_to_a_crowded_network_goes() -> None:
    table = RoutingTable(OWN, RoutingParams())
    for number in range(2):
        table.seen(node_id(2**20 + number), f"10.0.0.{number}", 1, f"op {number}")
    mover = node_id(2**20 + 2)
    table.seen(mover, "10.0.1.1", 1, "op 2")
    assert mover in table
    table.seen(mover, "10.0.0.9", 1, "op 2")
    assert mover not in table


def test_own_id_never_enters() -> None:
    table = RoutingTable(OWN, RoutingParams())
    assert table.seen(OWN, "127.0.0.1", 1, "op") is None
    assert len(table) == 0
    assert OWN not in table


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("10.1.2.3", "10.1.2.0/24"),
        ("2001:db8:5:1::9", "2001:db8:5::/48"),
        ("127.0.0.1", ""),
        ("127.9.9.9", ""),
        ("::1", ""),
        ("localhost", ""),
        ("node.example", "node.example"),
    ],
)
def test_networks_of_hosts(host: str, network: str) -> None:
    assert network_of(host) == network


@pytest.mark.parametrize("name", ["k", "network_max", "operator_max", "table_network_max", "table_operator_max"])
def test_params_below_one_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        RoutingParams(**{name: 0})
