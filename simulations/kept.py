"""One part as a simulated store keeps it: its marks, and what a failing disk makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lockbox_node.ports import StripePart, StripeSummary
from protocol.ids import Address, DescriptorHash
from protocol.messages import HolderTable

Key = tuple[Address, DescriptorHash]


@dataclass(eq=False)
class Kept:
    """A part, who is charged for it, and its marks. Another put of the same part makes another Kept."""

    part: StripePart
    owner: bytes = b""
    corrupt: bool = False  # found damaged, in quarantine
    headless: bool = False  # neither descriptor nor slots can be read
    harmed: bool = False  # by the simulation
    trashed_at_s: int = -1  # uptime; -1 = live
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = size_of(self.part)

    @property
    def key(self) -> Key:
        """Where it stands."""
        return self.part.address, self.part.descriptor_hash

    @property
    def table(self) -> HolderTable:
        """Who else keeps it."""
        part = self.part
        return HolderTable(part.address, part.version, part.descriptor_hash, list(part.entries))

    @property
    def summary(self) -> StripeSummary:
        """What healing plans with."""
        part = self.part
        return StripeSummary(
            part.address,
            part.version,
            part.descriptor_hash,
            part.tier,
            part.index,
            self.corrupt,
            part.entries,
            part.lease_until_unix_s,
            self.trashed_at_s >= 0,
        )

    def flip(self, shard: int, byte: int, bit: int) -> None:
        """Flip one bit of one shard, as a disk does that rots."""
        self.harmed = True
        shards = list(self.part.shards)
        raw = bytearray(shards[shard])
        raw[byte] ^= 1 << bit
        shards[shard] = bytes(raw)
        self.part = replace(self.part, shards=tuple(shards))

    def tear(self, whole_bytes: int) -> None:
        """Only the first `whole_bytes` of its shards reached the disk; zeros stand for the others."""
        self.harmed = True
        shards = []
        for shard in self.part.shards:
            whole = shard[:whole_bytes]
            shards.append(whole + bytes(len(shard) - len(whole)))
            whole_bytes -= len(whole)
        self.part = replace(self.part, shards=tuple(shards))


def size_of(part: StripePart) -> int:
    """What a part weighs against capacity and quota."""
    return sum(len(piece) for piece in (*part.shards, *part.slots, part.descriptor.body))
