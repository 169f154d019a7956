"""Renew assets: one renewal per stripe, signed by its key, sent to every holder that a table names.

A lease is only ever lengthened. A shorter one than stands changes nothing, but what stands is signed and sent again, so
that holders which missed it learn it. The wallet's own mark is renewed with everything else: without it recovery would
not know how far to look. Source: DESIGN, Client pipeline; SPEC.md, Messages.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import trio

from lockbox_node.client.finding import Presence
from lockbox_node.client.lock import checked_lease
from lockbox_node.client.own_stripes import OwnStripe, Telling, in_turn, manifest_of
from lockbox_node.client.standing import check_presence
from lockbox_node.core.derivation import wallet_key
from lockbox_node.core.manifest import plan_of
from lockbox_node.core.repair import current_indices
from lockbox_node.core.tiers import tier_numbered
from lockbox_node.errors import (
    AssetNotFound,
    ExitCode,
    LockboxError,
    NotEnoughShards,
    PeerUnreachable,
    RequestRefused,
    worst,
)
from protocol.errors import ErrorCode
from protocol.messages import SIBLINGS_MAX, HolderEntry, Renew
from protocol.records import Renewal, sign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lockbox_node.client.standing import Slot
    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry
    from lockbox_node.core.tiers import Tier

WINDOW_ASSETS = 4


@dataclass(frozen=True, slots=True)
class SlotRenewal:
    """What became of the renewal of one stripe: `indices` of `n` have a live holder that acknowledged it."""

    lease_until_unix_s: int
    lengthened: bool
    indices: int
    k: int
    n: int
    refusals: tuple[LockboxError, ...] = ()


@dataclass(frozen=True, slots=True)
class RenewResult:
    """How far an asset's lease reaches now. `renewed` of `wanted` parts (one per index and stripe) acknowledged it."""

    asset: AssetEntry
    lease_until_unix_s: int
    lengthened: bool  # False: a lease as long or longer stood already
    renewed: int
    wanted: int
    stripes: int
    lost: int  # stripes of which fewer than k parts acknowledged
    seconds: float

    @property
    def exit_code(self) -> ExitCode:
        """8 when holders are missing, 5 when so many are that a stripe may end before the rest."""
        if self.lost:
            return ExitCode.NOT_ENOUGH
        return ExitCode.DONE if self.renewed == self.wanted else ExitCode.DEGRADED


@dataclass(frozen=True, slots=True)
class RenewAllResult:
    """Every asset with what became of it; `mark` is the wallet's own, None where it has none."""

    assets: tuple[tuple[AssetEntry, RenewResult | LockboxError], ...]
    mark: SlotRenewal | LockboxError | None

    @property
    def exit_code(self) -> ExitCode:
        """That of the worst."""
        codes = [outcome.exit_code for _, outcome in self.assets]
        if isinstance(self.mark, LockboxError):
            codes.append(self.mark.exit_code)
        elif self.mark is not None and self.mark.indices < self.mark.n:
            codes.append(ExitCode.DEGRADED)
        return worst(codes)


async def renew(vault: Vault, asset: AssetEntry, lease_s: int | None = None) -> RenewResult:
    """Keep `asset` for `lease_s` from now, or for its tier's default.

    UsageError for a lease that its tier does not offer; AssetNotFound, PeerUnreachable; NotEnoughShards when no holder
    answers; what all holders refuse with.
    """
    started = trio.current_time()
    tier = tier_numbered(asset.tier)
    lease_s = checked_lease(tier, lease_s)
    if asset.address in vault.wallet.burials():
        raise AssetNotFound("this asset is being deleted", "`lockbox delete` finishes that")
    await vault.refresh()
    root = await OwnStripe.root(vault, asset)
    slot = root.slot(asset)
    if slot is None:
        check_presence(root.presence)
        raise NotEnoughShards("no holder of this asset answers", "start holders, or wait and try again")
    manifest = manifest_of(vault, root, slot)
    until = int(vault.now_unix_s()) + lease_s
    telling = Telling(vault)
    done = [await _renew_slot(vault, telling, root, slot, until)]

    async def data_stripe(number: int) -> None:
        stripe = await OwnStripe.data(vault, asset, manifest.asset_salt, number)
        found = stripe.slot()
        if found is None:
            done.append(SlotRenewal(until, False, 0, tier.k, tier.n))
        else:
            done.append(await _renew_slot(vault, telling, stripe, found, until))

    await in_turn(range(1, plan_of(manifest).stripes), data_stripe)
    result = _result(asset, done, trio.current_time() - started)
    if not result.lost:
        await vault.ledger.remember(result.asset)
    return result


