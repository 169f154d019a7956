"""The high-water mark of a wallet, kept in the network: asset indices below it may be in use.

It stands in the wallet's own slot, a stripe without groups, placed by the widest tier that the network can carry. It
only rises: each raise replaces what was seen, and siblings (two machines that raise at once) merge by maximum. With
it, recovery knows how far to scan at least. Source: DESIGN, Client pipeline, Wallet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockbox_node.client.finding import Presence
from lockbox_node.client.putting import StripePut
from lockbox_node.client.standing import Standing
from lockbox_node.client.stripes import mixed_slots, signed_stripe
from lockbox_node.core.derivation import AssetKey, wallet_key
from lockbox_node.core.manifest import KIND_WALLET_MARK, open_slots, wallet_mark
from lockbox_node.core.tiers import TIERS
from lockbox_node.errors import LockboxError, NotEnoughShards, PeerUnreachable
from protocol.errors import ErrorCode
from protocol.messages import SIBLINGS_MAX

if TYPE_CHECKING:
    from lockbox_node.client.standing import Slot
    from lockbox_node.client.vault import Vault
    from lockbox_node.core.placement import Candidate
    from lockbox_node.core.tiers import Tier

RAISE_TRIES = 4  # when other machines raise at the same time


@dataclass(frozen=True, slots=True)
class SeenMark:
    """The mark in the network: 0 and version 0 when there is none; `replaces` = what the next raise takes over."""

    mark: int
    version: int
    replaces: tuple[bytes, ...]


async def read_mark(vault: Vault) -> SeenMark:
    """The highest mark that the nearest nodes show. PeerUnreachable when they cannot be heard."""
    with wallet_key(vault.wallet.master) as key:
        standing = Standing(vault, key)
        await standing.ask()
        if standing.presence is Presence.UNKNOWN:
            raise PeerUnreachable(
                "too few of the nodes that keep this wallet's mark answer", "check the connection, then try again"
            )
        slots = standing.slots[:SIBLINGS_MAX]
        if standing.presence is Presence.STANDS and not slots:
            raise NotEnoughShards("no holder of this wallet's mark answers", "start holders, or wait and try again")
        marks = [_mark_of(vault, key, slot) for slot in slots]
        version = max([slot.descriptor.version for slot in slots], default=standing.finding.tombstone_version)
        return SeenMark(max(marks, default=0), max(version, 0), tuple(slot.table.descriptor_hash for slot in slots))


async def raise_mark(vault: Vault, seen: SeenMark, mark: int) -> None:
    """Let the network know that indices below `mark` may be in use; durable when this returns."""
    assert mark > seen.mark
    for _ in range(RAISE_TRIES):
        put = await _put_mark(vault, seen, mark)
        if len(put.stored) >= put.stripe.tier.durable_min:
            return
        if not put.taken:
            raise put.refusal("this wallet's mark was not raised, and nothing was locked")
        seen = await read_mark(vault)
        if seen.mark >= mark:
            return
    raise LockboxError("other machines keep changing this wallet at the same time", "try again", ErrorCode.CONFLICT)


async def _put_mark(vault: Vault, seen: SeenMark, mark: int) -> StripePut:
    key = wallet_key(vault.wallet.master)
    try:
        await vault.approach(key.address)
        tier, holders = _widest(vault, key)
        version = seen.version + 1
        now_unix_s = int(vault.now_unix_s())
        manifest = wallet_mark(tier, mark, now_unix_s)
        slots = mixed_slots(manifest, vault.wallet.master, key.address, version, tier, vault.entropy)
        lease_until_unix_s = now_unix_s + tier.lease_max_s
        stripe = signed_stripe(key, tier, version, [], slots, now_unix_s, lease_until_unix_s, seen.replaces)
        put = StripePut(vault, stripe, holders, siblings_matter=False)
        await put.run()
        return put
    finally:
        key.wipe()


def _widest(vault: Vault, key: AssetKey) -> tuple[Tier, dict[int, Candidate]]:
    """The tier with the most holders that can be placed; raises what the smallest one lacks."""
    for tier in reversed(TIERS[1:]):
        try:
            return tier, vault.place(tier, key.address)
        except LockboxError:
            continue
    return TIERS[0], vault.place(TIERS[0], key.address)


def _mark_of(vault: Vault, key: AssetKey, slot: Slot) -> int:
    manifest = open_slots(slot.slots, vault.wallet.master, key.address, slot.descriptor.version)
    return manifest.mark if manifest.kind == KIND_WALLET_MARK else 0
