"""Handlers of stripes: put, get, slots, renew, delete, prove, finding. No task per request; answers come when durable.

A put is checked whole before the store sees it: signature, tier, lease, sizes, slot hashes, the Merkle root of every
shard. Real and decoy groups take the same path. Reading needs leave by the asset key, and for shards grants of
verifiers too (services.redeeming), or being a node that our own table of that slot names; holder tables may be found by
every member. What is answered was verified by the store in the same call; a restored node that still asks its siblings
what it missed answers BUSY. Source: DESIGN, Wire and Storage; SPEC.md, Messages.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from lockbox_node.core.policy import Governed
from lockbox_node.core.repair import current_indices
from lockbox_node.core.slots import tombstone_until
from lockbox_node.core.storage_params import StorageParams
from lockbox_node.core.tiers import Tier, tier_numbered
from lockbox_node.errors import LockboxError, RequestRefused, ShardCorrupt, ShardMissing, StoreFull
from lockbox_node.ports import Answer, Owner, PutOutcome, ShardStore, SlotView, StripePart, WallClock
from lockbox_node.rpc.dispatch import Route
from lockbox_node.services.claims import is_claimed
from protocol import merkle
from protocol.certificates import Role
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.ids import Address, DescriptorHash, NodeId, address_of
from protocol.messages import (
    NO_INDEX,
    Delete,
    Done,
    FindHolders,
    GetShards,
    GetSlot,
    HolderEntry,
    Holders,
    HolderTable,
    Message,
    Proof,
    Prove,
    PutStripe,
    Renew,
    Shards,
    Signed,
    Slots,
    SlotState,
    Stored,
)
from protocol.records import (
    Descriptor,
    descriptor_hash,
    open_descriptor,
    open_renewal,
    open_tombstone,
    parse,
    shard_ids_at,
)

if TYPE_CHECKING:
    from lockbox_node.rpc.hello import Peer
    from lockbox_node.services.redeeming import Redeeming

Nearest = Callable[[bytes, int], list[Signed]]  # (target, count) -> records of live nodes, nearest first
NearestNodes = Callable[[bytes, int], list[NodeId]]  # the same as ids, ourselves included


class Storage:
    """What this node keeps for others. `counts`: puts, gets, proofs, deletes, corrupt, refusals."""

    def __init__(
        self,
        store: ShardStore,
        own: NodeId,
        clock: WallClock,
        nearest: Nearest,
        nearest_nodes: NearestNodes,
        on_stored: Callable[[HolderTable], None],
        redeeming: Redeeming,
        params: StorageParams | None = None,
        unconfirmed: Callable[[], bool] = lambda: False,
        gives_away: Callable[[bytes, bytes], bool] = lambda _address, _descriptor_hash: False,
    ) -> None:
        """`unconfirmed` says whether this node was restored and does not know yet what of it is stale.

        `gives_away` says whether a part is being let go just now.
        """
        self.counts: Counter[str] = Counter()
        self._store = store
        self._own = own
        self._clock = clock
        self._nearest = nearest
        self._nearest_nodes = nearest_nodes
        self._on_stored = on_stored
        self._redeeming = redeeming
        self._params = params or StorageParams()
        self._unconfirmed = unconfirmed
        self._gives_away = gives_away
        self.closed: Callable[[], bool] = lambda: False  # whether nothing new is taken: the node is being drained
        self.governed = Governed()  # what the policy says, of tiers and quotas
        self._verified: OrderedDict[tuple[bytes, bytes], Descriptor] = OrderedDict()

    def routes(self) -> list[Route]:
        """Handlers for the server."""
        return [
            Route(PutStripe, self._put_stripe),
            Route(GetShards, self._get_shards),
            Route(GetSlot, self._get_slot),
            Route(Renew, self._renew),
            Route(Delete, self._delete),
            Route(Prove, self._prove),
            Route(FindHolders, self._find_holders),
        ]

    # Put

    def _put_stripe(self, request: PutStripe, peer: Peer, answer: Answer[Message]) -> None:
        if self.closed():
            raise StoreFull("this node is being drained and takes nothing new", "take another node")
        part, replaces = self._check(request)
        if peer.role is not Role.NODE and part.shards:  # without shards it may be a wallet's mark, of whatever tier
            self.governed.check_offer(tier_numbered(part.tier))

        def stored(outcome: PutOutcome | LockboxError) -> None:
            if isinstance(outcome, LockboxError):
                return self._refuse(outcome, answer)
            self.counts["puts"] += 1
            answer(Stored(list(outcome.siblings)))
            table = HolderTable(part.address, part.version, part.descriptor_hash, list(part.entries))
            return self._on_stored(table)

        self._store.put(part, replaces, self._owner(peer), stored)

    def _check(self, request: PutStripe) -> tuple[StripePart, list[bytes]]:
        """The part that a put asks to keep. RemoteProtocolError or LockboxError(TIER_VIOLATION) if it may not be."""
        descriptor = self._open(request.descriptor)
        _check_shards(descriptor, request)
        lease_until_unix_s = descriptor.lease_until_unix_s
        if request.renewal is not None:
            lease_until_unix_s = max(lease_until_unix_s, _renewed_until(request.renewal, request.descriptor))
        self._check_terms(descriptor, lease_until_unix_s)
        if any(entry.index >= descriptor.n for entry in request.holders):
            raise RemoteProtocolError("a holder table that names an index beyond n")
        part = StripePart(
            address_of(descriptor.public_key),
            descriptor.version,
            descriptor_hash(request.descriptor),
            request.descriptor,
            descriptor.tier,
            lease_until_unix_s,
            tuple(request.slots),
            request.index,
            tuple(request.shards),
            tuple(request.holders),
            request.renewal,
        )
        return part, descriptor.replaces

    def _owner(self, peer: Peer) -> Owner:
        """Who is charged: the peer that brings it, a client for itself, a node for what it hands over."""
        if peer.role is Role.NODE:
            return Owner(peer.id, self._params.node_quota_bytes)
        quota_bytes = self.governed.client_quota_bytes
        return Owner(peer.id, self._params.client_quota_bytes if quota_bytes is None else quota_bytes)

    def _check_terms(self, descriptor: Descriptor, lease_until_unix_s: int) -> None:
        tier = tier_numbered(descriptor.tier)
        if (descriptor.k, descriptor.n) != (tier.k, tier.n):
            raise LockboxError(
                f"{descriptor.k} of {descriptor.n} is not {tier.name}",
                f"code {tier.name} as {tier.k} of {tier.n}",
                ErrorCode.TIER_VIOLATION,
            )
        self._check_lease(tier, lease_until_unix_s)

    def _check_lease(self, tier: Tier, lease_until_unix_s: int) -> None:
        left_s = lease_until_unix_s - self._clock.now_unix_s()
        if not 0 < left_s <= tier.lease_max_s + self._params.lease_slack_s:
            raise LockboxError(
                f"the lease is over, or longer than {tier.name} allows",
                f"at most {tier.lease_max_s // 86_400} days from now",
                ErrorCode.TIER_VIOLATION,
            )

    def _open(self, signed: Signed) -> Descriptor:
        """The descriptor, its signature checked now or before."""
        key = (hashlib.sha256(signed.body).digest(), signed.signature)
        descriptor = self._verified.get(key)
        if descriptor is None:
            descriptor = self._verified[key] = open_descriptor(signed)
            if len(self._verified) > self._params.verified_descriptors_max:
                self._verified.popitem(last=False)
        else:
            self._verified.move_to_end(key)
        return descriptor

    # Read

    def _get_shards(self, request: GetShards, peer: Peer, answer: Answer[Message]) -> None:
        wish = self._redeeming.opened(request, peer)
        self._require_confirmed()

        def read(part: StripePart | LockboxError) -> None:
            if isinstance(part, LockboxError):
                return self._refuse(part, answer)
            try:
                if wish is not None:
                    self._redeeming.redeem(wish, request, part.tier, peer)
                else:
                    self._require_holders(part, peer)
            except LockboxError as refusal:
                return self._refuse(refusal, answer)
            self.counts["gets"] += 1
            return answer(Shards(part.descriptor, list(part.slots), part.index, list(part.shards)))

        self._store.get(Address(request.address), DescriptorHash(request.descriptor_hash), read)

    def _require_holders(self, part: StripePart, peer: Peer) -> None:
        """LockboxError unless the table names the peer, and we have not said that we hold nothing.

        Once we have, another must show our index to us: nobody may show us what it has just fetched here. While we
        give it away that holds whatever the table says of us, since a stranger may have told it.
        """
        if not _names(part.entries, peer.id):
            raise _not_a_holder()
        silent = current_indices(part.entries).get(self._own) == NO_INDEX
        if silent or self._gives_away(part.address, part.descriptor_hash):
            raise LockboxError("this part is being given away", "ask the other holders", ErrorCode.BUSY)

    def _prove(self, request: Prove, peer: Peer, answer: Answer[Message]) -> None:
        claimed = is_claimed(request.access, request.address, Prove, peer, self._clock.now_unix_s())
        self._require_confirmed()

        def read(result: StripePart | LockboxError) -> None:
            if isinstance(result, LockboxError):
                return self._refuse(result, answer)
            try:
                if not claimed:
                    self._require_holders(result, peer)
                self._redeeming.check_proof(request.address, peer, claimed=claimed)
            except LockboxError as refusal:
                return self._refuse(refusal, answer)
            self.counts["proofs"] += 1
            return answer(self._proof(result, request.nonce))

        self._store.get(Address(request.address), DescriptorHash(request.descriptor_hash), read)

    def _proof(self, part: StripePart, nonce: bytes) -> Proof:
        leaf_bytes = self._open(part.descriptor).leaf_bytes
        proofs = [
            merkle.prove(shard, leaf_bytes, merkle.drawn_leaves(nonce, group, len(shard), leaf_bytes))
            for group, shard in enumerate(part.shards)
        ]
        return Proof(part.index, proofs)

    def _get_slot(self, request: GetSlot, peer: Peer, answer: Answer[Message]) -> None:
        claimed = is_claimed(request.access, request.address, GetSlot, peer, self._clock.now_unix_s())
        self._require_confirmed()

        def looked(view: SlotView | LockboxError) -> None:
            if isinstance(view, LockboxError):
                return self._refuse(view, answer)
            parts = [part for part in view.parts if claimed or _names(part.entries, peer.id)]
            if view.parts and not parts:
                return self._refuse(_not_a_holder(), answer)
            states = [
                SlotState(part.descriptor, list(part.slots), part.index, list(part.entries), part.renewal)
                for part in parts
            ]
            return answer(Slots(states, view.tombstone))

        self._store.look(Address(request.address), looked)

    def _require_confirmed(self) -> None:
        """LockboxError(BUSY) while what is held here may be stale."""
        if self._unconfirmed():
            raise LockboxError(
                "this node was restored and is asking its siblings", "ask the other holders", ErrorCode.BUSY
            )

    def _find_holders(self, request: FindHolders, _peer: Peer, answer: Answer[Message]) -> None:
        self._require_confirmed()

        def looked(view: SlotView | LockboxError) -> None:
            if isinstance(view, LockboxError):
                return self._refuse(view, answer)
            known = bool(view.tables) or view.tombstone is not None
            nearest = [] if known else self._nearest(request.address, self._params.neighbours)
            return answer(Holders(list(view.tables), view.tombstone, nearest))

        self._store.look(Address(request.address), looked)

    # Renew, delete

    def _renew(self, request: Renew, _peer: Peer, answer: Answer[Message]) -> None:
        """The tier is in the descriptor that stands here, so the slot is looked at first."""
        renewal = open_renewal(request.renewal)
        address, wanted = address_of(renewal.public_key), renewal.descriptor_hash

        def renewed(result: LockboxError | None) -> None:
            if isinstance(result, LockboxError):
                return self._refuse(result, answer)
            self.counts["renewals"] += 1
            return answer(Done())

        def looked(view: SlotView | LockboxError) -> None:
            if isinstance(view, LockboxError):
                return self._refuse(view, answer)
            part = next((part for part in view.parts if part.descriptor_hash == wanted), None)
            if part is None or part.version != renewal.version:
                return self._refuse(ShardMissing("this part is not here", "renew it at its holders"), answer)
            try:
                self._check_lease(tier_numbered(part.tier), renewal.lease_until_unix_s)
            except LockboxError as refusal:
                return self._refuse(refusal, answer)
            return self._store.renew(
                request.renewal, address, part.descriptor_hash, renewal.lease_until_unix_s, renewed
            )

        self._store.look(address, looked)

    def _delete(self, request: Delete, _peer: Peer, answer: Answer[Message]) -> None:
        tombstone = open_tombstone(request.tombstone)

        def buried(result: LockboxError | None) -> None:
            if isinstance(result, LockboxError):
                return self._refuse(result, answer)
            self.counts["deletes"] += 1
            return answer(Done())

        until = tombstone_until(tombstone, self._clock.now_unix_s())
        self._store.delete(request.tombstone, address_of(tombstone.public_key), tombstone.version, until, buried)

    def _refuse(self, error: LockboxError, answer: Answer[Message]) -> None:
        self.counts["corrupt" if isinstance(error, ShardCorrupt) else "refusals"] += 1
        answer(error)


def _check_shards(descriptor: Descriptor, request: PutStripe) -> None:
    """Each shard is the one that the owner signed for this index, each slot the one that was signed."""
    if request.index >= descriptor.n:
        raise RemoteProtocolError("a shard index beyond n")
    if len(request.shards) != len(descriptor.groups):
        raise RemoteProtocolError("not one shard of every group")
    if any(len(shard) != descriptor.shard_bytes for shard in request.shards):
        raise RemoteProtocolError("a shard of another size than was signed")
    if [hashlib.sha256(slot).digest() for slot in request.slots] != descriptor.slot_hashes:
        raise RemoteProtocolError("a manifest slot that was not signed")
    roots = [merkle.root(shard, descriptor.leaf_bytes) for shard in request.shards]
    if roots != shard_ids_at(descriptor, request.index):
        raise RemoteProtocolError("a shard whose Merkle root is not the signed id")


def _renewed_until(signed: Signed, descriptor: Signed) -> int:
    """When the lease ends by a renewal of exactly this descriptor. RemoteProtocolError when it is another's."""
    renewal, renewed = open_renewal(signed), parse(descriptor, Descriptor)
    if (renewal.public_key, renewal.version) != (renewed.public_key, renewed.version):
        raise RemoteProtocolError("a renewal of another slot")
    if renewal.descriptor_hash != descriptor_hash(descriptor):
        raise RemoteProtocolError("a renewal of another descriptor")
    return renewal.lease_until_unix_s


def _names(entries: Iterable[HolderEntry], node: bytes) -> bool:
    return any(entry.node == node for entry in entries)


def _not_a_holder() -> RequestRefused:
    return RequestRefused(
        "only its owner and its other holders may read this", "show a claim of the asset's key", ErrorCode.ACCESS_DENIED
    )