def _result(asset: AssetEntry, done: Sequence[SlotRenewal], seconds: float) -> RenewResult:
    renewed = sum(one.indices for one in done)
    if not renewed:
        raise refusal(error for one in done for error in one.refusals)
    until = min(one.lease_until_unix_s for one in done)
    return RenewResult(
        asset=msgspec.structs.replace(asset, lease_until_unix_s=until),
        lease_until_unix_s=until,
        lengthened=any(one.lengthened for one in done),
        renewed=renewed,
        wanted=sum(one.n for one in done),
        stripes=len(done),
        lost=sum(one.indices < one.k for one in done),
        seconds=seconds,
    )


async def renew_all(
    vault: Vault, lease_s: int | None = None, *, progress: Callable[[int, int], None] | None = None
) -> RenewAllResult:
    """Renew everything that the wallet knows, and its mark. `progress` gets (assets done, assets in all)."""
    leaving = vault.wallet.burials()
    assets = [asset for asset in vault.wallet.assets() if asset.address not in leaving]
    outcomes: dict[int, RenewResult | LockboxError] = {}

    async def one(number: int) -> None:
        try:
            outcomes[number] = await renew(vault, assets[number], lease_s)
        except LockboxError as error:
            outcomes[number] = error
        if progress is not None:
            progress(len(outcomes), len(assets))

    await in_turn(range(len(assets)), one, WINDOW_ASSETS)
    mark: SlotRenewal | LockboxError | None
    try:
        mark = await renew_mark(vault)
    except LockboxError as error:
        mark = error
    return RenewAllResult(tuple((asset, outcomes[number]) for number, asset in enumerate(assets)), mark)


async def renew_mark(vault: Vault) -> SlotRenewal | None:
    """Keep the wallet's mark for as long as its tier allows; None where there is none. PeerUnreachable."""
    stripe = await OwnStripe.at(vault, partial(wallet_key, vault.wallet.master))
    slots = stripe.standing.slots[:SIBLINGS_MAX]
    if not slots:
        if stripe.presence in (Presence.ABSENT, Presence.BURIED):
            return None
        raise PeerUnreachable("too few of the nodes that keep this wallet's mark answer", "try again later")
    telling = Telling(vault)
    now_unix_s = int(vault.now_unix_s())
    done = [
        await _renew_slot(vault, telling, stripe, slot, now_unix_s + _tier(slot).lease_max_s)
        for slot in slots
        if slot.descriptor.version == slots[0].descriptor.version
    ]
    least = min(done, key=lambda one: one.indices)
    if not least.indices:
        raise refusal(least.refusals)
    return least


def _tier(slot: Slot) -> Tier:
    return tier_numbered(slot.descriptor.tier)


async def _renew_slot(vault: Vault, telling: Telling, stripe: OwnStripe, slot: Slot, wanted_unix_s: int) -> SlotRenewal:
    """Sign and send the longer one of what is wanted and what stands."""
    stood_unix_s = slot.lease_until_unix_s
    until_unix_s = max(wanted_unix_s, stood_unix_s)
    descriptor = slot.descriptor
    with stripe.key() as key:
        renewal = Renewal(
            key.public_key,
            descriptor.version,
            slot.table.descriptor_hash,
            until_unix_s,
            int(vault.now_unix_s()),
        )
        signed = sign(renewal, key)
    # A holder knows best which index it holds; of one that has shown nothing, its newest line in the table counts.
    lines = (HolderEntry(index, node, sequence) for (index, node), sequence in slot.table.holders.items())
    index_of: dict[bytes, int] = dict(current_indices(lines)) | slot.shown_by
    survey = await telling.tell(Renew(signed), index_of.keys())
    index_of |= slot.shown_by  # some have shown theirs meanwhile
    renewed = {index_of[node] for node in survey.answered if index_of[node] < descriptor.n}
    return SlotRenewal(
        until_unix_s,
        wanted_unix_s > stood_unix_s,
        len(renewed),
        descriptor.k,
        descriptor.n,
        tuple(survey.failed.values()),
    )


def refusal(errors: Iterable[LockboxError]) -> LockboxError:
    """Why nobody did what was asked: what most of them said, else that nobody answers."""
    said = [error for error in errors if isinstance(error, RequestRefused)]
    told = [error for error in said if error.code is not ErrorCode.SHARD_UNAVAILABLE]
    if told:
        code, _ = Counter(error.code for error in told).most_common(1)[0]
        return next(error for error in told if error.code == code)
    if said:
        return NotEnoughShards("no holder has its part any more", "verify the asset")
    return NotEnoughShards("no holder of this asset answers", "start holders, or wait and try again")
