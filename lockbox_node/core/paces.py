"""How often a holder serves one requester of one address: shards for grants, proofs for claims, proofs for siblings.

Verifiers bound how often an honest client asks; who has every grant of every candidate is bounded here. A quorum of q
of V verifiers, each with its own limit, lets floor(5V/q) unlocks through in a window, so that is what a holder serves.
A proof of a small part is the part, so proofs to who shows the asset key's claim are bound too, wide enough for an
owner who looks again every two seconds. Nothing but admitted requests is remembered; guests have their
own room. All times are passed in.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from lockbox_node.core.admission import SlidingLog
from lockbox_node.core.spent import KEYS_MAX, SHARE_MAX
from lockbox_node.core.tiers import TIERS, Tier

if TYPE_CHECKING:
    from lockbox_node.core.spent import Use

WINDOW_S = 60.0
ATTEMPTS_MAX = 5  # of one (requester, address) that a verifier grants within a window
PROOFS_MAX = 30  # that a holder gives to the claim of an asset key
SIBLING_PROOFS_MAX = 60  # that it gives to a node which its table names
PROVED_MAX = 2**15  # (requester, address) of which proofs are remembered; each is of a part that is held here
PROVED_SHARE_MAX = 2**13  # of one requester


def unlocks_max(tier: Tier) -> int:
    """Unlocks of one (requester, asset) that a network of honest verifiers lets through within a window."""
    return ATTEMPTS_MAX * tier.verifiers // tier.quorum


class Paces:
    """What one holder served within the last window. `now` never falls; each answer is 0.0 or the seconds to wait."""

    def __init__(self) -> None:
        bounds = sorted({unlocks_max(tier) for tier in TIERS})
        self._shards = {most: SlidingLog(most, WINDOW_S, KEYS_MAX, SHARE_MAX) for most in bounds}
        self._owners = SlidingLog(PROOFS_MAX, WINDOW_S, PROVED_MAX, PROVED_SHARE_MAX)
        self._guests = SlidingLog(PROOFS_MAX, WINDOW_S, PROVED_MAX, PROVED_SHARE_MAX)
        self._siblings = SlidingLog(SIBLING_PROOFS_MAX, WINDOW_S, PROVED_MAX, PROVED_SHARE_MAX)

    def shards(self, use: Use, tier: Tier, now: float) -> float:
        """One service of shards."""
        return self._shards[unlocks_max(tier)].take(use.pair, use.owner, now)

    def recall(self, use: Use, now: float) -> None:
        """A service of an earlier life, whatever its tier was."""
        for log in self._shards.values():
            log.take(use.pair, use.owner, now)

    def proof(self, address: bytes, rate_key: bytes, now: float, *, claimed: bool, guest: bool) -> float:
        """One proof of a part that is here: for the claim of the asset key, or for a node that needs none."""
        log = self._siblings if not claimed else self._guests if guest else self._owners
        pair = hashlib.sha256(address + rate_key).digest()[:16]
        return log.take(pair, hashlib.sha256(rate_key).digest()[:8], now)
