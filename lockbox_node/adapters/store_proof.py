"""What the bytes of a damaged database prove by themselves, one row at a time.

Everything here answers None for a row that proves nothing. Only `proof_of` and `tomb_of` give what is served as it is;
a row of a part or a pointer is a hint that others correct. See store_salvage for what is made of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from lockbox_node.adapters.store_files import BigFiles, name_of
from lockbox_node.adapters.store_rows import (
    DamagedRow,
    Head,
    PartRow,
    pack_entries,
    unpack_entries,
    unpack_head,
    unpack_signed,
)
from lockbox_node.core.slots import TOMBSTONE_MARGIN_S
from protocol import merkle
from protocol.errors import ProtocolError
from protocol.ids import address_of
from protocol.messages import SHARDS_MAX, Signed
from protocol.records import Descriptor, open_descriptor, open_renewal, open_tombstone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lockbox_node.adapters.store_pages import Record, Value

# How a row stands in `part.corrupt` of a draft: proved with its body, on whole pages, on a damaged page, a body alone.
PROVED, ROW, DOUBTED_ROW, BODY_ALONE = 0, 1, 2, 3
ID_BYTES = 32
_PART_COLUMNS = len(fields(PartRow))
_OLD_PART_COLUMNS = 13  # of format 1
_PART_DEFAULTS: tuple[Value, ...] = (-1, b"", b"")
_META_COLUMNS = 14
_OLD_META_COLUMNS = 11
_TOMB_COLUMNS = 6
_NO_ENTRIES = pack_entries(())


@dataclass(frozen=True, slots=True)
class Meta:
    """What the one row of `meta` says beside the counters, and two of those."""

    node: bytes
    next_rid: int
    stripes: int
    tombstones: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Proof:
    """A body that the owner's signature covers whole."""

    rid: int
    address: bytes
    hash: bytes
    head: Head
    descriptor: Descriptor
    index: int
    big: bool

    def row(self, hint: PartRow | None) -> PartRow:
        """The row of the part; `hint` = the row as it stands, used where it names the same identity."""
        known = hint if hint is not None and (hint.address, hint.hash) == (self.address, self.hash) else None
        slots = sum(len(slot) for slot in self.head.slots)
        count, shard_bytes = len(self.descriptor.groups), self.descriptor.shard_bytes
        lease, renewal = self._lease(b"" if known is None else known.packed_renewal)
        whole = known is not None and known.corrupt == ROW
        return PartRow(
            self.rid, self.address, self.hash, self.descriptor.version, self.descriptor.tier,
            known.lease if known is not None and whole else lease, self.index, 0, int(self.big), count, shard_bytes,
            count * shard_bytes + slots + len(self.head.descriptor.body),
            _NO_ENTRIES if known is None else _entries(known.packed_entries),
            known.trashed if known is not None and whole else -1,
            b"" if known is None else known.owner, renewal,
        )  # fmt: skip

    def _lease(self, packed: bytes) -> tuple[int, bytes]:
        lease = self.descriptor.lease_until_unix_s
        try:
            signed = unpack_signed(packed)
            renewal = None if signed is None else open_renewal(signed)
        except (ValueError, ProtocolError):
            return lease, b""
        identity = (self.descriptor.public_key, self.descriptor.version, self.hash)
        if renewal is None or (renewal.public_key, renewal.version, renewal.descriptor_hash) != identity:
            return lease, b""
        return max(lease, renewal.lease_until_unix_s), packed


def proof_of(rid: int, packed: bytes, inside: bytes, row: PartRow | None, files: BigFiles) -> Proof | None:
    """The proof in a row of `body`; `row` = its row of `part` when that lies on whole pages. OSError."""
    try:
        head = unpack_head(packed)
        descriptor = open_descriptor(head.descriptor)
    except (DamagedRow, ProtocolError):
        return None
    if [hashlib.sha256(slot).digest() for slot in head.slots] != descriptor.slot_hashes:
        return None
    address = bytes(address_of(descriptor.public_key))
    digest = hashlib.sha256(head.descriptor.body).digest()
    big = bool(descriptor.groups) and not inside
    if not descriptor.groups:
        index = row.index if row is not None and not inside else None
    elif big:
        index = _index_of_file(rid, address, digest, descriptor, row, files)
    elif len(inside) == len(descriptor.groups) * descriptor.shard_bytes:
        size = descriptor.shard_bytes
        index = _index_of([inside[at : at + size] for at in range(0, len(inside), size)], descriptor)
    else:
        index = None
    return None if index is None else Proof(rid, address, digest, head, descriptor, index, big)


