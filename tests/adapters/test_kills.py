"""SIGKILL at random moments: what was acknowledged is there and whole, what was deleted stays deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.adapters.kills import Kills

if TYPE_CHECKING:
    import random
    from pathlib import Path

pytestmark = pytest.mark.real


@pytest.mark.slow
@pytest.mark.parametrize("kills", [25, pytest.param(200, marks=pytest.mark.long)])
def test_what_was_acknowledged_survives_sigkill(tmp_path: Path, rng: random.Random, kills: int) -> None:
    run = Kills(tmp_path, rng)
    for _ in range(kills):
        run.once()
    run.finish()
    assert run.wrong == []
    assert run.kills == kills
    assert len(run.puts) > kills
    assert run.deletes
