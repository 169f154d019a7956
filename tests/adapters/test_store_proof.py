"""What a row proves by itself, and what it does not."""

from __future__ import annotations

from dataclasses import astuple, replace
from typing import TYPE_CHECKING

import pytest

from lockbox_node.adapters.store_files import BigFiles, BigHeader, name_of
from lockbox_node.adapters.store_pages import Record
from lockbox_node.adapters.store_proof import (
    DOUBTED_ROW,
    ROW,
    meta_of,
    pointer_of,
    proof_of,
    row_of,
    tomb_of,
)
from lockbox_node.adapters.store_rows import PartRow, logical_bytes, pack_entries, pack_head, pack_signed
from lockbox_node.core.slots import TOMBSTONE_MARGIN_S
from protocol.messages import Signed
from tests.fakes.stripes import DAY_S, NOW_UNIX_S, make_stripe

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.ports import StripePart

STRIPE = make_stripe(1, slots=2)
PART = STRIPE.parts[4]
LARGE = make_stripe(2, groups=4, shard_bytes=17_000).parts[4]
UNTIL = NOW_UNIX_S + 300 * DAY_S


def row_for(part: StripePart, rid: int = 7) -> PartRow:
    return PartRow(
        rid, part.address, part.descriptor_hash, part.version, part.tier, part.lease_until_unix_s, part.index, ROW,
        int(part is LARGE), len(part.shards), len(part.shards[0]), logical_bytes(part), pack_entries(part.entries),
        -1, b"owner", b"",
    )  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> BigFiles:
    files = BigFiles(tmp_path)
    files.prepare()
    return files


def test_a_body_alone_gives_the_whole_row(files: BigFiles) -> None:
    proof = proof_of(7, pack_head(PART), b"".join(PART.shards), None, files)
    assert proof is not None
    wanted = replace(row_for(PART), corrupt=0, packed_entries=pack_entries(()), owner=b"")
    assert proof.row(None) == wanted


def test_a_row_gives_table_and_owner_and_only_of_the_same_identity(files: BigFiles) -> None:
    proof = proof_of(7, pack_head(PART), b"".join(PART.shards), None, files)
    assert proof is not None
    assert proof.row(row_for(PART)) == replace(row_for(PART), corrupt=0)
    assert proof.row(replace(row_for(PART), hash=bytes(32))).owner == b""


def test_trash_and_lease_are_those_of_a_whole_row_alone(files: BigFiles) -> None:
    proof = proof_of(7, pack_head(PART), b"".join(PART.shards), None, files)
    assert proof is not None
    row = replace(row_for(PART), trashed=50, lease=UNTIL)
    assert (proof.row(row).trashed, proof.row(row).lease) == (50, UNTIL)
    doubted = proof.row(replace(row, corrupt=DOUBTED_ROW))
    assert (doubted.trashed, doubted.lease) == (-1, PART.lease_until_unix_s)


def test_a_renewal_counts_when_it_is_signed_for_this_slot(files: BigFiles) -> None:
    proof = proof_of(7, pack_head(PART), b"".join(PART.shards), None, files)
    assert proof is not None
    renewal = STRIPE.signer.renewal(1, PART.descriptor_hash, UNTIL)
    other = STRIPE.signer.renewal(2, PART.descriptor_hash, UNTIL)
    forged = replace_body(renewal)
    for signed, lease in ((renewal, UNTIL), (other, PART.lease_until_unix_s), (forged, PART.lease_until_unix_s)):
        row = replace(row_for(PART), corrupt=DOUBTED_ROW, packed_renewal=pack_signed(signed))
        assert proof.row(row).lease == lease


def replace_body(signed: Signed) -> Signed:
    return Signed(signed.body, bytes([signed.signature[0] ^ 1]) + signed.signature[1:])


@pytest.mark.parametrize("what", ["head", "slot", "signature", "shard", "cut", "swapped"])
def test_a_changed_body_proves_nothing(files: BigFiles, what: str) -> None:
    part, shards = PART, list(PART.shards)
    head = pack_head(part)
    match what:
        case "head":
            head = head[:-1]
        case "slot":
            head = pack_head(replace(part, slots=(part.slots[0], bytes(1024))))
        case "signature":
            head = pack_head(replace(part, descriptor=replace_body(part.descriptor)))
        case "shard":
            shards[1] = bytes(len(shards[1]))
        case "cut":
            shards[1] = shards[1][:-1]
        case "swapped":
            shards[1] = STRIPE.parts[5].shards[1]
    assert proof_of(7, head, b"".join(shards), row_for(part), files) is None