def _index_of(shards: Sequence[bytes], descriptor: Descriptor) -> int | None:
    """The index whose signed ids these shards have."""
    found = [merkle.root(shard, descriptor.leaf_bytes) for shard in shards]
    for index in range(descriptor.n):
        if all(group.shard_ids[index] == root for group, root in zip(descriptor.groups, found, strict=True)):
            return index
    return None


def _index_of_file(
    rid: int, address: bytes, digest: bytes, descriptor: Descriptor, row: PartRow | None, files: BigFiles
) -> int | None:
    """What row or header say, when the file is there: each read compares its bytes. Else what its shards are."""
    name, count = name_of(address, rid), len(descriptor.groups)
    try:
        if row is not None and row.big and files.is_there(name):
            return row.index if row.index < descriptor.n else None
        header = files.header(name)
    except FileNotFoundError:
        return None
    except ValueError:
        return _index_of(files.read(name, count, descriptor.shard_bytes), descriptor)
    named = (header.address, header.descriptor_hash, header.rid, header.shards, header.shard_bytes)
    if named == (address, digest, rid, count, descriptor.shard_bytes) and header.index < descriptor.n:
        return header.index
    return None


def row_of(record: Record) -> PartRow | None:
    """A row of `part` that has its shape."""
    values = record.values
    if len(values) == _OLD_PART_COLUMNS:
        values += _PART_DEFAULTS
    if len(values) != _PART_COLUMNS or record.rowid is None or record.rowid < 1:
        return None
    match values:
        case (
            None, bytes(address), bytes(digest), int(), int(), int(), int(index), int(), int(), int(shards),
            int(shard_bytes), int(logical_bytes), bytes(), int(), bytes(), bytes(),
        ) if (
            len(address) == len(digest) == ID_BYTES and 0 <= index < SHARDS_MAX and min(shards, shard_bytes) >= 0
            and logical_bytes >= 0
        ):  # fmt: skip
            return PartRow(record.rowid, *values[1:])  # type: ignore[arg-type]  # matched above
    return None


def meta_of(record: Record) -> Meta | None:
    """The row of `meta`."""
    values = record.values
    if len(values) == _OLD_META_COLUMNS:
        values += (0, 0, 0, 0)
    match values:
        case (
            None,
            str(),
            bytes(node),
            int(next_rid),
            int(stripes),
            _,
            _,
            _,
            _,
            _,
            int(tombstones),
            int(epoch),
            _,
            _,
            _,
        ):
            return Meta(node, next_rid, stripes, tombstones, epoch)
    return None


def tomb_of(record: Record) -> tuple[bytes, int, bytes, bytes, int, int] | None:
    """A row of `tomb` whose signature is that of the key behind its address."""
    values = record.values + (2**63 - 1,) * (len(record.values) == _TOMB_COLUMNS - 1)
    match values:
        case (bytes(address), int(), bytes(body), bytes(signature), int(at), int(until)):
            pass
        case _:
            return None
    try:
        tombstone = open_tombstone(Signed(body, signature))
    except ProtocolError:
        return None
    if address_of(tombstone.public_key) != address:
        return None
    least = min(2**63 - 1, tombstone.lease_until_unix_s + TOMBSTONE_MARGIN_S)
    if not record.sound:
        at, until = tombstone.time_unix_s, least
    return address, tombstone.version, body, signature, at, until


def pointer_of(record: Record) -> tuple[Value, ...] | None:
    """A row of `pointer` that decodes."""
    match record.values:
        case (bytes(address), bytes(digest), int(), bytes(packed), int()) if len(address) == len(digest) == ID_BYTES:
            return record.values if _entries(packed) == packed else None
    return None


def _entries(packed: bytes) -> bytes:
    """The table as it is, or an empty one."""
    try:
        unpack_entries(packed)
    except ValueError:
        return _NO_ENTRIES
    return packed
