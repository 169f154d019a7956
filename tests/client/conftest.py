"""A cluster of 24 nodes in 7 regions, and the wallet of one person."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock

from tests.fakes.cluster import Cluster, a_wallet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import Wallet

NODES = 24
HERE = Path(__file__).parent


def run_in_no_time(
    main: Callable[[], Awaitable[object]], *, clock: trio.abc.Clock | None = None, instruments: tuple[object, ...] = ()
) -> object:
    """trio.run on a clock that jumps to whatever is waited for. A fixture cannot give it: only tests' own can."""
    return trio.run(main, clock=clock or MockClock(autojump_threshold=0))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder runs in virtual time."""
    for item in items:
        if HERE in item.path.parents and inspect.iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.trio(run=run_in_no_time))


@pytest.fixture
async def cluster(nursery: trio.Nursery) -> Cluster:
    """Running nodes."""
    cluster = Cluster(NODES)
    await nursery.start(cluster.run)
    return cluster


@pytest.fixture
def wallet(cluster: Cluster, tmp_path: Path) -> Wallet:
    """A fresh wallet."""
    return a_wallet(cluster, tmp_path / "wallet")


@pytest.fixture
async def vault(cluster: Cluster, wallet: Wallet) -> AsyncIterator[Vault]:
    """A joined client."""
    async with cluster.client(wallet) as vault:
        yield vault
