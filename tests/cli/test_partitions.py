"""The words of `partition A B`, and what they mean for each node."""

from __future__ import annotations

import pytest

from lockbox_node.cli.partitions import CLIENT_HOST, Partition
from lockbox_node.errors import UsageError

NODES = ("n01", "n02", "n03", "n04", "n05")


def host_of(name: str) -> str:
    return f"127.1.{int(name[1:])}.1"


def test_both_sides_drop_one_another_and_nobody_else() -> None:
    partition = Partition.of("n01,n02", "n03", None, NODES)
    assert partition.orders(host_of) == {
        "127.1.1.1": ["127.1.3.1"],
        "127.1.2.1": ["127.1.3.1"],
        "127.1.3.1": ["127.1.1.1", "127.1.2.1"],
    }
    assert partition.parts("n01", "n03")
    assert partition.parts("n03", "n02")
    assert not partition.parts("n01", "n02")
    assert not partition.parts("n01", "n04")


@pytest.mark.parametrize(("client", "deaf"), [("A", ["127.1.3.1"]), ("B", ["127.1.1.1", "127.1.2.1"])])
def test_the_side_without_the_client_drops_it(client: str, deaf: list[str]) -> None:
    orders = Partition.of("n01,n02", "n03", client, NODES).orders(host_of)
    assert [host for host, dropped in orders.items() if CLIENT_HOST in dropped] == deaf


def test_a_name_given_twice_counts_once() -> None:
    assert Partition.of("n02,n01,n02", "n03", None, NODES).a == ("n02", "n01")


def test_it_is_told_to_people_and_scripts() -> None:
    partition = Partition.of("n01,n02", "n03", "B", NODES)
    assert partition.described() == {"a": ["n01", "n02"], "b": ["n03"], "client": "B"}
    assert partition.words() == "A = n01, n02 and B = n03 do not hear one another; clients reach only B"


@pytest.mark.parametrize(
    ("a", "b", "client", "word"),
    [
        ("", "n01", None, "side A names no node"),
        ("n01", ",", None, "side B names no node"),
        ("n01", "n77", None, "no node 'n77'"),
        ("n01,,n02", "n03", None, "no node ''"),
        ("n01 n02", "n03", None, "no node 'n01 n02'"),
        ("n01,n02", "n02,n03", None, "'n02' is on both sides"),
        ("n01", "n02", "C", "'C' is no side"),
    ],
)
def test_wrong_words_are_refused(a: str, b: str, client: str | None, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        Partition.of(a, b, client, NODES)


@pytest.mark.parametrize(
    ("client", "reached"), [(None, ["n01", "n02", "n03"]), ("A", ["n01", "n03"]), ("B", ["n02", "n03"])]
)
def test_clients_reach_their_side_and_who_stands_on_none(client: str | None, reached: list[str]) -> None:
    partition = Partition(("n01",), ("n02",), client)
    assert [name for name in ("n01", "n02", "n03") if partition.reach_clients(name)] == reached
