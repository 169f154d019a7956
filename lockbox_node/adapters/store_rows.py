"""How parts, tables and slots look as rows.

A row of `part` is small (what is planned with); `body` keeps the signed descriptor and the slots as `head`, and the
shards, one after the other, unless they are in a file. `named` finds the parts whose table names a node by the first 8
bytes of its id; the full ids in the table decide. Nothing read from a row is trusted: `verified_head` and
`verified_shards` compare with the hashes that the owner signed.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from lockbox_node.ports import StripePart, StripeSummary
from protocol import merkle
from protocol.ids import Address, DescriptorHash
from protocol.messages import HolderEntry, HolderTable, Message, Signed
from protocol.records import Descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PART_COLUMNS = (
    "rid, address, hash, version, tier, lease, idx, corrupt, big, shards, shard_bytes, logical_bytes, entries, "
    "trashed, owner, renewal"
)
QUALIFIED_COLUMNS = ", ".join(f"part.{name}" for name in PART_COLUMNS.split(", "))  # for joins
PARTS_AT = f"SELECT {PART_COLUMNS} FROM part WHERE address = ?"  # noqa: S608  # our column names
NOTE_CHECK_BYTES = 8
_PREFIX = struct.Struct(">q")


class Head(Message, frozen=True):
    """The signed descriptor and the manifest slots of a part."""

    descriptor: Signed
    slots: list[bytes]


class DamagedRow(Exception):
    """The bytes of a row or file are not those that were put."""


@dataclass(frozen=True, slots=True)
class PartRow:
    """A row of `part`, in the order of PART_COLUMNS."""

    rid: int
    address: bytes
    hash: bytes
    version: int
    tier: int
    lease: int
    index: int
    corrupt: int
    big: int
    shards: int
    shard_bytes: int
    logical_bytes: int
    packed_entries: bytes
    trashed: int  # uptime of the store in seconds when its lease was found over; -1 = live
    owner: bytes
    packed_renewal: bytes

    @property
    def columns(self) -> tuple[int | bytes, ...]:
        """The values of the row."""
        return _columns_of(self)

    @property
    def entries(self) -> tuple[HolderEntry, ...]:
        """The holder table of the part."""
        return unpack_entries(self.packed_entries)

    @property
    def summary(self) -> StripeSummary:
        """What healing plans with."""
        return StripeSummary(
            Address(self.address),
            self.version,
            DescriptorHash(self.hash),
            self.tier,
            self.index,
            bool(self.corrupt),
            self.entries,
            self.lease,
            self.trashed >= 0,
        )

    @property
    def table(self) -> HolderTable:
        """The holder table as it travels."""
        return HolderTable(self.address, self.version, self.hash, list(self.entries))

    def part(self, head: Head, shards: tuple[bytes, ...]) -> StripePart:
        """The part with these shards (none for a look)."""
        return StripePart(
            Address(self.address),
            self.version,
            DescriptorHash(self.hash),
            head.descriptor,
            self.tier,
            self.lease,
            tuple(head.slots),
            self.index,
            shards,
            self.entries,
            unpack_signed(self.packed_renewal),
        )


_columns_of: Callable[[PartRow], tuple[int | bytes, ...]] = attrgetter(*(item.name for item in fields(PartRow)))
INSERT_PART = f"INTO part({PART_COLUMNS}) VALUES ({', '.join('?' * len(fields(PartRow)))})"  # after INSERT or REPLACE

_encoder = msgspec.msgpack.Encoder()
_entries_decoder = msgspec.msgpack.Decoder(tuple[HolderEntry, ...])
_head_decoder = msgspec.msgpack.Decoder(Head)
_descriptor_decoder = msgspec.msgpack.Decoder(Descriptor)
_signed_decoder = msgspec.msgpack.Decoder(Signed)


def pack_entries(entries: Sequence[HolderEntry]) -> bytes:
    """A holder table as one blob."""
    return _encoder.encode(entries)


def unpack_entries(packed: bytes) -> tuple[HolderEntry, ...]:
    """The inverse of `pack_entries`."""
    return _entries_decoder.decode(packed)


def pack_signed(signed: Signed | None) -> bytes:
    """A signed record as one blob, b'' for none."""
    return b"" if signed is None else _encoder.encode(signed)


def unpack_signed(packed: bytes) -> Signed | None:
    """The inverse of `pack_signed`."""
    return _signed_decoder.decode(packed) if packed else None


def pack_note(value: bytes) -> bytes:
    """A note with what tells whether it is still what was noted."""
    return hashlib.sha256(value).digest()[:NOTE_CHECK_BYTES] + value


def unpack_note(packed: bytes) -> bytes:
    """The inverse of `pack_note`. DamagedRow."""
    value = packed[NOTE_CHECK_BYTES:]
    if hashlib.sha256(value).digest()[:NOTE_CHECK_BYTES] != packed[:NOTE_CHECK_BYTES]:
        raise DamagedRow("a note is not what was noted")
    return value


def pack_head(part: StripePart) -> bytes:
    """Descriptor and slots as one blob."""
    return _encoder.encode(Head(part.descriptor, list(part.slots)))


def unpack_head(packed: bytes) -> Head:
    """The inverse of `pack_head`; nothing is verified. DamagedRow."""
    try:
        return _head_decoder.decode(packed)
    except msgspec.DecodeError:
        raise DamagedRow("the descriptor does not decode") from None


def logical_bytes(part: StripePart) -> int:
    """Bytes of a part that count against the capacity: shards, slots and descriptor."""
    return sum(map(len, part.shards)) + sum(map(len, part.slots)) + len(part.descriptor.body)


def prefix_of(node: bytes) -> int:
    """The first 8 bytes of a node id as a signed number: the key of `named`."""
    prefix: int = _PREFIX.unpack_from(node)[0]
    return prefix


def prefixes(entries: Iterable[HolderEntry]) -> set[int]:
    """The keys of `named` for a table; looked up and sorted, never iterated as they are."""
    return {prefix_of(entry.node) for entry in entries}


def verified_head(row: PartRow, packed: bytes) -> tuple[Head, Descriptor]:
    """Descriptor and slots, each compared with the hash that names it. DamagedRow."""
    head = unpack_head(packed)
    try:
        if hashlib.sha256(head.descriptor.body).digest() != row.hash:
            raise DamagedRow("the descriptor is not the one that was put")
        descriptor = _descriptor_decoder.decode(head.descriptor.body)
    except msgspec.DecodeError:
        raise DamagedRow("the descriptor does not decode") from None
    if [hashlib.sha256(slot).digest() for slot in head.slots] != descriptor.slot_hashes:
        raise DamagedRow("a slot is not the one that was put")
    return head, descriptor


def verified_shards(row: PartRow, descriptor: Descriptor, shards: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """`shards` when each is the one whose id was signed for this index and group. DamagedRow otherwise."""
    if len(shards) != len(descriptor.groups):
        raise DamagedRow("a shard is missing")
    for group, shard in zip(descriptor.groups, shards, strict=True):
        if len(shard) != descriptor.shard_bytes:
            raise DamagedRow("a shard is cut")
        if merkle.root(shard, descriptor.leaf_bytes) != group.shard_ids[row.index]:
            raise DamagedRow("a shard does not match its id")
    return shards


def split_shards(row: PartRow, joined: bytes) -> tuple[bytes, ...]:
    """The shards of a part that is kept inside the database."""
    return tuple(joined[number * row.shard_bytes : (number + 1) * row.shard_bytes] for number in range(row.shards))
