"""Clients of a simulated network: a real Vault over a real wallet, and what its owner knows of each asset.

The wallet's files lie in a directory that lives as long as the person and has no part in the trace.
"""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from cryptography.hazmat.primitives.serialization import Encoding

from lockbox_node.client.ending import delete
from lockbox_node.client.lock import lock
from lockbox_node.client.sink import MemorySink
from lockbox_node.client.source import BytesSource
from lockbox_node.client.unlock import unlock
from lockbox_node.client.vault import Ports, Vault, open_vault
from lockbox_node.client.wallet import Wallet
from lockbox_node.client.words import new_words
from lockbox_node.errors import LockboxError
from simulations.world import DriftingClock, InlineWorkers, who

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from random import Random

    from lockbox_node.client.wallet import AssetEntry
    from lockbox_node.core.tiers import Tier
    from protocol.certificates import NetworkRoot, Role
    from protocol.messages import Hello
    from simulations.cluster import Cluster
    from simulations.identities import FakeIdentity
    from simulations.world import World

PASSPHRASE = "correct horse battery staple"  # noqa: S105  # of wallets that live for one run


class _Papers:
    """A client's LocalIdentity by its own clock."""

    def __init__(self, identity: FakeIdentity, clock: DriftingClock) -> None:
        self._identity, self._clock = identity, clock
        self.id: bytes = identity.id
        self.role: Role = identity.role
        self.root: NetworkRoot = identity.root

    def hello(self) -> Hello:
        """What it says now."""
        self._identity.now_unix_s = self._clock.now_unix_s()
        return self._identity.hello()


@dataclass(frozen=True, slots=True)
class Kept:
    """An asset whose lock was acknowledged, and the SHA-256 of its content."""

    asset: AssetEntry
    digest: bytes
    tier: Tier


@dataclass
class Person:
    """Locks and unlocks; `kept` in the order of the locks."""

    name: str
    vault: Vault
    world: World
    rng: Random
    on_locked: Callable[[Kept, int], None]
    kept: list[Kept] = field(default_factory=list)
    failed_locks: int = 0
    failed_unlocks: int = 0
    wrong_reads: int = 0

    async def lock(self, size: int, tier: Tier) -> Kept | None:
        """Lock `size` drawn bytes; None when the network could not take them."""
        content = self.rng.randbytes(size)
        digest = hashlib.sha256(content).digest()
        trace = self.world.trace
        try:
            result = await lock(self.vault, BytesSource(bytearray(content)), tier)
        except LockboxError as error:
            self.failed_locks += 1
            trace.add("not locked", self.name, size, error.message)
            return None
        kept = Kept(result.asset, digest, tier)
        self.kept.append(kept)
        self.on_locked(kept, result.placed)
        trace.add("locked", self.name, size, result.placed, result.wanted, round(result.seconds, 6))
        return kept

    async def unlock(self, kept: Kept) -> bool:
        """Unlock an asset and compare; False when that failed."""
        sink = MemorySink()
        trace = self.world.trace
        try:
            result = await unlock(self.vault, kept.asset, sink)
        except LockboxError as error:
            self.failed_unlocks += 1
            trace.add("not unlocked", self.name, kept.asset.size, error.message)
            return False
        right = hashlib.sha256(sink.content).digest() == kept.digest
        trace.add("unlocked", self.name, kept.asset.size, int(right), round(result.seconds, 6))
        self.wrong_reads += not right
        assert right, "an unlock gave other bytes than were locked"
        return True

    async def delete(self, kept: Kept) -> int:
        """Delete an asset; how many of its holders did not confirm. Nobody owes it from the first tombstone on."""
        self.kept.remove(kept)
        result = await delete(self.vault, kept.asset)
        self.world.trace.add("deleted", self.name, kept.asset.size, len(result.missing))
        return len(result.missing)

    async def live(self, pause_s: float, tiers: Sequence[Tier], sizes: Sequence[int]) -> None:
        """Lock one, unlock one, wait `pause_s` on average; for ever."""
        rng = self.rng
        while True:
            await self.lock(rng.choice(sizes), rng.choice(tiers))
            if self.kept:
                await self.unlock(rng.choice(self.kept))
            await trio.sleep(rng.expovariate(1 / pause_s))

    async def read_all(self) -> None:
        """AssertionError when an asset that was acknowledged cannot be read."""
        lost = [kept for kept in self.kept if not await self.unlock(kept)]
        assert not lost, f"{len(lost)} of {len(self.kept)} assets cannot be read"


@asynccontextmanager
async def a_person(
    cluster: Cluster, number: int, region: str = "eu-central-1", words: str = ""
) -> AsyncIterator[Person]:
    """Client `number`, joined. Of the same `words` are two machines of one person; new ones where none are given."""
    world, name = cluster.world, f"client{number}"
    cluster.geography.place(name, region)
    who.set(name)
    clock = DriftingClock()
    identity = cluster.authority.client(number)
    entropy = world.entropy(name)
    root_pem = cluster.authority.root.certificate.public_bytes(Encoding.PEM)
    with tempfile.TemporaryDirectory(prefix="lockbox-simulation-") as directory:
        path = Path(directory) / "wallet"
        words, bootstrap = words or new_words(entropy), cluster.bootstrap
        with Wallet.create(path, words, PASSPHRASE, PASSPHRASE, root_pem, bootstrap, None, None, entropy) as wallet:
            network = cluster.hub.network(name, identity.leaf)
            ports = Ports(network, entropy, clock, InlineWorkers())
            async with open_vault(ports, _Papers(identity, clock), wallet, bootstrap) as vault:
                person = Person(name, vault, world, world.rng(name), cluster.on_locked)
                cluster.people.append(person)
                yield person
