"""The types that messages are made of: ids, counts, texts with their limits, the base of all Structs, `Signed`.

Beside `messages`, so that modules which define some messages of their own can be registered there.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

# All that msgspec was seen to raise for foreign bytes: its own errors, text that is not UTF-8, deep nesting.
UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

Id32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Nonce16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Signature64 = Annotated[bytes, Meta(min_length=64, max_length=64)]
Der = Annotated[bytes, Meta(min_length=1, max_length=4096)]
U8 = Annotated[int, Meta(ge=0, le=255)]
U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
U63 = Annotated[int, Meta(ge=0, le=2**63 - 1)]
ShortText = Annotated[str, Meta(max_length=64)]
LongText = Annotated[str, Meta(max_length=512)]
Chain = Annotated[list[Der], Meta(min_length=1, max_length=2)]


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base of everything on the wire: positional, immutable, no unknown fields."""


class Signed(Message, frozen=True):
    """Raw encoded bytes and the Ed25519 signature over (domain || bytes): SPEC.md, Signatures."""

    body: Annotated[bytes, Meta(min_length=1, max_length=32 * 1024)]
    signature: Signature64
