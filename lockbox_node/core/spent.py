"""What was seen once and must not be seen again: nonces, each until its request can no longer be fresh.

Bounded in all and per requester, so that one cannot crowd out others. Nothing is forgotten early: when there is no
room, the new one is refused. Whatever was signed at or before `floor_unix_s` counts as seen: so neither a clock that is
set back nor a journal that has lost its end lets anything through twice. All times are passed in.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockbox_node.core.admission import CLAIM_PAST_S
from lockbox_node.errors import LockboxError
from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from protocol.grants import GrantRequest
    from protocol.possession import AuditRequest

KEYS_MAX = 2**17
SHARE_MAX = KEYS_MAX // 16  # of one requester
GUESTS_MAX = KEYS_MAX // 4  # of all guests: everybody has their papers, and hosts are cheap
GUEST_SHARE_MAX = 4096  # of one host of theirs
GUEST, KNOWN = b"g", b"c"  # how the tag of an owner begins
_RECORD = struct.Struct(">BQd16s16s8s")
RECORD_BYTES = _RECORD.size


@dataclass(frozen=True, slots=True)
class Use:
    """One request that was granted (kind GRANTED_HERE), served (SERVED_HERE) or looked after (AUDITED_HERE) then."""

    kind: int
    time_unix_s: int  # that the request was signed at
    seen_unix_s: float
    key: bytes  # of requester and nonce
    pair: bytes  # of requester and address, for the rate
    owner: bytes  # of the requester, for its share

    def packed(self) -> bytes:
        """RECORD_BYTES."""
        return _RECORD.pack(self.kind, self.time_unix_s, self.seen_unix_s, self.key, self.pair, self.owner)


GRANTED_HERE, SERVED_HERE, AUDITED_HERE = 1, 2, 3


def unpacked(record: bytes) -> Use | None:
    """The inverse; None when it is of another length."""
    return Use(*_RECORD.unpack(record)) if len(record) == RECORD_BYTES else None


def use_of(
    kind: int, request: GrantRequest | AuditRequest, rate_key: bytes, now_unix_s: float, *, guest: bool = False
) -> Use:
    """`rate_key` tells requesters apart for rates and shares: guests, who have one id, by their host too."""

    def tag(*parts: bytes) -> bytes:
        return hashlib.sha256(b"".join(parts)).digest()

    return Use(
        kind,
        request.time_unix_s,
        now_unix_s,
        tag(request.requester, request.nonce)[:16],
        tag(request.public_key, rate_key)[:16],
        (GUEST if guest else KNOWN) + tag(rate_key)[:7],
    )


class Spent:
    """The uses of one kind."""

    def __init__(
        self,
        keys_max: int = KEYS_MAX,
        share_max: int = SHARE_MAX,
        guests_max: int = GUESTS_MAX,
        guest_share_max: int = GUEST_SHARE_MAX,
    ) -> None:
        self.floor_unix_s = float("-inf")
        self._keys_max, self._share_max = keys_max, share_max
        self._times: OrderedDict[bytes, tuple[int, bytes]] = OrderedDict()  # key -> (signed at, owner)
        self._shares: Counter[bytes] = Counter()
        self._guests_max, self._guest_share_max = guests_max, guest_share_max
        self._guests = 0

    def __len__(self) -> int:
        return len(self._times)

    def require_new(self, use: Use, now_unix_s: float) -> None:
        """LockboxError: GRANT_REPLAYED when it was seen, BUSY when that cannot be told, or when there is no room."""
        self._forget(now_unix_s)
        if use.key in self._times:
            raise LockboxError("this request was used here before", "sign a new one", ErrorCode.GRANT_REPLAYED)
        if use.time_unix_s <= self.floor_unix_s:
            raise _busy("this node cannot tell whether it has seen this", self.floor_unix_s - now_unix_s + 1)
        if self._is_full(use.owner):
            oldest_unix_s, _ = next(iter(self._times.values()))
            wait_s = oldest_unix_s + CLAIM_PAST_S - now_unix_s
            raise _busy("too many requests of the last minutes are remembered", wait_s)

    def add(self, use: Use) -> None:
        """Remember it."""
        if use.key not in self._times:
            self._times[use.key] = use.time_unix_s, use.owner
            self._shares[use.owner] += 1
            self._guests += use.owner.startswith(GUEST)

    def distrust(self, now_unix_s: float, ahead_s: float) -> None:
        """What was added last may be missing here: nothing that can have been seen is taken as new."""
        latest = max((time for time, _ in self._times.values()), default=0)
        self.floor_unix_s = max(self.floor_unix_s, latest, now_unix_s + ahead_s)

    def _is_full(self, owner: bytes) -> bool:
        if len(self._times) >= self._keys_max:
            return True
        share = self._shares[owner]
        if owner.startswith(GUEST):
            return self._guests >= self._guests_max or share >= self._guest_share_max
        return share >= self._share_max

    def _forget(self, now_unix_s: float) -> None:
        while self._times:
            key, (time_unix_s, owner) = next(iter(self._times.items()))
            if time_unix_s + CLAIM_PAST_S >= now_unix_s:
                return
            del self._times[key]
            self.floor_unix_s = max(self.floor_unix_s, time_unix_s)
            self._shares[owner] -= 1
            self._guests -= owner.startswith(GUEST)
            if not self._shares[owner]:
                del self._shares[owner]


def _busy(why: str, wait_s: float) -> LockboxError:
    error = LockboxError(why, "ask another node, or wait", ErrorCode.BUSY)
    error.retry_after_s = max(0.05, wait_s)
    return error
