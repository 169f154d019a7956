"""Lock an asset: sealed, coded and hidden stripes, put onto holders, the root stripe last.

Large assets are streamed: a few stripes are in flight, never the whole. An asset exists from the moment that its root
stripe is durable; before that everything can be taken back, and is when anything fails or the lock is cancelled.
Its index was reserved before use and is never used again, so that nothing which is left over stands in the way.
Source: DESIGN, Client pipeline, Lock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio

from lockbox_node.client.chance import fresh
from lockbox_node.client.margins import Margin, least, margin
from lockbox_node.client.putting import StripePut
from lockbox_node.client.stripes import FIRST_VERSION, Recipe, key_of_stripe, prepare
from lockbox_node.client.undo import undo
from lockbox_node.client.wallet import AssetEntry
from lockbox_node.core.manifest import checked_label, plan_segments
from lockbox_node.core.sealing import ASSET_SALT_BYTES
from lockbox_node.errors import ExitCode, LockboxError, UsageError
from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from lockbox_node.client.source import Source
    from lockbox_node.client.vault import Vault
    from lockbox_node.core.derivation import AssetKey
    from lockbox_node.core.manifest import SegmentPlan
    from lockbox_node.core.placement import Candidate
    from lockbox_node.core.tiers import Tier
    from protocol.ids import Address

INDEX_TRIES = 64  # indices that other machines may have taken before us
WORKER_BYTES_MIN = 256 * 1024  # of coded shards: below, a thread costs more than it gives

Progress = Callable[[int, int], None]
"""Called with (bytes of the asset done, bytes in all) as stripes become durable."""


@dataclass(frozen=True, slots=True)
class LockResult:
    """What was locked and how well it stands. `placed` of `wanted` parts (one per holder and stripe) are durable."""

    asset: AssetEntry
    placed: int
    wanted: int
    decoys: int  # groups
    regions: tuple[str, ...]
    margin: Margin
    seconds: float

    @property
    def exit_code(self) -> ExitCode:
        """8 when holders are missing."""
        return ExitCode.DONE if self.placed == self.wanted else ExitCode.DEGRADED


class _IndexInUse(Exception):
    """Another machine with the same words uses this index."""


async def lock(
    vault: Vault,
    source: Source,
    tier: Tier,
    *,
    label: str = "",
    lease_s: int | None = None,
    progress: Progress | None = None,
) -> LockResult:
    """Lock all of `source`. The caller closes it.

    Raises UsageError (lease, label), LockboxError TIER_VIOLATION when the tier is not on offer, INSUFFICIENT_* when the
    network cannot carry it, or what most holders refused with; nothing is left behind then, as after a cancellation.
    """
    started = trio.current_time()
    vault.rule_book.governed.check_offer(tier)
    checked_label(label)
    lease_s = checked_lease(tier, lease_s)
    # One salt for all tries: what is left at an index that was in use is known by it, and passed over.
    asset_salt = bytes(fresh(ASSET_SALT_BYTES, vault.entropy))
    for _ in range(INDEX_TRIES):
        index = await vault.ledger.take_index()
        job = _Lock(vault, _recipe(vault, index, asset_salt, source, tier, label, lease_s), source, progress)
        try:
            await job.run()
        except _IndexInUse:
            continue
        asset = job.asset()
        await _remember(vault, asset)
        return job.result(asset, trio.current_time() - started)
    raise LockboxError(
        "other machines use this wallet's words at the same time, far ahead of this one",
        "run `lockbox recover` here to catch up",
        ErrorCode.CONFLICT,
    )


async def _remember(vault: Vault, asset: AssetEntry) -> None:
    """Into the wallet's list, whatever was cancelled: the asset stands in the network by now."""
    why = "the wallet is in use"
    try:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + vault.params.undo_s):
            await vault.ledger.remember(asset)
            return
    except LockboxError as error:
        why = error.message
    raise LockboxError(
        f"{asset.asset_id} is locked, but the wallet could not note it: {why}",
        "nothing is lost: `lockbox recover` brings it into the list",
    )


def checked_lease(tier: Tier, lease_s: int | None) -> int:
    """`lease_s`, or the tier's default for None. UsageError for one that the tier does not offer."""
    if lease_s is None:
        return tier.lease_default_s
    if not 0 < lease_s <= tier.lease_max_s:
        longest = tier.lease_max_s // 86_400
        raise UsageError(
            f"a lease of {lease_s // 86_400} days is not on offer", f"{tier.name} has leases of 1 to {longest} days"
        )
    return lease_s


def _recipe(
    vault: Vault, index: int, asset_salt: bytes, source: Source, tier: Tier, label: str, lease_s: int
) -> Recipe:
    master = vault.wallet.master
    now_unix_s = int(vault.now_unix_s())
    return Recipe(
        master=master,
        asset_index=index,
        asset_salt=asset_salt,
        root=key_of_stripe(master, index, asset_salt, 0),
        version=FIRST_VERSION,
        tier=tier,
        plan=plan_segments(source.size, tier),
        label=label,
        created_unix_s=now_unix_s,
        lease_until_unix_s=now_unix_s + lease_s,
    )


