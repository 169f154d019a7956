"""The limits in the types: what a message refuses to be decoded from, checked with an independent encoder."""

from __future__ import annotations

import inspect
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import documents, fields, messages, records, vantage
from protocol.messages import NUMBERS, TYPES, UNDECODABLE, Message
from tests.protocol import samples

EVERY: dict[str, Message] = {
    **samples.requests(),
    **{f"reply: {name}": reply for name, (_, reply) in samples.replies().items()},
    **{f"refusal: {name}": refusal for name, refusal in samples.refusals().items()},
}
KINDS = [
    kind
    for module in (fields, messages, records, documents, vantage)
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, Message) and kind.__module__ == module.__name__ and kind is not Message
]


def fields_of(message: Message) -> list[Any]:
    """A message as plain lists, by the independent codec."""
    fields = msgpack.unpackb(msgspec.msgpack.encode(message))
    assert isinstance(fields, list)
    return fields


def refused(kind: type[Message], fields: object) -> None:
    """Assert that `kind` cannot be decoded from these fields."""
    with pytest.raises(UNDECODABLE):
        msgspec.msgpack.decode(msgpack.packb(fields), type=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_every_struct_is_positional_frozen_and_closed(kind: type[Message]) -> None:
    config = kind.__struct_config__
    assert config.array_like
    assert config.frozen
    assert config.forbid_unknown_fields
    assert not config.gc


def test_every_request_has_one_number_and_one_reply() -> None:
    assert sorted(TYPES) == list(range(1, 22))
    assert len(NUMBERS) == len(TYPES)
    assert all(TYPES[number][0] is request for request, number in NUMBERS.items())
    assert {type(request) for request in samples.requests().values()} == set(NUMBERS)
    for number, (request, reply) in TYPES.items():
        assert any(kind is request and type(sample) is reply for kind, sample in samples.replies().values()), number


@pytest.mark.parametrize("name", EVERY)
def test_every_message_survives_both_codecs(name: str) -> None:
    message = EVERY[name]
    assert msgspec.msgpack.decode(msgpack.packb(fields_of(message)), type=type(message)) == message


@pytest.mark.parametrize("name", EVERY)
def test_one_field_more_is_refused(name: str) -> None:
    fields = fields_of(EVERY[name])
    whole = len(EVERY[name].__struct_fields__)
    refused(type(EVERY[name]), [*fields, *[None] * (whole + 1 - len(fields))])


@pytest.mark.parametrize("name", EVERY)
def test_a_field_less_is_refused_unless_it_has_a_default(name: str) -> None:
    kind = type(EVERY[name])
    needed = len(kind.__struct_fields__) - len(kind.__struct_defaults__)
    for count in range(needed):
        refused(kind, fields_of(EVERY[name])[:count])


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("wrong", [True, 1.0, -1, 2**64 - 1, {"a": 1}, [[[]]], msgpack.ExtType(1, b"x")], ids=repr)
def test_a_field_of_another_type_is_refused(name: str, wrong: object) -> None:
    kind = type(EVERY[name])
    fields = fields_of(EVERY[name])
    for at, field in enumerate(kind.__struct_fields__):
        if isinstance(wrong, bool) and kind.__annotations__[field] == "bool":
            continue
        refused(kind, [*fields[:at], wrong, *fields[at + 1 :]])


ID = bytes(32)
STATE = [ID, 0, 0]
SIGNED = [b"body", bytes(64)]
ENTRY = [0, ID, 0]
TABLE = [ID, 0, ID, []]
VERSION = [1, 1, ID]
DOCUMENT = [1, b"body", bytes(64)]
LIMITS: list[tuple[type[Message], list[Any], int, list[Any]]] = [
    # kind, good fields, field, [values beyond the limit]
    (messages.Signed, SIGNED, 0, [b"", bytes(32 * 1024 + 1)]),
    (messages.Signed, SIGNED, 1, [bytes(63), bytes(65)]),
    (messages.Refusal, ["", "", "", False, 0, None], 0, ["x" * 65]),
    (messages.Refusal, ["", "", "", False, 0, None], 1, ["x" * 513]),
    (messages.Refusal, ["", "", "", False, 0, None], 2, ["x" * 513]),
    (messages.Refusal, ["", "", "", False, 0, None], 4, [2**32]),
    (messages.HolderEntry, ENTRY, 0, [256]),
    (messages.HolderTable, TABLE, 3, [[ENTRY] * 257]),
    (messages.MemberState, STATE, 2, [3]),
    (messages.Hello, [[b"x"], [1], ID, None, b"", 0], 0, [[], [b"x"] * 3, [b""], [bytes(4097)]]),
    (messages.Hello, [[b"x"], [1], ID, None, b"", 0], 1, [[], [1] * 17, [256]]),
    (messages.Hello, [[b"x"], [1], ID, None, b"", 0], 4, [bytes(33)]),
    (messages.SyncMembers, [[], b""], 0, [[STATE] * 20_001]),
    (messages.SyncMembers, [[], b""], 1, [bytes(33)]),
    (messages.Members, [[], [], False], 0, [[[STATE, None]] * 1001]),
    (messages.Members, [[], [], False], 1, [[ID] * 1001]),
    (messages.Gossip, [[]], 0, [[[STATE, None]] * 1001]),
    (messages.FindNode, [ID, 1], 1, [0, 129]),
    (messages.Nodes, [[]], 0, [[SIGNED] * 129]),
    (messages.Holders, [[], None, []], 0, [[TABLE] * 9]),
    (messages.Holders, [[], None, []], 2, [[SIGNED] * 21]),
    (messages.PutStripe, [SIGNED, [b"s"], 0, [], []], 1, [[], [b"s"] * 5, [b""], [bytes(4097)]]),
    (messages.PutStripe, [SIGNED, [b"s"], 0, [], []], 3, [[b"s"] * 9, [b""], [bytes(256 * 1024 + 1)]]),
    (messages.PutStripe, [SIGNED, [b"s"], 0, [], []], 4, [[ENTRY] * 257]),
    (messages.Stored, [[]], 0, [[SIGNED] * 9]),
    (messages.Shards, [SIGNED, [b"s"], 0, []], 3, [[b"s"] * 9]),
    (messages.Slots, [[], None], 0, [[[SIGNED, [b"s"], 0, []]] * 9]),
    (messages.Prove, [ID, ID, bytes(16), None], 2, [bytes(15), bytes(17)]),
    (messages.LeafProof, [0, b"l", []], 0, [2**32]),
    (messages.LeafProof, [0, b"l", []], 1, [b"", bytes(64 * 1024 + 1)]),
    (messages.LeafProof, [0, b"l", []], 2, [[ID] * 33]),
    (messages.Proof, [0, []], 1, [[[]] * 9, [[[0, b"l", []]] * 65]]),
    (messages.TellHolders, [[TABLE], None], 0, [[], [TABLE] * 257]),
    (messages.Told, [[], [], []], 0, [[SIGNED] * 257]),
    (messages.Told, [[], [], []], 1, [[SIGNED] * 65]),
    (messages.Told, [[], [], []], 2, [[ID] * 257, [bytes(31)]]),
    (messages.BucketDigest, [0, 1, ID], 0, [4096]),
    (messages.BucketDigest, [0, 1, ID], 1, [2**32]),
    (messages.BucketDigest, [0, 1, ID], 2, [bytes(31), bytes(33)]),
    (messages.CompareHeld, [[]], 0, [[[0, 1, ID]] * 4097]),
    (messages.Differing, [[]], 0, [[0] * 4097, [4096]]),
    (messages.SyncMembers, [[], b"", []], 2, [[VERSION] * 17]),
    (messages.Members, [[], [], False, []], 3, [[VERSION] * 17]),
    (messages.DocumentVersion, VERSION, 2, [bytes(31), bytes(33)]),
    (messages.SignedDocument, DOCUMENT, 1, [b"", bytes(512 * 1024 + 1)]),
    (messages.SignedDocument, DOCUMENT, 2, [bytes(63), bytes(65)]),
    (messages.GetDocuments, [[]], 0, [[VERSION] * 17]),
    (messages.Documents, [[]], 0, [[DOCUMENT] * 5]),
    (messages.PingFor, [ID, 0], 0, [bytes(31), bytes(33), "a"]),
    (messages.TellDocuments, [[DOCUMENT]], 0, [[], [DOCUMENT] * 5]),
    (documents.Revocation, [ID, 0, ""], 2, ["x" * 65]),
    (documents.Revocations, [1, 0, []], 0, [0, 2**63]),
    (documents.Revocations, [1, 0, []], 2, [[[ID, 0, ""]] * 4097]),
    (documents.Releases, [1, 0, []], 2, [[[ID, "", 0]] * 513]),
    (documents.Place, ["a-1", 90_000_000, 180_000_000], 0, ["", "A", "a--1", "-a", "a-", "a\n", "a b", "é", "a" * 65]),
    (documents.Place, ["a", -90_000_000, 0], 1, [90_000_001, -90_000_001, 0.5, float("nan")]),
    (documents.Place, ["a", 0, -180_000_000], 2, [180_000_001, -180_000_001, 0.5, float("nan")]),
    (documents.Regions, [1, 0, [["a", 0, 0]]], 2, [[], [["a", 0, 0]] * 513]),
    (documents.Policy, [1, 0, []], 2, [[["", ""]] * 65]),
]


@pytest.mark.parametrize(("kind", "good", "at", "beyond"), LIMITS, ids=lambda value: getattr(value, "__name__", ""))
def test_every_limit_holds(kind: type[Message], good: list[Any], at: int, beyond: list[Any]) -> None:
    assert isinstance(msgspec.msgpack.decode(msgpack.packb(good), type=kind), kind)
    for value in beyond:
        refused(kind, [*good[:at], value, *good[at + 1 :]])


@given(st.sampled_from(KINDS), st.binary(max_size=200))
def test_garbage_is_a_message_or_undecodable(kind: type[Message], garbage: bytes) -> None:
    try:
        message = msgspec.msgpack.decode(garbage, type=kind)
    except UNDECODABLE:
        return
    assert type(message) is kind
