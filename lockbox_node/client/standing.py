"""What stands at an address of ours, slots included: every version and sibling that its holders show.

The nearest nodes say who holds it (holder tables and pointers), the holders show descriptors and sealed slots, asked
with a claim signed by the address's key. Verified here: descriptors by their signature, slots by the hashes in their
descriptor. Source: DESIGN, Client pipeline, Wallet.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from lockbox_node.client.finding import VERSIONS_MAX, Finding, Presence, SlotTable
from lockbox_node.client.survey import Survey
from lockbox_node.errors import AssetNotFound, PeerUnreachable
from protocol.errors import RemoteProtocolError
from protocol.messages import GetSlot, Message, Signed, Slots, SlotState
from protocol.records import Descriptor, Renewal, descriptor_hash, open_descriptor, open_renewal

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.client.members import Member
    from lockbox_node.client.vault import Vault
    from lockbox_node.client.wallet import AssetEntry
    from lockbox_node.core.derivation import AssetKey

SHOWN_MIN, SHOWN_MAX = 3, 9  # current_answers of the narrowest and of the widest tier; half the holders between
RENEWALS_MAX = 64  # looked at for one slot: each holder shows one


class Slot:
    """One slot identity, verified: its descriptor, its slots, who holds it, its newest renewal that was shown."""

    def __init__(self, descriptor: Descriptor, signed: Signed, slots: tuple[bytes, ...], table: SlotTable) -> None:
        self.descriptor = descriptor
        self.signed = signed
        self.slots = slots
        self.table = table
        self.shown_by: dict[bytes, int] = {}  # node -> the shard index that it says it holds
        self.renewal: Renewal | None = None
        self._renewals: set[tuple[bytes, bytes]] = set()  # bodies and signatures that were looked at

    @property
    def lease_until_unix_s(self) -> int:
        """The longest that its owner is known to have signed."""
        renewed = 0 if self.renewal is None else self.renewal.lease_until_unix_s
        return max(self.descriptor.lease_until_unix_s, renewed)

    def take(self, node: bytes, state: SlotState) -> None:
        """What one more holder shows."""
        self.shown_by[node] = state.index
        self.table.merge(state.entries)
        signed = state.renewal
        if signed is None:
            return
        looked_at = (signed.body, signed.signature)  # both: a false body must not pass off for the good one
        if looked_at in self._renewals or len(self._renewals) >= RENEWALS_MAX:
            return
        self._renewals.add(looked_at)
        with suppress(RemoteProtocolError):  # a false one renews nothing, whoever shows it
            self._renew(open_renewal(signed))

    def _renew(self, renewal: Renewal) -> None:
        named = (renewal.public_key, renewal.version, renewal.descriptor_hash)
        ours = (self.descriptor.public_key, self.descriptor.version, self.table.descriptor_hash)
        if named == ours and renewal.lease_until_unix_s > self.lease_until_unix_s:
            self.renewal = renewal


class Standing:
    """All that is known of one address. `ask` it, read `presence` and `slots`."""

    def __init__(self, vault: Vault, key: AssetKey) -> None:
        self.finding = Finding(vault, key.address)
        self._vault = vault
        self._public_key = key.public_key
        self._request = GetSlot(key.address, vault.claim(key, GetSlot))
        self._slots: dict[bytes, Slot] = {}
        self.silent = 0  # holders that did not answer

    @property
    def presence(self) -> Presence:
        """What the nearest nodes say."""
        return self.finding.presence

    @property
    def slots(self) -> list[Slot]:
        """What no tombstone covers: the newest version first, the most held of a version first."""
        standing = [slot for slot in self._slots.values() if slot.descriptor.version > self.finding.tombstone_version]
        return sorted(
            standing,
            key=lambda slot: (-slot.descriptor.version, -len(slot.table.holders), slot.table.descriptor_hash),
        )

    def slots_of(self, asset: AssetEntry) -> list[Slot]:
        """`slots` without siblings of `asset`, which are other assets."""
        return [slot for slot in self.slots if not slot.table.is_sibling(asset)]

    async def ask(self, asset: AssetEntry | None = None) -> None:
        """Hear the nearest nodes, then the holders that they name: until enough of them know, of `asset` if given.

        Nodes that were parted from the others until now may know of a sibling of it only.
        """
        vault = self._vault
        await self._hear_some()
        if asset is not None and self.presence is Presence.STANDS:
            await self.finding.hear_of(asset)
        holders = self._holders(asset)
        wanted = min(SHOWN_MAX, max(SHOWN_MIN, len(holders) // 2))
        await self._ask_holders(holders, vault.params.find_s, lambda: self.shown(asset) >= wanted)

    async def ask_everybody(self, patience_s: float) -> None:
        """Hear all of the nearest nodes and all holders that they name; wait `patience_s` for the silent ones."""
        await self._hear_some()
        if self.presence is not Presence.ABSENT:
            await self.finding.hear_everybody(patience_s)
        await self._ask_holders(self._holders(None), patience_s, lambda: False)

    async def _hear_some(self) -> None:
        if await self._vault.approach(self.finding.address):
            self.finding = Finding(self._vault, self.finding.address)
        await self.finding.hear_all()

    def _holders(self, asset: AssetEntry | None) -> list[Member]:
        """Every holder that is a member, live ones first; without those of siblings of `asset`."""
        members, now = self._vault.members, trio.current_time()
        tables = [table for table in self.finding.tables() if asset is None or not table.is_sibling(asset)]
        nodes = {node for table in tables for _, node in table.holders}
        known = [member for node in sorted(nodes) if (member := members.get(node)) is not None]
        return sorted(known, key=lambda member: not members.is_live(member.record.node, now))

    async def _ask_holders(self, holders: list[Member], patience_s: float, enough: Callable[[], bool]) -> None:
        if not holders:
            return
        survey = Survey(self._vault, self._request, holders, self._take)
        survey.ask(len(holders))
        await survey.until(enough, trio.current_time() + patience_s, self._vault.params.hedge_find_s)
        self.silent = len(survey.failed) + survey.pending

    def shown(self, asset: AssetEntry | None = None) -> int:
        """How many holders showed the slot that most of them show; siblings of `asset` do not count."""
        slots = [slot for slot in self._slots.values() if asset is None or not slot.table.is_sibling(asset)]
        return max((len(slot.shown_by) for slot in slots), default=0)

    def _take(self, node: bytes, reply: Message) -> None:
        assert isinstance(reply, Slots)
        self.finding.bury(reply.tombstone)
        for state in reply.states:
            digest = descriptor_hash(state.descriptor)
            slot = self._slots.get(digest) or self._opened(state, digest)
            if slot is not None:
                slot.take(node, state)

    def _opened(self, state: SlotState, digest: bytes) -> Slot | None:
        try:
            descriptor = open_descriptor(state.descriptor)
        except RemoteProtocolError:
            return None
        hashes = [hashlib.sha256(slot).digest() for slot in state.slots]
        if descriptor.public_key != self._public_key or hashes != descriptor.slot_hashes:
            return None
        if len(self._slots) >= VERSIONS_MAX:
            return None
        table = self.finding.table(descriptor.version, digest) or SlotTable(descriptor.version, digest)
        slot = self._slots[digest] = Slot(descriptor, state.descriptor, tuple(state.slots), table)
        return slot


def check_presence(presence: Presence) -> None:
    """AssetNotFound where an asset of ours is known to be gone, PeerUnreachable where nobody can say."""
    if presence is Presence.BURIED:
        raise AssetNotFound("this asset was deleted", "`lockbox list` shows the assets of this wallet")
    if presence is Presence.ABSENT:
        raise AssetNotFound(
            "the nodes nearest to this asset know nothing of it",
            "check that wallet and network belong together; `lockbox recover` scans for every asset",
        )
    if presence is Presence.UNKNOWN:
        raise PeerUnreachable("too few of the nodes near this asset answer", "check the connection, then try again")
