"""A cut without root: what is open stalls and goes on, what is dialled hangs, nobody learns of a close."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from lockbox_node.adapters.parted_network import HOSTS_MAX, PartedNetwork, program_of
from lockbox_node.adapters.tcp import TcpNetwork
from lockbox_node.errors import ConfigError
from tests.adapters.peers import echo, received, serving

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.adapters.identity import ClientIdentity, NodeIdentity
    from lockbox_node.ports import PeerStream

pytestmark = pytest.mark.real

HERE, THERE, ELSEWHERE, CLIENT = "127.9.1.1", "127.9.2.1", "127.9.3.1", "127.0.0.1"
SILENCE_S = 0.3  # longer than loopback and the first retransmission take


class Cut:
    """The orders, and the networks that follow them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.networks: list[PartedNetwork] = []

    def network(self, identity: NodeIdentity, host: str) -> PartedNetwork:
        self.networks.append(PartedNetwork(identity, host, 0, self.path))
        return self.networks[-1]

    def make(self, orders: dict[str, list[str]]) -> None:
        self.path.write_text(json.dumps(orders))
        self._obey()

    def heal(self) -> None:
        self.path.unlink()
        self._obey()

    def _obey(self) -> None:
        for network in self.networks:
            network.obey()


BOTH_WAYS = {HERE: [THERE], THERE: [HERE]}


@pytest.fixture
def cut(tmp_path: Path) -> Cut:
    return Cut(tmp_path / "partition.json")


async def test_an_open_connection_stalls_and_goes_on_after_healing(cut: Cut, node: NodeIdentity) -> None:
    async with serving(cut.network(node, THERE)) as port:
        stream = await cut.network(node, HERE).dial(THERE, port)
        cut.make(BOTH_WAYS)
        await stream.send_all(b"hello")
        with trio.move_on_after(SILENCE_S) as silence:
            await received(stream, 1)
        assert silence.cancelled_caught
        cut.heal()
        assert await received(stream, 5) == b"hello"
        await stream.aclose()


async def test_a_close_is_not_heard_across_the_cut(cut: Cut, node: NodeIdentity) -> None:
    ended = trio.Event()

    async def handler(stream: PeerStream) -> None:
        await echo(stream)
        ended.set()

    async with serving(cut.network(node, THERE), handler) as port:
        stream = await cut.network(node, HERE).dial(THERE, port)
        await stream.send_all(b"x")
        await received(stream, 1)
        cut.make(BOTH_WAYS)
        await stream.aclose()
        with trio.move_on_after(SILENCE_S):
            await ended.wait()
        assert not ended.is_set()
        cut.heal()
        await ended.wait()


async def test_a_dial_hangs_and_is_answered_once_it_is_healed(cut: Cut, node: NodeIdentity) -> None:
    async with serving(cut.network(node, THERE)) as port:
        here = cut.network(node, HERE)
        cut.make(BOTH_WAYS)
        with trio.move_on_after(SILENCE_S) as silence:
            await here.dial(THERE, port)
        assert silence.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_dial_and_close, here, port)
            await trio.testing.wait_all_tasks_blocked()
            cut.heal()


async def _dial_and_close(network: TcpNetwork, port: int) -> None:
    await (await network.dial(THERE, port)).aclose()


async def test_others_and_clients_go_on_unless_they_are_named(
    cut: Cut, node: NodeIdentity, client: ClientIdentity
) -> None:
    async with serving(cut.network(node, THERE)) as port:
        cut.make(BOTH_WAYS)
        await _dial_and_close(cut.network(node, ELSEWHERE), port)
        await _dial_and_close(TcpNetwork(client), port)
        cut.make({THERE: [HERE, CLIENT]})
        with trio.move_on_after(SILENCE_S) as silence:
            await TcpNetwork(client).dial(THERE, port)
        assert silence.cancelled_caught
        await _dial_and_close(cut.network(node, ELSEWHERE), port)


async def test_a_node_that_starts_in_a_partition_is_in_it(cut: Cut, node: NodeIdentity) -> None:
    cut.make({THERE: [HERE]})
    there = cut.network(node, THERE)
    assert await there.verb({}) == {"dropped": [HERE]}
    async with serving(there) as port:
        with trio.move_on_after(SILENCE_S) as silence:
            await cut.network(node, HERE).dial(THERE, port)
        assert silence.cancelled_caught


async def test_the_largest_network_fits_one_filter(cut: Cut, node: NodeIdentity) -> None:
    many = [f"127.8.{i}.1" for i in range(HOSTS_MAX - 1)]
    async with serving(cut.network(node, THERE)) as port:
        here = cut.network(node, HERE)
        cut.make({THERE: many})
        await _dial_and_close(here, port)
        cut.make({THERE: [*many, HERE]})
        with trio.move_on_after(SILENCE_S) as silence:
            await here.dial(THERE, port)
        assert silence.cancelled_caught


def test_every_address_of_a_filter_jumps_to_its_last_step() -> None:
    program = program_of([HERE, THERE, ELSEWHERE])
    assert [at + 1 + step[1] for at, step in enumerate(program) if step[1]] == [5, 5, 5]
    assert [step[3] for step in program[-2:]] == [0xFFFFFFFF, 0]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::1", "localhost"])
async def test_only_a_loopback_address_can_be_parted(host: str, cut: Cut, node: NodeIdentity) -> None:
    with pytest.raises(ConfigError, match="test networks"):
        cut.network(node, host)


@pytest.mark.parametrize(
    "words", ["", "[]", '{"127.9.1.1": 7}', '{"127.9.1.1": ["x"]}', '{"127.9.1.1": ["192.0.2.1"]}', "\xff"]
)
async def test_orders_that_make_no_sense_are_refused_and_change_nothing(
    words: str, cut: Cut, node: NodeIdentity
) -> None:
    cut.make({HERE: [THERE]})
    network = cut.network(node, HERE)
    cut.path.write_bytes(words.encode("latin-1"))
    with pytest.raises(ConfigError, match="does not say who is cut off"):
        network.obey()
    assert network.dropped == (THERE,)
