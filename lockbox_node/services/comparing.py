"""Answers those who tell or compare what they hold: what stands here, what is gone for good, what is missing here.

A told table is merged where its slot is held, or kept as a pointer by the 20 nearest; the answer teaches the teller:
tombstones, newer versions, and what it believes us to hold and we do not. The last also goes to our hearers: whoever
lost a part learns it this way from its siblings, after a restore, a damaged page or an emptied disk. Nothing is
believed for long: what is missing is fetched, and only what the owner signed comes back. Source: SPEC.md, Messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lockbox_node.core.repair import believable, is_named
from lockbox_node.core.storage_params import StorageParams
from lockbox_node.errors import LockboxError
from lockbox_node.rpc.dispatch import Route
from lockbox_node.services.claims import is_claimed
from protocol.errors import ErrorCode
from protocol.ids import NodeId
from protocol.messages import (
    TOLD_NEWER_MAX,
    BucketDigest,
    CompareHeld,
    Differing,
    HolderTable,
    Message,
    TellHolders,
    Told,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lockbox_node.ports import Answer, Merged, ShardStore, WallClock
    from lockbox_node.rpc.hello import Peer
    from lockbox_node.services.storage import NearestNodes


class Hearers(Protocol):
    """Who acts on what tellers and comparers show."""

    def on_missing(self, table: HolderTable) -> None:
        """A table names us in vain."""
        ...

    def on_differing(self, node: NodeId) -> None:
        """This node keeps other parts beside ours than we know of."""
        ...


class Comparing:
    """Serves tell_holders and compare_held."""

    def __init__(
        self,
        store: ShardStore,
        own: NodeId,
        clock: WallClock,
        nearest_nodes: NearestNodes,
        hearers: Hearers,
        params: StorageParams | None = None,
    ) -> None:
        self._store = store
        self._own = own
        self._clock = clock
        self._nearest_nodes = nearest_nodes
        self._hearers = hearers
        self._params = params or StorageParams()

    def routes(self) -> list[Route]:
        """Handlers for the server."""
        return [Route(TellHolders, self._tell_holders), Route(CompareHeld, self._compare_held)]

    def _tell_holders(self, request: TellHolders, peer: Peer, answer: Answer[Message]) -> None:
        address = request.tables[0].address
        claimed = is_claimed(request.access, address, TellHolders, peer, self._clock.now_unix_s())
        if claimed and any(table.address != address for table in request.tables):
            raise LockboxError("a claim speaks for one address only", code=ErrorCode.ACCESS_DENIED)
        near: dict[bytes, bool] = {}
        tables = [
            HolderTable(table.address, table.version, table.descriptor_hash, believable(table.entries, peer.id))
            for table in request.tables
        ]
        for table in tables:
            if table.address not in near:
                near[table.address] = self._own in self._nearest_nodes(table.address, self._params.neighbours)
        pointed = [table for table in tables if near[table.address]]
        others = [table for table in tables if not near[table.address]]

        def merged(result: Merged | LockboxError) -> None:
            if isinstance(result, LockboxError):
                return answer(result)
            missing = self._missing(tables, result)
            answer(Told(list(result.tombstones), list(result.newer)[:TOLD_NEWER_MAX], missing))
            return None

        self._store.merge(pointed, others, merged)

    def _missing(self, tables: Iterable[HolderTable], merged: Merged) -> list[bytes]:
        """Descriptor hashes of the told slots that we should hold, do not, and that nothing here speaks against."""
        missing = []
        for table in tables:
            missed = table.descriptor_hash not in merged.held | merged.over
            if missed and is_named(table.entries, self._own):
                missing.append(table.descriptor_hash)
                self._hearers.on_missing(table)
        return missing

    def _compare_held(self, request: CompareHeld, peer: Peer, answer: Answer[Message]) -> None:
        def counted(result: list[BucketDigest] | LockboxError) -> None:
            if isinstance(result, LockboxError):
                return answer(result)
            buckets = differing(request.buckets, result)
            if buckets:
                self._hearers.on_differing(NodeId(peer.id))
            return answer(Differing(buckets))

        self._store.digests_with(NodeId(peer.id), counted)


def differing(theirs: Iterable[BucketDigest], ours: Iterable[BucketDigest]) -> list[int]:
    """The buckets that are not equal, ascending; one that is not named is empty."""
    there = {one.bucket: one for one in theirs}
    here = {one.bucket: one for one in ours}
    return sorted(bucket for bucket in there.keys() | here.keys() if there.get(bucket) != here.get(bucket))
