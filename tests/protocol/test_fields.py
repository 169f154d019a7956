"""The types of fields: what each takes, and what it refuses."""

from __future__ import annotations

import msgspec
import pytest

from protocol.fields import U8, U32, U63, UNDECODABLE, Chain, Id32, LongText, Nonce16, ShortText, Signature64

LIMITS: list[tuple[object, list[object], list[object]]] = [
    (U8, [0, 255], [-1, 256, "1"]),
    (U32, [0, 2**32 - 1], [-1, 2**32]),
    (U63, [0, 2**63 - 1], [-1, 2**63]),
    (Id32, [bytes(32)], [bytes(31), bytes(33), "x" * 32]),
    (Nonce16, [bytes(16)], [bytes(15), bytes(17)]),
    (Signature64, [bytes(64)], [bytes(63), bytes(65)]),
    (ShortText, ["", "x" * 64], ["x" * 65, b"x"]),
    (LongText, ["", "x" * 512], ["x" * 513]),
    (Chain, [[b"x"], [b"x", bytes(4096)]], [[], [b""], [b"x"] * 3, [bytes(4097)]]),
]


@pytest.mark.parametrize(("kind", "good", "bad"), LIMITS)
def test_a_type_takes_what_is_within_its_limits_and_nothing_else(
    kind: object, good: list[object], bad: list[object]
) -> None:
    for value in good:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=kind) == value
    for value in bad:
        with pytest.raises(UNDECODABLE):
            msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=kind)
