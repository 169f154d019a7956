"""Each scenario in its shortest form, with the checks at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lockbox_node.observe import logging
from simulations.running import Plan, named, names, run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

NODES, HOURS = 12, 0.02  # a ten-node tier and two nodes that are away


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """The log is every run's own."""
    yield
    logging.configure(strict=True)


@pytest.mark.parametrize("name", names())
def test_every_scenario_holds_for_a_minute(name: str) -> None:
    report = run(Plan(name, NODES, 1, HOURS), named(name))
    assert not report.failure, report.failure
