"""How often we asked for leave to fetch an asset lately: what a verifier that says "too often" may know of us.

A verifier may lie, and then the next one is asked. Who has asked as often as verifiers allow believes it, so that many
unlocks at once in one process escape no limit. Bounded; without room we count as having asked too often.
"""

from __future__ import annotations

from lockbox_node.core.admission import SlidingLog
from lockbox_node.core.paces import ATTEMPTS_MAX, WINDOW_S

ADDRESSES_MAX = 65_536


class Restraint:
    """The memory of one client. `now` never falls."""

    def __init__(self, addresses_max: int = ADDRESSES_MAX) -> None:
        self._asked = SlidingLog(ATTEMPTS_MAX, WINDOW_S, addresses_max, addresses_max)

    def is_over(self, address: bytes, now: float) -> bool:
        """Count that leave is asked now; whether that is oftener than each verifier grants."""
        return self._asked.take(address, b"", now) > 0