class _Lock:
    """One attempt at one index."""

    def __init__(self, vault: Vault, recipe: Recipe, source: Source, progress: Progress | None) -> None:
        self._vault = vault
        self._recipe = recipe
        self._source = source
        self._progress = progress
        self._done_bytes = 0
        self._data: list[StripePut] = []
        self._root: StripePut | None = None
        self._keys: list[AssetKey] = [recipe.root]

    async def run(self) -> None:
        """Put every stripe, or leave nothing. _IndexInUse when the root's address is somebody else's."""
        plan = self._recipe.plan
        try:
            # Before any work: a network that cannot carry the tier is told.
            holders = await self._holders(self._recipe.address)
            if plan.stripes > 1:
                await self._put_data(plan)
                holders = await self._holders(self._recipe.address)
            await self._put(0, holders)
        except BaseException:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self._vault.params.undo_s) as scope:
                await undo(self._vault, self._data, self._root, scope.deadline)
            raise
        finally:
            for key in self._keys:
                key.wipe()

    async def _put_data(self, plan: SegmentPlan) -> None:
        """Stripes 1 and up, a few at a time."""
        numbers = iter(range(1, plan.stripes))
        failures: list[Exception] = []
        async with trio.open_nursery() as nursery:

            async def put_from() -> None:
                try:
                    for number in numbers:
                        await self._put(number)
                except (LockboxError, _IndexInUse) as error:
                    failures.append(error)
                    nursery.cancel_scope.cancel()

            for _ in range(min(_window(self._vault, self._recipe), plan.stripes - 1)):
                nursery.start_soon(put_from)
        if failures:
            raise failures[0]

    async def _put(self, number: int, holders: dict[int, Candidate] | None = None) -> None:
        vault, recipe = self._vault, self._recipe
        work = partial(prepare, recipe, number, self._source, vault.entropy)
        large = _stripe_bytes(recipe) >= WORKER_BYTES_MIN
        stripe = await vault.workers.run(work) if large else work()
        self._keys.append(stripe.key)
        if number == 0:
            self._source.check_unchanged()
        put = StripePut(vault, stripe, holders or await self._holders(stripe.address))
        if number == 0:
            self._root = put
        else:
            self._data.append(put)
        await put.run()
        if put.in_use:
            raise _IndexInUse
        if len(put.stored) < recipe.tier.durable_min:
            raise put.refusal("nothing was locked")
        put.release()
        self._tell(number)

    async def _holders(self, address: Address) -> dict[int, Candidate]:
        await self._vault.approach(address)
        return self._vault.place(self._recipe.tier, address)

    def _tell(self, number: int) -> None:
        plan = self._recipe.plan
        self._done_bytes += sum(len(plan.asset_range(segment)) for segment in plan.segments_of(number))
        if self._progress is not None:
            self._progress(self._done_bytes, plan.size)

    def _puts(self) -> list[StripePut]:
        return [*self._data, *([self._root] if self._root is not None else [])]

    def asset(self) -> AssetEntry:
        """What the wallet remembers."""
        recipe = self._recipe
        assert self._root is not None
        return AssetEntry(
            index=recipe.asset_index,
            address=recipe.address,
            version=recipe.version,
            tier=recipe.tier.number,
            size=recipe.plan.size,
            label=recipe.label,
            created_unix_s=recipe.created_unix_s,
            lease_until_unix_s=recipe.lease_until_unix_s,
            descriptor_hash=self._root.stripe.descriptor_hash,
        )

    def result(self, asset: AssetEntry, seconds: float) -> LockResult:
        """The figures."""
        tier, plan, puts = self._recipe.tier, self._recipe.plan, self._puts()
        margins = [margin(tier.k, [holder.region for holder in put.stored.values()]) for put in puts]
        return LockResult(
            asset=asset,
            placed=sum(len(put.stored) for put in puts),
            wanted=tier.n * plan.stripes,
            decoys=sum(tier.decoys_for(len(plan.segments_of(number))) for number in range(plan.stripes)),
            regions=tuple(sorted({holder.region for put in puts for holder in put.stored.values()})),
            margin=least(margins),
            seconds=seconds,
        )


def _stripe_bytes(recipe: Recipe) -> int:
    """Coded bytes of a full stripe, decoys included."""
    plan, tier = recipe.plan, recipe.tier
    groups = plan.real_per_stripe + tier.decoys_for(plan.real_per_stripe)
    return groups * tier.n * plan.shard_bytes


def _window(vault: Vault, recipe: Recipe) -> int:
    """How many stripes may be in flight: each is held once coded and once as the frames that wait to be sent."""
    params = vault.params
    return max(1, min(params.window_stripes, params.window_bytes // (2 * _stripe_bytes(recipe))))
