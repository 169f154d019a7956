"""How often holders audit one another, within which budgets, and where a walk over our own parts stands.

The walk goes round all parts once in a period, in the order of their addresses, which are hashes: the time of day of a
part follows from its address, and the load is even. It begins anywhere and goes on where it stands. What could not be
done in time is done as fast as the budgets allow; a whole round of delay is forgotten. Source: DESIGN, Verify / audit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lockbox_node.errors import ConfigError

DAY_S = 86_400.0
PERIOD_MIN_S = 1.0
KEY_BYTES = 64  # address || descriptor hash
END = b"\xff" * KEY_BYTES
_PLACE_BYTES = 8  # of a key, that tell its place on the round
_PLACES = 1 << 8 * _PLACE_BYTES


@dataclass(frozen=True, slots=True)
class AuditParams:
    """Budgets of one node, as judge; as ward it is asked as much, on average."""

    enabled: bool = True
    period_s: float = DAY_S  # in which each of our parts is proven to a sibling, and judges stay the same
    first_s: float = 60.0  # a node that has just started does not know everybody yet
    audits_per_s: float = 5.0
    bytes_per_s: float = 1e6  # of proofs
    in_flight_max: int = 16
    retry_s: float = 20.0  # until a ward that showed nothing is asked again; doubled each time,
    again_s: float = 300.0  # up to this
    silent_max: int = 3  # so many times silent, and it counts as a loss
    findings_max: int = 4096  # failed audits that are remembered at once; the next round finds the others
    half_life_s: float = 30 * DAY_S  # of what a node did
    faults_max: float = 2.0  # from here on a node is given nothing new

    def __post_init__(self) -> None:
        if not PERIOD_MIN_S <= self.period_s < math.inf:
            raise ConfigError(f"audit.period_s must be at least {PERIOD_MIN_S:.0f}", "86400 is a day")
        for name in ("audits_per_s", "bytes_per_s", "retry_s", "half_life_s", "faults_max"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"audit.{name} must be above 0")
        for name in ("in_flight_max", "silent_max", "findings_max"):
            if getattr(self, name) < 1:
                raise ConfigError(f"audit.{name} must be at least 1")
        if not self.retry_s <= self.again_s < math.inf:
            raise ConfigError("audit.again_s must be at least audit.retry_s")
        if not 0 <= self.first_s < math.inf:
            raise ConfigError("audit.first_s must not be negative")

    def rest_s(self, proof_bytes: int) -> float:
        """How long nothing else is asked after a question for so many bytes."""
        return max(1 / self.audits_per_s, proof_bytes / self.bytes_per_s)

    def retry_after_s(self, times: int) -> float:
        """Until the ward is asked again that has failed `times` times (at least 1) in a row."""
        return float(min(self.again_s, self.retry_s * 2 ** min(times - 1, 30)))


class Walk:
    """A round over all keys, without end. `cursor`: the last key that was reached."""

    def __init__(self, start: float, now: float, period_s: float) -> None:
        """`start`, 0 to 1, says where on the round it begins."""
        self._began, self._base, self._period_s = now, start, period_s
        self._round = 0
        self.cursor = b"" if start <= 0 else _key_at(start)

    def bound(self, now: float) -> bytes:
        """The last key that is due by now."""
        place = self._place(now) - self._round
        return END if place >= 1 else _key_at(place)

    def turn(self, now: float) -> None:
        """Everything up to the end was reached: begin the next round, if its time has come."""
        if self._place(now) < self._round + 1:
            return
        self._round += 1
        self.cursor = b""
        late = math.floor(self._place(now)) - self._round
        self._base -= max(0, late)

    def due_in_s(self, key: bytes | None, now: float) -> float:
        """How long until this key is due; None = the end of the round."""
        place = 1.0 if key is None else int.from_bytes(key[:_PLACE_BYTES], "big") / _PLACES
        return max(0.0, (self._round + place - self._place(now)) * self._period_s)

    def retime(self, period_s: float, now: float) -> None:
        """Go on from here at another pace."""
        self._base, self._began, self._period_s = self._place(now), now, period_s

    def _place(self, now: float) -> float:
        return self._base + (now - self._began) / self._period_s


def _key_at(place: float) -> bytes:
    number = min(_PLACES - 1, int(place * _PLACES))
    return number.to_bytes(_PLACE_BYTES, "big").ljust(KEY_BYTES, b"\xff")
