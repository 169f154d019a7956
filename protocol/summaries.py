"""Two views of a large network compared by digests first: 256 groups of members by the first byte of their ids.

Only members not believed dead count, since who never met a dead one will not hear of it. The key is drawn anew by
whoever asks, so that no set of records is the same to everybody by design of who signed them. What differs is then
exchanged member by member. Demers et al., Epidemic algorithms, 1987, section 1.5: checksums before whole tables.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import TYPE_CHECKING

from protocol.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from protocol.messages import MemberState

MEMBER_GROUPS = 256
KEY_BYTES = 16
DIGEST_BYTES = 8
SUMMARY_BYTES = KEY_BYTES + MEMBER_GROUPS * DIGEST_BYTES
_LINE = struct.Struct(">32sQB")


def summary(states: Iterable[MemberState], key: bytes) -> bytes:
    """The key (16 bytes), and the digests of all groups; `states` by rising id, without the dead."""
    lines: list[list[bytes]] = [[] for _ in range(MEMBER_GROUPS)]
    for state in states:
        lines[state.node[0]].append(_LINE.pack(state.node, state.incarnation, state.status))
    return key + b"".join(
        blake2b(b"".join(group), digest_size=DIGEST_BYTES, key=key).digest() if group else bytes(DIGEST_BYTES)
        for group in lines
    )


def differing(theirs: bytes, states: Iterable[MemberState]) -> bytes:
    """The groups, one byte each, rising, in which `states` (ours) are not what the summary was made of.

    RemoteProtocolError when it is not as long as a summary is.
    """
    if len(theirs) != SUMMARY_BYTES:
        raise RemoteProtocolError(f"a summary of members has {SUMMARY_BYTES} bytes, not {len(theirs)}")
    ours = summary(states, theirs[:KEY_BYTES])
    return bytes(
        group
        for group, at in enumerate(range(KEY_BYTES, len(ours), DIGEST_BYTES))
        if ours[at : at + DIGEST_BYTES] != theirs[at : at + DIGEST_BYTES]
    )
