"""Delete an asset: a tombstone per stripe, signed by its key, to every holder and to the nearest nodes.

The nearest nodes keep the tombstone too, so that a holder which returns, or a replay of the old descriptor, meets it
there. All stripes are found before the first tombstone goes out, and written into the wallet; then the data stripes go,
and the root stripe last. So whatever interrupts it, the same command takes it to its end; and who recovers the wallet
elsewhere finds the asset either whole or deleted. The wallet forgets it when every holder has confirmed, or when its
longest lease is over, after which nobody keeps it. Source: DESIGN, Client pipeline; SPEC.md, Messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio

from lockbox_node.client.burials import HOLDERS_MAX, Burial
from lockbox_node.client.finding import MISS_NODES, Presence
from lockbox_node.client.leases import refusal
from lockbox_node.client.own_stripes import NO_SALT, OwnStripe, Telling, in_turn, manifest_of
from lockbox_node.client.standing import check_presence
from lockbox_node.core.manifest import plan_of
from lockbox_node.errors import ExitCode, LockboxError, NotEnoughShards
from protocol.errors import ErrorCode
from protocol.messages import Delete
from protocol.records import Tombstone, sign

if TYPE_CHECKING:
    from collections.abc import Callable

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
    vault: Vault, asset: AssetEntry, *, progress: Callable[[int, int], None] | None = None
) -> DeleteResult:
    """Delete every stripe of `asset` at every holder. `progress` gets (stripes done, stripes in all).

    AssetNotFound, PeerUnreachable, NotEnoughShards (nothing was deleted then); what all holders refuse with.
    """
    started = trio.current_time()
    await vault.refresh()
    job = _Deletion(vault, asset, progress)
    await job.plan()
    await job.run()
    return job.result(trio.current_time() - started)


class _Deletion:
    """One deletion. `plan` it, which changes nothing in the network, then `run` it."""

    def __init__(self, vault: Vault, asset: AssetEntry, progress: Callable[[int, int], None] | None) -> None:
        self._vault = vault
        self._asset = asset
        self._progress = progress
        self._begun = vault.wallet.burials().get(asset.address)
        self._burial = self._begun
        self._stripes: dict[int, OwnStripe] = {}
        self._telling = Telling(vault)
        self._named: set[bytes] = set()
        self._missing: set[bytes] = set()
        self._confirmed: set[bytes] = set()
        self._failures: list[LockboxError] = []
        self._buried = 0

    async def plan(self) -> None:
        """Find every stripe and write down what the end of this deletion needs."""
        vault, asset = self._vault, self._asset
        root = self._stripes[0] = await OwnStripe.of_asset(vault, asset, NO_SALT, 0)
        salt, count = self._shape(root)

        async def find(number: int) -> None:
            self._stripes[number] = await OwnStripe.of_asset(vault, asset, salt, number)

        await in_turn(range(1, count), find)
        for stripe in self._stripes.values():  # whoever is late may know of a holder that was replaced
            await stripe.standing.finding.settle(MISS_NODES)
        slots = [slot for stripe in self._stripes.values() for slot in stripe.standing.slots]
        leases = [asset.lease_until_unix_s, *(slot.lease_until_unix_s for slot in slots)]
        holders = {node for stripe in self._stripes.values() for node in stripe.named}
        version = max(asset.version, root.version)
        if self._begun is not None:
            leases.append(self._begun.lease_until_unix_s)
            holders |= set(self._begun.holders)
            version = max(version, self._begun.version)
        await self._note(Burial(asset.address, salt, count, version, max(leases), sorted(holders)[:HOLDERS_MAX]))

    def _shape(self, root: OwnStripe) -> tuple[bytes, int]:
        """(asset salt, number of stripes). Raises when the asset may stand and cannot be read."""
        slot = root.slot(self._asset.descriptor_hash)
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
        return NO_SALT, 1  # somebody else has deleted it, or its lease is over: only the root's tombstone is told again

    async def _note(self, burial: Burial) -> None:
        self._burial = burial
        await self._vault.workers.run(partial(self._vault.wallet.bury, burial))

    async def run(self) -> None:
        """Tombstones: data stripes first, the root last. Then the wallet forgets, or remembers who is missing."""
        vault, burial = self._vault, self._burial
        assert burial is not None
        await in_turn(range(1, burial.stripes), self._bury)
        await self._bury(0)
        if not self._confirmed:
            if self._begun is None:
                await vault.workers.run(partial(vault.wallet.unbury, burial.address))
            raise refusal(self._failures)
        if self._missing and burial.lease_until_unix_s >= vault.now_unix_s():
            left = sorted(self._missing)[:HOLDERS_MAX]
            await self._note(
                Burial(
                    burial.address, burial.asset_salt, burial.stripes, burial.version, burial.lease_until_unix_s, left
                )
            )
        else:
            self._missing.clear()
            await vault.workers.run(partial(vault.wallet.forget, burial.address))

    async def _bury(self, number: int) -> None:
        burial, stripe = self._burial, self._stripes[number]
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
            self._progress(self._buried, burial.stripes)

    def result(self, seconds: float) -> DeleteResult:
        """The figures."""
        assert self._burial is not None
        missing = tuple(sorted(self._missing))
        return DeleteResult(self._asset, self._burial.stripes, len(self._named), missing, seconds)
