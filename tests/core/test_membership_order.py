"""The member table in id order: pages and neighbours of thousands, without a look at each of them."""

from __future__ import annotations

import random

from lockbox_node.core.member_events import ProbeFailed, Status, Tick
from lockbox_node.core.membership import Membership
from protocol.ids import NodeId, distance
from tests.fakes.swarm import PARAMS, heard, learned, node_id, own_signed

OWN, A, B = node_id(1), node_id(2), node_id(3)


def machine(*nodes: NodeId) -> Membership:
    """A machine of OWN at time 0 that knows `nodes`."""
    made = Membership(OWN, PARAMS, random.Random(1))
    made.handle(own_signed(OWN), 0.0)
    for node in nodes:
        made.handle(learned(node), 0.0)
    return made


def bury(made: Membership, node: NodeId, now: float) -> None:
    """Make `node` dead in the eyes of `made`."""
    made.handle(heard(node, Status.DEAD), now)
    made.handle(ProbeFailed(node), now)


class CountedId(bytes):
    """An id that counts how often one is compared with another."""

    compared = 0

    def __lt__(self, other: bytes) -> bool:
        CountedId.compared += 1
        return bytes.__lt__(self, other)

    def __gt__(self, other: bytes) -> bool:
        CountedId.compared += 1
        return bytes.__gt__(self, other)


def test_neither_a_page_nor_the_neighbours_cost_a_look_at_every_member() -> None:
    made = machine(*(NodeId(CountedId(random.Random(number).randbytes(32))) for number in range(2000)))
    CountedId.compared = 0
    assert made.compare([], limit=10).more
    assert made.compare([], after=bytes([128]), limit=10).more
    made.handle(learned(NodeId(CountedId(bytes(32)))), 0.1)
    assert len(made.neighbours()) == PARAMS.neighbours
    assert 0 < CountedId.compared < 500


def test_the_forgotten_are_on_no_page() -> None:
    made = machine(A, B)
    bury(made, A, 0.0)
    made.handle(Tick(), 86_500.0)
    assert A not in made.members
    assert [update.state.node for update in made.compare([]).updates] == [OWN, B]


def test_the_neighbours_are_the_nearest_that_live() -> None:
    nodes = [NodeId(random.Random(number).randbytes(32)) for number in range(60)]
    made = machine(*nodes)
    for gone in nodes[:30]:
        bury(made, gone, 0.0)
    made.handle(learned(nodes[0], 2), 0.1)
    living = sorted([nodes[0], *nodes[30:]], key=lambda node: distance(node, OWN))
    assert made.neighbours() == living[: PARAMS.neighbours]
    assert made.nearest_alive(nodes[5], 7) == sorted(living, key=lambda node: distance(node, nodes[5]))[:7]