def test_a_slot_alone_needs_its_row(files: BigFiles) -> None:
    part = make_stripe(3, groups=0).parts[2]
    assert proof_of(7, pack_head(part), b"", None, files) is None
    row = replace(row_for(PART), address=part.address, hash=part.descriptor_hash, index=2)
    proof = proof_of(7, pack_head(part), b"", row, files)
    assert proof is not None
    assert (proof.index, proof.big) == (2, False)


def put_file(files: BigFiles, index: int = LARGE.index) -> None:
    header = BigHeader(LARGE.address, LARGE.descriptor_hash, 1, 7, index, 4, 17_000)
    files.write(header, LARGE.shards)


def test_a_large_part_needs_its_file(files: BigFiles) -> None:
    assert proof_of(7, pack_head(LARGE), b"", row_for(LARGE), files) is None
    put_file(files)
    for row in (None, row_for(LARGE)):
        proof = proof_of(7, pack_head(LARGE), b"", row, files)
        assert proof is not None
        assert (proof.index, proof.big) == (LARGE.index, True)


def test_shards_tell_their_index_when_the_header_is_gone(files: BigFiles, tmp_path: Path) -> None:
    put_file(files)
    path = tmp_path / "big" / name_of(LARGE.address, 7)
    raw = bytearray(path.read_bytes())
    raw[50] ^= 1
    path.write_bytes(raw)
    proof = proof_of(7, pack_head(LARGE), b"", None, files)
    assert proof is not None
    assert proof.index == LARGE.index


def test_a_row_of_a_part_has_its_shape() -> None:
    values = astuple(row_for(PART))
    assert row_of(Record(7, (None, *values[1:]), sound=True)) == row_for(PART)
    assert row_of(Record(7, (None, *values[1:13]), sound=True)) == replace(row_for(PART), owner=b"")
    for place, wrong in ((1, b"short"), (3, "text"), (6, 64), (9, -1), (12, None)):
        bad = (None, *values[1:place], wrong, *values[place + 1 :])
        assert row_of(Record(7, bad, sound=True)) is None
    assert row_of(Record(None, (None, *values[1:]), sound=True)) is None


def test_both_formats_of_meta_are_read() -> None:
    old = (None, "uuid", b"node", 9, 3, 0, 0, 0, 0, 0, 2)
    for values, epoch in ((old, 0), ((*old, 5, 0, 0, 7), 5)):
        meta = meta_of(Record(1, values, sound=True))
        assert meta is not None
        assert (meta.node, meta.next_rid, meta.stripes, meta.tombstones, meta.epoch) == (b"node", 9, 3, 2, epoch)
    assert meta_of(Record(1, (None, "uuid", b"node"), sound=True)) is None


def test_a_tombstone_is_kept_by_its_signature() -> None:
    signed = STRIPE.signer.tombstone(3)
    values = (STRIPE.signer.address, 3, signed.body, signed.signature, 5, UNTIL)
    assert tomb_of(Record(None, values, sound=True)) == values
    least = NOW_UNIX_S + 30 * DAY_S + TOMBSTONE_MARGIN_S
    assert tomb_of(Record(None, values, sound=False)) == (*values[:4], NOW_UNIX_S, least)
    assert tomb_of(Record(None, values[:5], sound=True)) == (*values[:5], 2**63 - 1)
    assert tomb_of(Record(None, (values[0], 4, *values[2:]), sound=True)) == values
    for place, wrong in ((0, bytes(32)), (2, signed.body[:-1]), (3, bytes(64))):
        assert tomb_of(Record(None, (*values[:place], wrong, *values[place + 1 :]), sound=True)) is None


def test_a_pointer_is_kept_when_it_decodes() -> None:
    values = (bytes(32), bytes(32), 1, pack_entries(PART.entries), UNTIL)
    assert pointer_of(Record(None, values, sound=True)) == values
    assert pointer_of(Record(None, (*values[:3], b"\xc1", UNTIL), sound=True)) is None
    assert pointer_of(Record(None, (b"short", *values[1:]), sound=True)) is None
