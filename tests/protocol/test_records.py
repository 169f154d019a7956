"""Signed records: one encoding each, one signer each, and nothing else passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.grants import GrantRequest
from protocol.ids import address_of
from protocol.messages import Message, Signed
from protocol.records import (
    DOMAINS,
    AccessClaim,
    Descriptor,
    Group,
    NodeRecord,
    Renewal,
    Tombstone,
    address_of_descriptor,
    check_signature,
    descriptor_hash,
    leaf_bytes,
    node_of,
    open_access,
    open_descriptor,
    open_grant_request,
    open_renewal,
    open_tombstone,
    parse,
    shard_ids_at,
    sign,
)
from tests.protocol import samples

if TYPE_CHECKING:
    from collections.abc import Callable

OPENERS: dict[type[Message], tuple[Callable[[Signed], Message], Message]] = {
    Descriptor: (open_descriptor, samples.descriptor()),
    Renewal: (open_renewal, samples.renewal()),
    AccessClaim: (open_access, samples.access_claim()),
    GrantRequest: (open_grant_request, samples.grant_request()),
    Tombstone: (open_tombstone, samples.tombstone()),
}
KINDS = list(OPENERS)
asset = samples.ed("asset")


def signed_raw(kind: type[Message], body: bytes) -> Signed:
    """Any bytes as a body, with a signature that holds."""
    return Signed(body, asset.sign(DOMAINS[kind] + body))


@pytest.mark.parametrize("kind", KINDS)
def test_a_signed_record_opens_as_it_was(kind: type[Message]) -> None:
    opener, record = OPENERS[kind]
    signed = sign(record, asset)
    assert opener(signed) == record
    assert signed.body == msgpack.packb(msgpack.unpackb(signed.body))


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_body_or_signature_is_refused(kind: type[Message]) -> None:
    opener, record = OPENERS[kind]
    good = sign(record, asset)
    for body, signature in [
        (good.body[:-1] + bytes([good.body[-1] ^ 1]), good.signature),
        (good.body, bytes(64)),
        (good.body, good.signature[:-1] + bytes([good.signature[-1] ^ 0x80])),
        (good.body, sign(record, samples.ed("other")).signature),
    ]:
        with pytest.raises(RemoteProtocolError):
            opener(Signed(body, signature))


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_counts_in_its_domain_only(kind: type[Message]) -> None:
    opener, record = OPENERS[kind]
    body = msgspec.msgpack.encode(record)
    for domain in [b"", *(domain for other, domain in DOMAINS.items() if other is not kind)]:
        with pytest.raises(RemoteProtocolError):
            opener(Signed(body, asset.sign(domain + body)))


def test_no_domain_begins_another() -> None:
    domains = list(DOMAINS.values())
    assert not [(a, b) for a in domains for b in domains if a is not b and a.startswith(b)]


def test_another_encoding_of_the_same_record_is_refused() -> None:
    fields = msgpack.unpackb(samples.signed_tombstone().body)
    bodies = {
        "a long int": msgpack.packb(fields[:1]).replace(b"\x91", b"\x95", 1)
        + b"\xcc\x03"
        + b"".join(msgpack.packb(field) for field in fields[2:]),
        "a long array header": b"\xdc\x00\x05" + samples.signed_tombstone().body[1:],
        "a long bin header": b"\x95\xc5\x00\x20" + samples.signed_tombstone().body[3:],
        "bytes behind it": samples.signed_tombstone().body + b"\xc0",
    }
    for body in bodies.values():
        with pytest.raises(RemoteProtocolError):
            open_tombstone(signed_raw(Tombstone, body))
    with pytest.raises(RemoteProtocolError, match="another encoding"):
        open_tombstone(signed_raw(Tombstone, msgpack.packb([fields[0], 3, 4, 5])))  # the default left out


def test_text_that_is_not_utf_8_is_refused() -> None:
    body = samples.signed_tombstone().body.replace(b"deleted", b"\xff\xfeleted")
    with pytest.raises(RemoteProtocolError, match="does not decode"):
        open_tombstone(signed_raw(Tombstone, body))


def test_nested_bodies_are_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        parse(Signed(b"\x91" * 32768, bytes(64)), Tombstone)


@pytest.mark.parametrize(
    "changes",
    [
        {"k": 6},
        {"k": 5},
        {"groups": [Group([bytes(32)] * 5), Group([bytes(32)] * 4)]},
        {"n": 6},
        {"code": 2},
        {"hash": 2},
        {"groups": []},
        {"shard_bytes": 0},
        {"leaf_bytes": 16384},
        {"shard_bytes": 65537},
    ],
    ids=str,
)
def test_a_descriptor_must_fit_itself(changes: dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError):
        open_descriptor(sign(samples.descriptor(**changes), asset))


def test_a_descriptor_may_have_slots_alone() -> None:
    bare = samples.descriptor(groups=[], shard_bytes=0)
    assert open_descriptor(sign(bare, asset)) == bare


@pytest.mark.parametrize(
    "changes",
    [
        {"version": -1},
        {"version": 2**63},
        {"version": 2**64},
        {"tier": 4},
        {"k": 0},
        {"slot_hashes": []},
        {"groups": 5},
    ],
    ids=str,
)
def test_we_sign_nothing_that_nobody_would_open(changes: dict[str, object]) -> None:
    with pytest.raises(LocalProtocolError):
        sign(samples.descriptor(**changes), asset)
    with pytest.raises(LocalProtocolError):
        sign(Tombstone(samples.raw("asset"), 1, 1, 2, "\ud800"), asset)


def test_leaves_are_small_up_to_64_kib() -> None:
    assert [leaf_bytes(size) for size in (0, 1, 65536, 65537, 262144)] == [4096, 4096, 4096, 16384, 16384]


def test_a_descriptor_says_where_it_stands_and_what_each_holder_keeps() -> None:
    descriptor = samples.descriptor()
    assert address_of_descriptor(descriptor) == address_of(samples.raw("asset")) == samples.ADDRESS
    assert shard_ids_at(descriptor, 4) == [group.shard_ids[4] for group in descriptor.groups]
    assert shard_ids_at(samples.descriptor(groups=[]), 4) == []


def test_a_slot_is_named_by_its_body_not_by_its_signature() -> None:
    signed = samples.signed_descriptor()
    assert descriptor_hash(signed) == descriptor_hash(Signed(signed.body, bytes(64)))
    assert descriptor_hash(signed) != descriptor_hash(sign(samples.descriptor(version=2), asset))


def test_a_record_claims_its_node() -> None:
    assert node_of(samples.node_record()) == samples.node_record().node


def test_a_public_key_that_is_none_is_refused() -> None:
    for key in (bytes(32), b"\xff" * 32):
        with pytest.raises(RemoteProtocolError):
            check_signature(samples.signed_tombstone(), Tombstone, key)


@given(st.sampled_from([*KINDS, NodeRecord]), st.binary(min_size=1, max_size=300), st.binary(min_size=64, max_size=64))
def test_garbage_is_refused_and_nothing_else(kind: type[Message], body: bytes, signature: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        check_signature(Signed(body, signature), kind, samples.raw("asset"))
    try:
        assert msgspec.msgpack.encode(parse(Signed(body, signature), kind)) == body
    except RemoteProtocolError:
        return


@given(st.data())
def test_whatever_is_parsed_has_this_one_encoding(data: st.DataObject) -> None:
    body = bytearray(data.draw(st.sampled_from([sign(record, asset).body for _, record in OPENERS.values()])))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] = data.draw(st.integers(0, 255))
    for kind in KINDS:
        try:
            record = parse(Signed(bytes(body), bytes(64)), kind)
        except RemoteProtocolError:
            continue
        assert msgspec.msgpack.encode(record) == bytes(body)


def test_a_second_signature_made_without_the_key_is_refused() -> None:
    signed = samples.signed_tombstone()
    order = 2**252 + 27742317777372353535851937790883648493
    shifted = (int.from_bytes(signed.signature[32:], "little") + order).to_bytes(32, "little")
    with pytest.raises(RemoteProtocolError):
        open_tombstone(Signed(signed.body, signed.signature[:32] + shifted))
