"""Leave to ask about an address: the asset key's claim, or being a node that our table may name. SPEC.md, Access."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockbox_node.core.admission import access_claim_judge
from lockbox_node.errors import LockboxError
from protocol.certificates import Role
from protocol.errors import ErrorCode
from protocol.messages import NUMBERS, Message, Signed
from protocol.records import open_access

if TYPE_CHECKING:
    from lockbox_node.rpc.hello import Peer


def is_claimed(access: Signed | None, address: bytes, kind: type[Message], peer: Peer, now_unix_s: float) -> bool:
    """True: the asset key gave leave. False: none was shown, by a node that may stand in our table.

    LockboxError(ACCESS_DENIED) or RemoteProtocolError otherwise.
    """
    if access is not None:
        access_claim_judge(open_access(access), address, NUMBERS[kind], peer.id, now_unix_s)
        return True
    if peer.role is not Role.NODE:
        raise LockboxError(
            "this needs a claim signed by the asset's key", "sign one for this request", ErrorCode.ACCESS_DENIED
        )
    return False
