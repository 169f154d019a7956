"""Ten daemons split by `lockbox-testnet partition` and healed: the story of tests/end_to_end/split_story.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.local_network import LocalNetwork, Person, local_network
from tests.end_to_end.split_story import HALF, LONG_S, NODES, SHORT_S, play

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def network() -> Iterator[LocalNetwork]:
    with local_network(NODES) as network:
        yield network


class ByTestnet:
    """Halves of a test network. Whoever stands on a side takes all clients along: they share one address."""

    def __init__(self, network: LocalNetwork) -> None:
        self._network = network
        names = [node["name"] for node in network.nodes]
        self._sides = ",".join(names[:HALF]), ",".join(names[HALF:])
        self._parted = False

    def part(self) -> None:
        self._network.verb("partition", *self._sides)
        self._parted = True

    def heal(self) -> None:
        self._network.verb("heal")
        self._parted = False

    def statuses(self) -> list[dict[str, Any]]:
        return [row["status"] for row in self._network.status()]

    def stand(self, person: Person, side: str) -> None:
        """Asked again before each command of this person while the partition stands."""
        inner = person.run

        def run(*words: str, expect: int | None = 0) -> Any:  # noqa: ANN401
            if self._parted:
                self._network.verb("partition", *self._sides, "--client", side)
            return inner(*words, expect=expect)

        person.run = run  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "apart_s", [pytest.param(SHORT_S, id="short"), pytest.param(LONG_S, id="long", marks=pytest.mark.long)]
)
def test_two_halves_read_on_repair_nothing_and_become_one_again(
    network: LocalNetwork, apart_s: float, tmp_path: Path
) -> None:
    alice, bob, carol = (network.person(name) for name in ("alice", "bob", "carol"))
    alice.init()
    play(ByTestnet(network), alice, bob, carol, apart_s, tmp_path)
