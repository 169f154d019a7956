"""A network that is broken under load, by a seed: nothing is lost, everything is whole at the end."""

from __future__ import annotations

import faulthandler
from typing import TYPE_CHECKING

import pytest
import trio

from benchmarks.local_network import local_network
from benchmarks.storm import blow

if TYPE_CHECKING:
    from pathlib import Path

NODES = 25


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("assets", "minutes", "seed"),
    [
        pytest.param(200, 2.0, 1, id="2 min"),
        pytest.param(1000, 10.0, 2, id="10 min", marks=pytest.mark.long),
    ],
)
def test_nothing_is_lost_in_a_storm(
    assets: int, minutes: float, seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faulthandler.cancel_dump_traceback_later()  # it takes longer than what hangs
    with local_network(NODES) as network:
        lines, problems = trio.run(blow, network, tmp_path, seed, assets, minutes)
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    assert not problems
