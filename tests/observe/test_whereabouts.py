"""What a node says of places: its own, and the others'."""

from __future__ import annotations

from lockbox_node.core.location import Judgement, Sighting
from lockbox_node.observe.whereabouts import level_word, location_said, location_work
from protocol.ids import NodeId
from tests.fakes.nodes import Town

A, B, C = (NodeId(bytes([number]) * 32) for number in (1, 2, 3))
SEEN = Sighting(A, "eu-central-1", B, "ap-southeast-2", 2_000)


def test_a_level_is_one_word() -> None:
    judgement = Judgement({B: (SEEN,)}, frozenset({A}), (SEEN,), doubted=False)
    assert [level_word(judgement, node) for node in (A, B, C)] == ["measured", "refuted", "claimed"]


async def test_a_node_that_knows_nothing_says_so() -> None:
    node = Town().node(1)
    assert location_said(node.measuring, node.discovery) == {
        "policy": "claimed",
        "level": "claimed",
        "contradicted_by": [],
        "doubted": False,
        "reports": 0,
        "contradictions": 0,
        "refuted": [],
    }
    work = location_work(node.measuring)
    assert (work.enforced, work.reports, work.pings, work.refused) == (False, 0, 0, {})
