"""Delete an asset: a tombstone per stripe, signed by its key, to every holder and to the nearest nodes.

The nearest nodes keep the tombstone too, so that a holder which returns, or a replay of the old descriptor, meets it
there. All stripes are found before the first tombstone goes out, and written into the wallet; then the data stripes go,
and the root stripe last. So whatever interrupts it, the same command takes it to its end; and who recovers the wallet
elsewhere finds the asset either whole or deleted. The wallet forgets it when every holder has confirmed, or when its
longest lease is over, after which nobody keeps it. A tombstone buries everything at its address: so where a sibling
stands, nothing is deleted unless all are meant. Source: DESIGN, Client pipeline; SPEC.md, Messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import trio

from lockbox_node.client.burials import HOLDERS_MAX, Burial, BuriedSibling
from lockbox_node.client.finding import MISS_NODES, Presence
from lockbox_node.client.leases import refusal
from lockbox_node.client.own_stripes import OwnStripe, Telling, in_turn, manifest_of
from lockbox_node.client.scanning import siblings_of
from lockbox_node.client.standing import check_presence
from lockbox_node.core.manifest import plan_of
from lockbox_node.errors import ExitCode, LockboxError, NotEnoughShards
from protocol.errors import ErrorCode
from protocol.messages import SIBLINGS_MAX, Delete
from protocol.records import Tombstone, sign

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry

REASON = "deleted by its owner"
NAMED_MAX = 4  # holders in the error line


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """Who confirmed. `missing` = ids of holders that did not, all of which drop it when they return."""

    asset: AssetEntry
    stripes: int
    holders: int  # named by any table
    missing: tuple[bytes, ...]
    seconds: float
    siblings: tuple[AssetEntry, ...] = ()  # that went with it

    @property
    def error(self) -> LockboxError | None:
        """DESTRUCTION_INCOMPLETE while holders are missing."""
        if not self.missing:
            return None
        names = ", ".join(node.hex()[:8] for node in self.missing[:NAMED_MAX])
        more = f" and {len(self.missing) - NAMED_MAX} more" if len(self.missing) > NAMED_MAX else ""
        return LockboxError(
            f"{self.holders - len(self.missing)} of {self.holders} holders confirmed; {names}{more} did not answer and "
            "drop it when they return",
            "delete it again then to have it confirmed",
            ErrorCode.DESTRUCTION_INCOMPLETE,
        )

    @property
    def exit_code(self) -> ExitCode:
        """8 while holders are missing: it is deleted, and they do not know it yet."""
        return ExitCode.DEGRADED if self.missing else ExitCode.DONE


async def delete(
    vault: Vault,
    asset: AssetEntry,
    *,
    with_siblings: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> DeleteResult:
    """Delete every stripe of `asset` at every holder. `progress` gets (stripes done, stripes in all).

    LockboxError CONFLICT when siblings stand at its address and are not to be deleted too: the wallet lists them then.
    AssetNotFound, PeerUnreachable, NotEnoughShards (nothing was deleted then); what all holders refuse with.
    """
    started = trio.current_time()
    await vault.refresh()
    job = _Deletion(vault, asset, progress)
    await job.plan(with_siblings)
    await job.run()
    return job.result(trio.current_time() - started)


def _refused(asset: AssetEntry, siblings: Sequence[AssetEntry]) -> LockboxError:
    named = ", ".join(f"{one.asset_id} ({one.label})" if one.label else one.asset_id for one in siblings)
    return LockboxError(
        f"a copy of this wallet locked {named} under the same index, and to delete {asset.label or 'this one'} would "
        "delete that too; nothing was deleted",
        "unlock what you keep and lock it anew: it gets an index of its own; then --with-siblings deletes them all",
        ErrorCode.CONFLICT,
    )


class _Deletion:
    """One deletion. `plan` it, which changes nothing in the network, then `run` it."""

    def __init__(self, vault: Vault, asset: AssetEntry, progress: Callable[[int, int], None] | None) -> None:
        self._vault = vault
        self._asset = asset
        self._progress = progress
        self._begun = vault.wallet.burials().get(asset.address)
        self._burial = self._begun
        self._root: OwnStripe | None = None
        self._data: list[OwnStripe] = []
        self._siblings: tuple[AssetEntry, ...] = ()
        self._telling = Telling(vault)
        self._named: set[bytes] = set()
        self._missing: set[bytes] = set()
        self._confirmed: set[bytes] = set()
        self._failures: list[LockboxError] = []
        self._buried = 0

    async def plan(self, with_siblings: bool) -> None:
        """Find every stripe and write down what the end of this deletion needs."""
        vault, asset = self._vault, self._asset
        root = self._root = await OwnStripe.whole_root(vault, asset, vault.params.find_s)
        salt, count = self._shape(root)
        siblings = await self._others(root, with_siblings)
        lots = [(salt, count), *((one.asset_salt, one.stripes) for one in siblings)]
        places = [(salt, number) for salt, count in lots for number in range(1, count)]

        async def find(place: int) -> None:
            self._data.append(await OwnStripe.data(vault, asset, *places[place]))

        await in_turn(range(len(places)), find)
        for stripe in self._data:  # whoever is late may know of a holder that was replaced
            await stripe.standing.finding.settle(MISS_NODES)
        stripes = [root, *self._data]
        leases = [asset.lease_until_unix_s]
        leases += [slot.lease_until_unix_s for stripe in stripes for slot in stripe.standing.slots]
        holders = {node for stripe in stripes for node in stripe.named}
        version = max(asset.version, root.version)
        if self._begun is not None:
            leases.append(self._begun.lease_until_unix_s)
            holders |= set(self._begun.holders)
            version = max(version, self._begun.version)
        named = sorted(holders)[:HOLDERS_MAX]
        await self._note(Burial(asset.address, salt, count, version, max(leases), named, siblings))

    def _shape(self, root: OwnStripe) -> tuple[bytes, int]:
        """(asset salt, number of stripes). Raises when the asset may stand and cannot be read."""
        slot = root.slot(self._asset)
        if slot is not None:
            manifest = manifest_of(self._vault, root, slot)
            return manifest.asset_salt, plan_of(manifest).stripes
        if self._begun is not None:
            return self._begun.asset_salt, self._begun.stripes
        over = self._asset.lease_until_unix_s < self._vault.now_unix_s()
        if root.presence is Presence.STANDS:
            raise NotEnoughShards(
                "no holder of this asset answers; nothing was deleted", "start holders, or wait and try again"
            )
        if root.presence is not Presence.BURIED and not (over and root.presence is Presence.ABSENT):
            check_presence(root.presence)
        # Somebody else has deleted it, or its lease is over: only the root's tombstone is told again.
        return bytes(32), 1

    async def _others(self, root: OwnStripe, with_siblings: bool) -> tuple[BuriedSibling, ...]:
        """What else the root's tombstone buries. Refuses unless that is meant, or was when this deletion began."""
        vault, asset = self._vault, self._asset
        meant = {one.asset_salt: one for one in self._begun.siblings} if self._begun is not None else {}
        shown = await siblings_of(vault, asset, root.standing)
        if shown:
            await vault.workers.run(partial(vault.wallet.remember, *(one.asset for one in shown)))
        self._siblings = tuple(one for one in vault.wallet.assets() if self._is_kept_beside(one))
        found = {salt: BuriedSibling(salt, plan_of(one.manifest).stripes) for one in shown if (salt := one.asset_salt)}
        begun = root.presence is Presence.BURIED or bool(meant)
        if not with_siblings and (found.keys() - meant.keys() or (self._siblings and not begun)):
            raise _refused(asset, self._siblings)
        return tuple((meant | found).values())[:SIBLINGS_MAX]

    def _is_kept_beside(self, other: AssetEntry) -> bool:
        asset = self._asset
        sibling = (other.address, other.version) == (asset.address, asset.version)
        over = other.lease_until_unix_s < self._vault.now_unix_s()
        return sibling and other.descriptor_hash != asset.descriptor_hash and not over

    async def _note(self, burial: Burial) -> None:
        self._burial = burial
        await self._vault.workers.run(partial(self._vault.wallet.bury, burial))

    async def run(self) -> None:
        """Tombstones: data stripes first, the root last. Then the wallet forgets, or remembers who is missing."""
        vault, burial, root = self._vault, self._burial, self._root
        assert burial is not None
        assert root is not None
        await in_turn(range(len(self._data)), lambda number: self._bury(self._data[number]))
        await self._bury(root)
        if not self._confirmed:
            if self._begun is None:
                await vault.workers.run(partial(vault.wallet.unbury, burial.address))
            raise refusal(self._failures)
        if self._missing and burial.lease_until_unix_s >= vault.now_unix_s():
            left = sorted(self._missing)[:HOLDERS_MAX]
            await self._note(msgspec.structs.replace(burial, holders=left))
        else:
            self._missing.clear()
            await vault.workers.run(partial(vault.wallet.forget, burial.address))

    async def _bury(self, stripe: OwnStripe) -> None:
        burial = self._burial
        assert burial is not None
        holders = stripe.named | (frozenset(self._begun.holders) if self._begun is not None else frozenset())
        with stripe.key() as key:
            tombstone = Tombstone(
                key.public_key,
                max(burial.version, stripe.version),
                int(self._vault.now_unix_s()),
                burial.lease_until_unix_s,
                REASON,
            )
            signed = sign(tombstone, key)
        survey = await self._telling.tell(Delete(signed), holders | stripe.standing.finding.near)
        self._named |= holders
        self._missing |= holders - survey.answered
        self._confirmed |= survey.answered
        self._failures += survey.failed.values()
        self._buried += 1
        if self._progress is not None:
            self._progress(self._buried, burial.stripes_in_all)

    def result(self, seconds: float) -> DeleteResult:
        """The figures."""
        assert self._burial is not None
        missing = tuple(sorted(self._missing))
        stripes = self._burial.stripes_in_all
        return DeleteResult(self._asset, stripes, len(self._named), missing, seconds, self._siblings)
