"""Verify an asset: every holder in the table proves every shard now, by leaves that our nonce draws.

Each proof is checked against the ids that the owner signed at lock time. An index is held when any live holder proves
it; a dead entry is not listed once another holder proves the same index. The margins say how many holders, and how
many whole regions, may still vanish. Source: DESIGN, Verify; CONTRACT, `lockbox verify`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from lockbox_node.client.chance import fresh
from lockbox_node.client.margins import Margin, least, margin
from lockbox_node.client.replies import Outcome, Replies, again_after_s
from lockbox_node.client.standing import Standing, check_presence
from lockbox_node.client.stripes import key_of_stripe
from lockbox_node.core.audit import NONCE_BYTES, Verdict, judged
from lockbox_node.core.manifest import open_slots, plan_of
from lockbox_node.core.placement import Candidate, is_legal
from lockbox_node.core.tiers import tier_numbered
from lockbox_node.errors import ExitCode, LockboxError
from protocol.errors import ErrorCode
from protocol.messages import Proof, Prove

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lockbox_node.client.finding import SlotTable
    from lockbox_node.client.standing import Slot
    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry
    from lockbox_node.core.derivation import AssetKey
    from lockbox_node.core.manifest import Manifest
    from lockbox_node.core.tiers import Tier

WINDOW_STRIPES = 8
NEVER = float("inf")
AT_RISK_MARGIN = 1  # so few nodes may still vanish


@dataclass(frozen=True, slots=True)
class HolderVerdict:
    """One line of the result."""

    stripe: int
    index: int
    node: bytes
    region: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """How an asset stands: `state` is healthy, degraded, at-risk or lost."""

    asset: AssetEntry
    tier: Tier
    state: str
    holders: tuple[HolderVerdict, ...]
    margin: Margin

    @property
    def exit_code(self) -> ExitCode:
        """0 when healthy, 5 when lost, else 8."""
        return {"healthy": ExitCode.DONE, "lost": ExitCode.NOT_ENOUGH}.get(self.state, ExitCode.DEGRADED)


async def verify(vault: Vault, asset: AssetEntry) -> VerifyResult:
    """Ask every holder of every stripe for proof. AssetNotFound, PeerUnreachable; LockboxError RATE_LIMITED when
    holders were asked too often for anything to be said.
    """
    await vault.refresh()
    root = await _Stripe.of(vault, asset, b"", 0)
    if root.slot is None:
        tier = tier_numbered(asset.tier)
        return VerifyResult(asset, tier, "lost", tuple(root.lost_lines()), Margin(-tier.k, 0))
    manifest = open_slots(root.slot.slots, vault.wallet.master, root.address, root.slot.descriptor.version)
    stripes = [root]
    await root.prove()
    await _prove_others(vault, asset, manifest, stripes)
    stripes.sort(key=lambda stripe: stripe.number)
    tier = tier_numbered(manifest.tier)
    for stripe in stripes:
        stripe.require_told(tier)
    lowest = least([stripe.margin(tier) for stripe in stripes])
    healthy = all(stripe.is_healthy(tier) for stripe in stripes)
    lines = tuple(line for stripe in stripes for line in stripe.lines())
    return VerifyResult(asset, tier, _state(healthy, lowest), lines, lowest)


def _state(healthy: bool, lowest: Margin) -> str:
    if lowest.nodes < 0:
        return "lost"
    if healthy:
        return "healthy"
    return "at-risk" if lowest.nodes <= AT_RISK_MARGIN else "degraded"


async def _prove_others(vault: Vault, asset: AssetEntry, root: Manifest, stripes: list[_Stripe]) -> None:
    numbers = iter(range(1, plan_of(root).stripes))

    async def some() -> None:
        for number in numbers:
            stripe = await _Stripe.of(vault, asset, root.asset_salt, number)
            if stripe.slot is not None:
                await stripe.prove()
            stripes.append(stripe)

    async with trio.open_nursery() as nursery:
        for _ in range(WINDOW_STRIPES):
            nursery.start_soon(some)


class _Stripe:
    """One stripe and what its holders showed."""

    def __init__(
        self, vault: Vault, number: int, key: AssetKey, slots: Sequence[Slot], tables: Sequence[SlotTable]
    ) -> None:
        self.number = number
        self.address = key.address
        self.slot = next(iter(slots), None)
        self._vault = vault
        self._tables = tables
        self._claim = vault.claim(key, Prove)
        self._nonce = bytes(fresh(NONCE_BYTES, vault.entropy))
        self._verdicts: dict[tuple[int, bytes], Verdict] = {}
        self._limited: dict[tuple[int, bytes], LockboxError] = {}  # who did not answer because we asked too often

    @classmethod
    async def of(cls, vault: Vault, asset: AssetEntry, asset_salt: bytes, number: int) -> _Stripe:
        """Find it; AssetNotFound when the root is known to be gone, PeerUnreachable when nobody can say."""
        with key_of_stripe(vault.wallet.master, asset.index, asset_salt, number) as key:
            standing = Standing(vault, key)
            await standing.ask(None if number else asset)
            slots, tables = standing.slots, standing.finding.tables()
            if number == 0:
                slots, tables = standing.slots_of(asset), [one for one in tables if not one.is_sibling(asset)]
                if not slots:
                    check_presence(standing.presence)
            return cls(vault, number, key, slots, tables)

    async def prove(self) -> None:
        """One request per line of the table; who has not answered in time is silent."""
        assert self.slot is not None
        vault, table = self._vault, self.slot.table
        replies: Replies[tuple[int, bytes]] = Replies()
        again: list[tuple[float, tuple[int, bytes]]] = []
        request = Prove(self.address, table.descriptor_hash, self._nonce, self._claim)
        deadline = trio.current_time() + vault.params.prove_s

        def post(place: tuple[int, bytes]) -> None:
            member = vault.members.get(place[1])
            self._verdicts[place] = Verdict.SILENT
            if member is not None:
                vault.post(member, request, replies.answer_to(place))

        for place in sorted(table.holders):
            post(place)
        while (replies.pending or again) and trio.current_time() < deadline:
            moments = [at for at, _ in again]
            for place, outcome in await replies.take(min([deadline, *moments])):
                again_at = trio.current_time() + (again_after_s(outcome) or NEVER)
                if again_at < deadline:
                    again.append((again_at, place))
                else:
                    self._note(place, outcome)
            due = [place for at, place in again if at <= trio.current_time()]
            again = [entry for entry in again if entry[1] not in due]
            for place in due:
                post(place)

    def _note(self, place: tuple[int, bytes], outcome: Outcome) -> None:
        self._verdicts[place] = self._judge(place[0], outcome)
        if isinstance(outcome, LockboxError) and outcome.code is ErrorCode.RATE_LIMITED:
            self._limited[place] = outcome

    def require_told(self, tier: Tier) -> None:
        """LockboxError(RATE_LIMITED) when this looks lost only because holders want to be asked later."""
        held = self._held()
        limited = {index: refusal for (index, _), refusal in self._limited.items() if index not in held}
        if len(held) < tier.k <= len(held) + len(limited):
            wait_s = min(refusal.retry_after_s for refusal in limited.values())
            error = LockboxError(
                "the holders of this asset were asked for proof too often within a minute",
                f"try again in {wait_s:.0f} s",
                ErrorCode.RATE_LIMITED,
            )
            error.retry_after_s = wait_s
            raise error

    def _judge(self, index: int, outcome: Outcome) -> Verdict:
        assert self.slot is not None
        assert isinstance(outcome, Proof | LockboxError), "the codec checked the type of the reply"
        return judged(self.slot.descriptor, index, self._nonce, outcome)

    def lines(self) -> Iterator[HolderVerdict]:
        """Holders by index; of an index that is held, only those that hold it or answered falsely."""
        if self.slot is None:
            yield from self.lost_lines()
            return
        held = {index for (index, _), verdict in self._verdicts.items() if verdict is Verdict.HELD}
        for (index, node), verdict in sorted(self._verdicts.items()):
            if index in held and verdict in (Verdict.SILENT, Verdict.MISSING):
                continue
            yield HolderVerdict(self.number, index, node, self._region(node), verdict)

    def lost_lines(self) -> Iterator[HolderVerdict]:
        """Who should hold a stripe of which nobody shows anything."""
        places = sorted({place for table in self._tables[:1] for place in table.holders})
        for index, node in places:
            yield HolderVerdict(self.number, index, node, self._region(node), Verdict.SILENT)

    def margin(self, tier: Tier) -> Margin:
        """By the indices that are held."""
        return margin(tier.k, [holder.region for holder in self._held().values()])

    def is_healthy(self, tier: Tier) -> bool:
        """Every index is held, by a set of holders that the tier allows."""
        return is_legal(tier, self._held(), self._vault.regions)

    def _held(self) -> dict[int, Candidate]:
        """A holder for each index that is held; the one nearest to the address where there are several."""
        found: dict[int, Candidate] = {}
        places = [place for place, verdict in self._verdicts.items() if verdict is Verdict.HELD]
        for index, node in sorted(places, key=lambda place: (place[0], _distance(place[1], self.address))):
            member = self._vault.members.get(node)
            taken = {holder.node for holder in found.values()}
            if member is not None and index not in found and node not in taken:
                found[index] = member.candidate
        return found

    def _region(self, node: bytes) -> str:
        member = self._vault.members.get(node)
        return member.record.region if member is not None else ""


def _distance(node: bytes, address: bytes) -> int:
    return int.from_bytes(node, "big") ^ int.from_bytes(address, "big")
