"""A cluster of 24 nodes in 7 regions, and the wallet of one person."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes import virtual_time
from tests.fakes.cluster import Cluster, a_wallet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import trio

    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import Wallet

NODES = 24
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder runs in virtual time."""
    virtual_time.mark(items, HERE)


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
