"""What a person was told: every stripe of the asset, and which disk acknowledged which shard of it.

An asset is its root stripe and, when it is large, data stripes at addresses of their own. Those follow from the
wallet's key and the salt in the sealed manifest, so they are found as the owner finds them: by her key, which is wiped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lockbox_node.client.stripes import key_of_stripe
from lockbox_node.core.manifest import open_slots, plan_of
from protocol.ids import Address
from protocol.records import open_descriptor
from simulations.snapshot import StripeSeen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from lockbox_node.client.wallet import AssetEntry
    from simulations.cluster import Host
    from simulations.disk import SimDisk
    from simulations.kept import Kept


@dataclass(frozen=True, slots=True)
class Promise:
    """One stripe as it was acknowledged. `disks` = index -> the disk that acknowledged it."""

    stripe: StripeSeen
    disks: Mapping[int, SimDisk]

    def now(self, disks: Mapping[bytes, SimDisk]) -> StripeSeen:
        """The stripe without what a disk acknowledged that another has taken the place of; `disks` by node."""
        stripe = self.stripe
        holders = {index: holder for index, holder in stripe.holders.items() if disks[holder] is self.disks[index]}
        return replace(stripe, holders=holders) if len(holders) < len(stripe.holders) else stripe


def promises(hosts: Iterable[Host], entry: AssetEntry, master: bytearray) -> list[Promise]:
    """Every stripe of an asset that was locked in this step, the root first, by what is on the disks."""
    every = list(hosts)

    def is_root(kept: Kept) -> bool:
        return kept.part.descriptor_hash == entry.descriptor_hash

    root = _standing(every, entry.address, is_root)
    found = [_promise(entry, entry.descriptor_hash, root)]
    for address in _data_addresses([kept for _, kept in root], entry, master):
        standing = _standing(every, address, lambda _kept: True)
        hashes = {kept.part.descriptor_hash for _, kept in standing}
        assert len(hashes) <= 1, "the address of a data stripe is drawn anew for every lock"
        found.append(_promise(entry, next(iter(hashes), b""), standing, address))
    return found


def layout(hosts: Iterable[Host], entry: AssetEntry, master: bytearray) -> tuple[int, list[int]] | None:
    """How many groups the root stripe has, and where the real ones stand; None when nobody has it."""
    for host in hosts:
        for kept in host.disk.parts.standing(Address(entry.address)):
            if kept.part.descriptor_hash == entry.descriptor_hash:
                manifest = open_slots(kept.part.slots, master, Address(entry.address), entry.version)
                return len(open_descriptor(kept.part.descriptor).groups), manifest.order
    return None


def _data_addresses(root: Sequence[Kept], entry: AssetEntry, master: bytearray) -> Iterator[Address]:
    """Of the stripes behind the root; none when nobody has the root."""
    if not root:
        return
    manifest = open_slots(root[0].part.slots, master, Address(entry.address), entry.version)
    for number in range(1, plan_of(manifest).stripes):
        with key_of_stripe(master, entry.index, manifest.asset_salt, number) as key:
            yield key.address


def _standing(hosts: Iterable[Host], address: bytes, wanted: Callable[[Kept], bool]) -> list[tuple[Host, Kept]]:
    return [(host, kept) for host in hosts for kept in host.disk.parts.standing(Address(address)) if wanted(kept)]


def _promise(
    entry: AssetEntry, descriptor_hash: bytes, standing: Sequence[tuple[Host, Kept]], address: bytes = b""
) -> Promise:
    holders = {kept.part.index: host.id for host, kept in standing}
    disks = {kept.part.index: host.disk for host, kept in standing}
    return Promise(StripeSeen(address or entry.address, descriptor_hash, entry.tier, holders), disks)
