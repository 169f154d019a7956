"""How parts look as rows, and that nothing read from a row is trusted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lockbox_node.adapters.store_rows import (
    DamagedRow,
    PartRow,
    logical_bytes,
    pack_entries,
    pack_head,
    pack_note,
    pack_signed,
    prefix_of,
    prefixes,
    split_shards,
    unpack_entries,
    unpack_note,
    unpack_signed,
    verified_head,
    verified_shards,
)
from protocol.messages import HolderEntry
from tests.fakes.stripes import OWNER, make_stripe, node_of

PART = make_stripe(1, slots=2).parts[3]
ROW = PartRow(
    7,
    PART.address,
    PART.descriptor_hash,
    PART.version,
    PART.tier,
    PART.lease_until_unix_s,
    PART.index,
    0,
    0,
    len(PART.shards),
    len(PART.shards[0]),
    logical_bytes(PART),
    pack_entries(PART.entries),
    -1,
    OWNER.id,
    b"",
)


def test_a_part_comes_back_from_its_row() -> None:
    head, descriptor = verified_head(ROW, pack_head(PART))
    shards = verified_shards(ROW, descriptor, split_shards(ROW, b"".join(PART.shards)))
    assert ROW.part(head, shards) == PART
    assert ROW.summary.index == 3
    assert tuple(ROW.table.entries) == ROW.entries == PART.entries


@pytest.mark.parametrize(
    "part",
    [
        replace(PART, descriptor=make_stripe(2).signed),
        replace(PART, slots=PART.slots[:1]),
        replace(PART, slots=(PART.slots[0], bytes(1024))),
    ],
)
def test_a_head_that_is_not_the_one_that_was_put_is_damage(part: object) -> None:
    with pytest.raises(DamagedRow):
        verified_head(ROW, pack_head(part))  # type: ignore[arg-type]


def test_a_head_that_does_not_decode_is_damage() -> None:
    with pytest.raises(DamagedRow):
        verified_head(ROW, pack_head(PART)[:-1])


@pytest.mark.parametrize(
    "shards",
    [(), PART.shards[:1], (PART.shards[0][:-1], PART.shards[1]), (PART.shards[1], PART.shards[0])],
)
def test_shards_that_do_not_match_their_ids_are_damage(shards: tuple[bytes, ...]) -> None:
    _, descriptor = verified_head(ROW, pack_head(PART))
    with pytest.raises(DamagedRow):
        verified_shards(ROW, descriptor, shards)


def test_tables_pack_and_unpack() -> None:
    entries = (HolderEntry(1, node_of(1), 2**53), HolderEntry(2, node_of(2), 0))
    assert unpack_entries(pack_entries(entries)) == entries
    assert prefixes(entries) == {prefix_of(node_of(1)), prefix_of(node_of(2))}


@pytest.mark.parametrize("first", [0, 0x7F, 0x80, 0xFF])
def test_the_key_of_a_node_fits_a_signed_column(first: int) -> None:
    assert -(2**63) <= prefix_of(bytes([first]) + bytes(31)) < 2**63


def test_what_a_part_takes_is_its_payload() -> None:
    assert logical_bytes(PART) == 2 * 300 + 2 * 1024 + len(PART.descriptor.body)


def test_a_note_that_changed_on_the_disk_is_damage() -> None:
    assert unpack_note(pack_note(b"value")) == b"value"
    with pytest.raises(DamagedRow):
        unpack_note(pack_note(b"value")[:-1] + b"f")


def test_signed_records_pack_and_unpack() -> None:
    signed = make_stripe(1).signer.tombstone(1)
    assert unpack_signed(pack_signed(signed)) == signed
    assert unpack_signed(pack_signed(None)) is None
