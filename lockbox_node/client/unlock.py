"""Unlock an asset: find who holds it, fetch its stripes, decode, open, hand the plaintext to a sink.

The root stripe comes first: its manifest says how many there are; the others follow a few at a time. A stripe is the
unit of fetching and decoding, decoys included; which groups are real is looked up only to open them. The newest
version wins; when it cannot be read the next one is tried and the result says so.
Source: DESIGN, Client pipeline, Unlock.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio

from lockbox_node.client.fetching import Fetch
from lockbox_node.client.finding import Finding, found
from lockbox_node.client.granting import Leave, VerifierCounts
from lockbox_node.client.stripes import key_of_stripe
from lockbox_node.core.derivation import segment_key_into
from lockbox_node.core.grants import target_of
from lockbox_node.core.manifest import SegmentPlan, open_slots, plan_of, segment_context
from lockbox_node.core.sealing import KEY_BYTES, OVERHEAD_BYTES, open_segment, wipe
from lockbox_node.core.tiers import Tier, tier_numbered
from lockbox_node.errors import LockboxError, NotEnoughShards
from protocol.errors import ErrorCode
from protocol.ids import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lockbox_node.client.finding import SlotTable
    from lockbox_node.client.sink import Sink
    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry
    from lockbox_node.core.derivation import AssetKey
    from lockbox_node.core.manifest import Manifest

WORKER_BYTES_MIN = 512 * 1024  # of a group to decode and open
WINDOW_STRIPES = 2


@dataclass(slots=True)
class ShardCounts:
    """Parts (one per holder and stripe): good ones fetched, needed, false ones met, and holders that had nothing."""

    fetched: int = 0
    needed: int = 0
    corrupt: int = 0
    missing: int = 0

    def add(self, fetch: Fetch) -> None:
        """Count a stripe."""
        self.fetched += fetch.fetched
        self.needed += fetch.needed
        self.corrupt += fetch.corrupt
        self.missing += fetch.missing


@dataclass(frozen=True, slots=True)
class UnlockResult:
    """What was unlocked, and what was met on the way."""

    asset: AssetEntry
    manifest: Manifest
    tier: Tier
    shards: ShardCounts
    maybe_stale: bool
    verifiers: VerifierCounts
    seconds: float


async def unlock(
    vault: Vault, asset: AssetEntry, sink: Sink, *, progress: Callable[[int, int], None] | None = None
) -> UnlockResult:
    """Write all of `asset` to `sink` and commit it. The sink is discarded when anything fails.

    AssetNotFound, PeerUnreachable, NotEnoughShards, LockboxError METADATA_CORRUPT; what the sink raises.
    """
    started = trio.current_time()
    job = _Unlock(vault, asset, sink, progress)
    try:
        manifest = await job.run()
        await vault.workers.run(sink.commit)
    except BaseException:
        sink.discard()
        raise
    tier, seconds = tier_numbered(manifest.tier), trio.current_time() - started
    return UnlockResult(asset, manifest, tier, job.counts, job.maybe_stale, job.verifiers, seconds)


class _Unlock:
    """One unlock under way."""

    def __init__(
        self, vault: Vault, asset: AssetEntry, sink: Sink, progress: Callable[[int, int], None] | None
    ) -> None:
        self.counts = ShardCounts()
        self.maybe_stale = False
        self.verifiers = VerifierCounts()
        self._vault = vault
        self._asset = asset
        self._address = Address(asset.address)
        self._sink = sink
        self._progress = progress
        self._version = 0
        self._done_bytes = 0
        self._turn = 0  # the stripe that an ordered sink waits for
        self._turned = trio.Event()

    async def run(self) -> Manifest:
        """Everything but the commit."""
        tier = tier_numbered(self._asset.tier)
        with key_of_stripe(self._vault.wallet.master, self._asset.index, b"", 0) as key:
            leave = await self._ask_leave(key, tier)
        try:
            finding = await found(self._vault, self._address, tier.current_answers)
            manifest, fetch = await self._read_root(finding, tier, leave)
        finally:
            leave.forget()
        plan = plan_of(manifest)
        await self._open(manifest, plan, fetch)
        if plan.stripes > 1:
            await self._read_others(manifest, plan)
        current = await finding.settle(tier.current_answers)
        newest = max((table.version for table in finding.tables()), default=self._version)
        self.maybe_stale |= not current or newest > self._version
        return manifest

    async def _ask_leave(self, key: AssetKey, tier: Tier) -> Leave:
        """Ask verifiers, while others are asked who holds the stripe."""
        await self._vault.approach(target_of(key.address))
        return Leave(self._vault, key, tier)

    async def _read_root(self, finding: Finding, tier: Tier, leave: Leave) -> tuple[Manifest, Fetch]:
        """The newest root stripe that can be read; the first trouble met when none can."""
        troubles: list[LockboxError] = []
        await finding.hear_of(self._asset)
        # Of siblings, ours is the one that we signed.
        ours = [table for table in finding.tables() if not table.is_sibling(self._asset)]
        for table in sorted(ours, key=self._rank):
            try:
                manifest, fetch = await self._read(0, b"", table, tier, leave)
            except LockboxError as error:
                troubles.append(error)
                continue
            self._version = table.version
            return manifest, fetch
        raise _worst(troubles)

    def _rank(self, table: SlotTable) -> tuple[bool, int]:
        return not table.credible, -table.version

    async def _read_others(self, manifest: Manifest, plan: SegmentPlan) -> None:
        numbers = iter(range(1, plan.stripes))
        failures: list[LockboxError] = []
        async with trio.open_nursery() as nursery:

            async def read_from() -> None:
                try:
                    await self._read_from(numbers, manifest, plan)
                except LockboxError as error:
                    failures.append(error)
                    nursery.cancel_scope.cancel()

            for _ in range(min(WINDOW_STRIPES, plan.stripes - 1)):
                nursery.start_soon(read_from)
        if failures:
            raise failures[0]

    async def _read_from(self, numbers: Iterator[int], root: Manifest, plan: SegmentPlan) -> None:
        tier = tier_numbered(root.tier)
        for number in numbers:
            with key_of_stripe(self._vault.wallet.master, self._asset.index, root.asset_salt, number) as key:
                address, leave = key.address, await self._ask_leave(key, tier)
            try:
                finding = await found(self._vault, address, 0)
                tables = [table for table in finding.tables() if table.version == self._version]
                manifest, fetch = await self._read_any(number, root.asset_salt, tables, tier, leave)
            finally:
                leave.forget()
            if (manifest.asset_salt, manifest.stripe, manifest.stripes) != (root.asset_salt, number, root.stripes):
                raise LockboxError(
                    "a stripe of this asset belongs to another place", "verify the asset", ErrorCode.METADATA_CORRUPT
                )
            await self._open(manifest, plan, fetch)

    async def _read_any(
        self, number: int, asset_salt: bytes, tables: list[SlotTable], tier: Tier, leave: Leave
    ) -> tuple[Manifest, Fetch]:
        troubles: list[LockboxError] = []
        for table in tables:
            try:
                return await self._read(number, asset_salt, table, tier, leave)
            except LockboxError as error:
                troubles.append(error)
        raise _worst(troubles)

    async def _read(
        self, number: int, asset_salt: bytes, table: SlotTable, tier: Tier, leave: Leave
    ) -> tuple[Manifest, Fetch]:
        """Fetch one stripe and open its manifest."""
        vault = self._vault
        if any(vault.members.is_strange(node) for _, node in table.holders):
            await vault.refresh()
        with key_of_stripe(vault.wallet.master, self._asset.index, asset_salt, number) as key:
            if leave.spent:
                leave = await self._ask_leave(key, tier)
            address = key.address
        try:
            await leave.quorum()
            fetch = Fetch(vault, key, table, leave)
            try:
                await fetch.run(tier.k)
            finally:
                self.counts.add(fetch)
        finally:
            leave.forget()
        self.verifiers = leave.counts({node for _, node in table.holders}).weaker(self.verifiers)
        return open_slots(fetch.slots, vault.wallet.master, address, table.version), fetch

    async def _open(self, manifest: Manifest, plan: SegmentPlan, fetch: Fetch) -> None:
        """Decode every group, open the real ones, hand them to the sink."""
        work = partial(self._plaintext, manifest, plan, fetch)
        descriptor = fetch.descriptor
        assert descriptor is not None
        large = len(descriptor.groups) * descriptor.shard_bytes * descriptor.k >= WORKER_BYTES_MIN
        pieces = await self._vault.workers.run(work) if large else work()
        try:
            while self._sink.ordered and self._turn != manifest.stripe:
                await self._turned.wait()
            write = partial(self._write, pieces)
            await self._vault.workers.run(write) if large else write()
        finally:
            for _, piece in pieces:
                wipe(piece)
        self._turn += 1
        self._turned.set()
        self._turned = trio.Event()
        self._done_bytes += sum(len(plan.asset_range(segment)) for segment in plan.segments_of(manifest.stripe))
        if self._progress is not None:
            self._progress(self._done_bytes, plan.size)

    def _write(self, pieces: list[tuple[range, bytearray]]) -> None:
        for wanted, piece in pieces:
            with memoryview(piece) as view:
                self._sink.write_at(wanted.start, view[: len(wanted)])

    def _plaintext(self, manifest: Manifest, plan: SegmentPlan, fetch: Fetch) -> list[tuple[range, bytearray]]:
        """(range of the asset, plaintext with its padding) of each segment; the caller wipes them. Runs in a thread."""
        assert fetch.descriptor is not None
        sealed_bytes = fetch.descriptor.shard_bytes * fetch.descriptor.k
        if sealed_bytes != plan.sealed_bytes or max(manifest.order, default=0) >= len(fetch.descriptor.groups):
            raise LockboxError("the stripe does not fit its manifest", "verify the asset", ErrorCode.METADATA_CORRUPT)
        groups = [fetch.decode(group, sealed_bytes) for group in range(len(fetch.descriptor.groups))]
        pieces: list[tuple[range, bytearray]] = []
        try:
            for segment, group in zip(plan.segments_of(manifest.stripe), manifest.order, strict=True):
                piece = bytearray(sealed_bytes - OVERHEAD_BYTES[manifest.suite])
                pieces.append((plan.asset_range(segment), piece))
                self._open_segment(manifest, segment, groups[group], piece)
        except BaseException:
            for _, piece in pieces:
                wipe(piece)
            raise
        return pieces

    def _open_segment(self, manifest: Manifest, segment: int, sealed: memoryview, piece: bytearray) -> None:
        key = bytearray(KEY_BYTES)
        context = segment_context(manifest, self._address, self._version, segment)
        try:
            segment_key_into(
                self._vault.wallet.master,
                manifest.asset_salt,
                self._address,
                self._version,
                manifest.suite,
                segment,
                key,
            )
            open_segment(key, context, sealed, piece)
        finally:
            wipe(key)


def _worst(troubles: list[LockboxError]) -> LockboxError:
    """What to tell when no version could be read: what stood in the way of the newest."""
    if troubles:
        return troubles[0]
    return NotEnoughShards("no holder of a stripe of this asset is known", "wait and try again")
