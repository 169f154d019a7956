"""Twenty daemons in as many network namespaces, cut apart by nft on their bridge: the story of split_story.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.end_to_end.split_story import HALF, LONG_S, NODES, SHORT_S, play
from tests.real import netns
from tests.real.village import Village, Villager, ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.local_network import Person

pytestmark = pytest.mark.root


class ByPackets(Village):
    """A village that is cut in two halves."""

    def part(self) -> None:
        netns.part(range(1, HALF + 1), range(HALF + 1, NODES + 1))

    def heal(self) -> None:
        netns.heal()

    def statuses(self) -> list[dict[str, Any]]:
        return [ask(data, "status") for data in self.nodes]

    def stand(self, person: Person, side: str) -> None:
        assert isinstance(person, Villager)
        person.namespace = 1 if side == "A" else NODES


@pytest.fixture
def halves(tmp_path: Path) -> Iterator[ByPackets]:
    netns.require_tools()
    with netns.namespaces(NODES):
        yield ByPackets(tmp_path, NODES)


@pytest.mark.parametrize(
    "apart_s", [pytest.param(SHORT_S, id="short"), pytest.param(LONG_S, id="long", marks=pytest.mark.long)]
)
def test_two_halves_read_on_repair_nothing_and_become_one_again(halves: ByPackets, apart_s: float) -> None:
    people = [halves.home / name for name in ("alice", "bob", "carol")]
    for home in people:
        home.mkdir()
    with halves.running() as network:
        alice, bob, carol = (Villager(network, home) for home in people)
        alice.init()
        play(halves, alice, bob, carol, apart_s, halves.home)
