"""The stripes of an asset of ours as they stand in the network: what renewing and deleting begin with.

A stripe keeps no private key: whoever signs derives it again, uses it, and wipes it. Holders are everybody whom any
table names, also in lines that were overtaken: a node that was replaced while it was away may return with its part.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from lockbox_node.client.finding import Presence
from lockbox_node.client.standing import Standing
from lockbox_node.client.survey import Survey
from lockbox_node.core.derivation import root_key, stripe_key
from lockbox_node.core.manifest import open_slots

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable

    from lockbox_node.client.standing import Slot
    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry
    from lockbox_node.core.derivation import AssetKey
    from lockbox_node.core.manifest import Manifest
    from protocol.ids import Address
    from protocol.messages import Message

WINDOW = 8


class OwnStripe:
    """One stripe and what stands at its address. `key` derives its key, which the caller wipes."""

    def __init__(self, key: Callable[[], AssetKey], address: Address, standing: Standing) -> None:
        self.key = key
        self.address = address
        self.standing = standing

    @classmethod
    async def data(cls, vault: Vault, asset: AssetEntry, asset_salt: bytes, number: int) -> OwnStripe:
        """Find stripe `number` >= 1 of `asset`."""
        return await cls.at(vault, partial(stripe_key, vault.wallet.master, asset.index, asset_salt, number))

    @classmethod
    async def root(cls, vault: Vault, asset: AssetEntry) -> OwnStripe:
        """Find the root stripe of `asset`."""
        return await cls.at(vault, partial(root_key, vault.wallet.master, asset.index), asset)

    @classmethod
    async def at(cls, vault: Vault, key: Callable[[], AssetKey], asset: AssetEntry | None = None) -> OwnStripe:
        """Find what stands at the address of this key."""
        with key() as once:
            standing = Standing(vault, once)
        await standing.ask(asset)
        return cls(key, once.address, standing)

    @classmethod
    async def whole_root(cls, vault: Vault, asset: AssetEntry, patience_s: float) -> OwnStripe:
        """Find everything that stands at the root's address, however long the silent take, up to `patience_s`."""
        key = partial(root_key, vault.wallet.master, asset.index)
        with key() as once:
            standing = Standing(vault, once)
        await standing.ask_everybody(patience_s)
        return cls(key, once.address, standing)

    @property
    def presence(self) -> Presence:
        """What the nearest nodes say."""
        return self.standing.presence

    def slot(self, asset: AssetEntry | None = None) -> Slot | None:
        """The newest version that holders show: of a root stripe that of `asset`, never a sibling of it."""
        slots = self.standing.slots if asset is None else self.standing.slots_of(asset)
        return next(iter(slots), None)

    @property
    def version(self) -> int:
        """The highest version that ever stood here, as far as anybody shows, or two nodes say; 0 for none."""
        finding = self.standing.finding
        shown = [slot.descriptor.version for slot in self.standing.slots]
        said = [table.version for table in finding.tables() if table.credible]
        return max(0, finding.tombstone_version, *shown, *said)

    @property
    def named(self) -> frozenset[bytes]:
        """Every holder that a table names, deleted or not. Where nobody is heard it may be any of the nearest nodes."""
        finding = self.standing.finding
        if self.presence is Presence.UNKNOWN:
            return finding.near
        return finding.named.union(*(slot.shown_by for slot in self.standing.slots))


def manifest_of(vault: Vault, stripe: OwnStripe, slot: Slot) -> Manifest:
    """What the stripe's owner sealed in it. LockboxError METADATA_CORRUPT."""
    return open_slots(slot.slots, vault.wallet.master, stripe.address, slot.descriptor.version)


async def in_turn(numbers: Iterable[int], work: Callable[[int], Awaitable[None]], window: int = WINDOW) -> None:
    """`work` on each number, `window` of them at a time."""
    waiting = iter(numbers)

    async def some() -> None:
        for number in waiting:
            await work(number)

    async with trio.open_nursery() as nursery:
        for _ in range(window):
            nursery.start_soon(some)


class Telling:
    """Requests that every one of several nodes is to acknowledge. Who was silent once is not waited for again."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._silent: set[bytes] = set()

    async def tell(self, request: Message, nodes: Collection[bytes]) -> Survey:
        """Send it to all of `nodes` that are members; return when all have answered, or after `tell_s`."""
        vault = self._vault
        members = [member for node in sorted(nodes) if (member := vault.members.get(node)) is not None]
        survey = Survey(vault, request, members, lambda _node, _reply: None)
        waited_for = {member.record.node for member in members} - self._silent
        survey.ask(len(members))

        def enough() -> bool:
            return all(node in survey.answered or node in survey.failed for node in waited_for)

        await survey.until(enough, trio.current_time() + vault.params.tell_s, vault.params.tell_s)
        self._silent |= {node for node in waited_for if node not in survey.answered and node not in survey.failed}
        return survey
