"""Where a scrub stands, and how long it rests after each step.

A pass walks all parts in the order of their addresses, once in 25 to 35 days, drawn anew each time so that no two
holders of a stripe read in step. It is spread over that time and never faster than needed; one that an operator asks
for goes at once, up to a larger share of the disk's time. Addresses are hashes, so that the cursor tells the progress.
Time is the uptime of the store, as for trash: no wall clock can hurry or stall a pass. The state is one small value,
kept after every 30 s or 1000 parts. Source: DESIGN, Storage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from lockbox_node.errors import ConfigError

if TYPE_CHECKING:
    from random import Random

DAY_S = 24 * 3600.0
CURSOR_BYTES = 8  # that tell the progress: addresses are uniform
CURSORS = 1 << 8 * CURSOR_BYTES


@dataclass(frozen=True, slots=True)
class ScrubParams:
    """Pace and bounds of the scrub."""

    cycle_min_s: float = 25 * DAY_S
    cycle_max_s: float = 35 * DAY_S
    share: float = 0.1  # of the disk's time, at most
    share_now: float = 0.2  # the same while an operator waits for it
    step_parts: int = 4  # of one step, which ends sooner when a put or a get waits
    note_every_s: float = 30.0  # a crash repeats at most so much
    note_every_parts: int = 1000
    busy_wait_s: float = 2.0  # the store has no room for the step

    def __post_init__(self) -> None:
        if not 0 < self.cycle_min_s <= self.cycle_max_s < float("inf"):
            raise ConfigError("scrub.cycle_min_s is outside zero to scrub.cycle_max_s", "25 and 35 days are usual")
        if not (0 < self.share <= 1 and 0 < self.share_now <= 1):
            raise ConfigError("scrub.share and share_now must be above 0 and at most 1", "0.1 and 0.2 are usual")
        if self.step_parts < 1 or self.note_every_parts < 1:
            raise ConfigError("scrub.step_parts and note_every_parts must be at least 1")
        if not (self.note_every_s > 0 and self.busy_wait_s > 0):
            raise ConfigError("scrub.note_every_s and busy_wait_s must be above zero")

    def cycle_s(self, rng: Random) -> float:
        """How long the next pass may take."""
        return self.cycle_min_s + rng.random() * (self.cycle_max_s - self.cycle_min_s)


@dataclass(frozen=True, slots=True)
class Finished:
    """A pass that came to its end."""

    number: int
    finished_unix_s: float
    parts: int
    checked_bytes: int
    corrupt: int


@dataclass(frozen=True, slots=True)
class ScrubState:
    """One pass, under way or over; times are the store's uptime."""

    number: int
    began_s: float
    cycle_s: float  # from one beginning to the next
    running: bool = True  # else it is over, and the next one waits for the cycle to end
    at_once: bool = False  # an operator asked for it
    paused: bool = False
    cursor: bytes = b""  # address || descriptor hash of the last part that was checked
    parts: int = 0
    checked_bytes: int = 0
    corrupt: int = 0
    last: Finished | None = None

    @property
    def progress(self) -> float:
        """Share of the parts that this pass has seen, 0 to 1."""
        if not self.running:
            return 1.0
        return int.from_bytes(self.cursor[:CURSOR_BYTES].ljust(CURSOR_BYTES, b"\0"), "big") / CURSORS

    def due_in_s(self, uptime_s: float) -> float:
        """Until the next pass begins by itself; only of one that is over."""
        return max(0.0, self.began_s + self.cycle_s - uptime_s)

    def begun(self, uptime_s: float, cycle_s: float, *, at_once: bool = False) -> ScrubState:
        """The next pass, from the start. One that is asked for lifts a pause."""
        return ScrubState(
            self.number + 1, uptime_s, cycle_s, at_once=at_once, paused=self.paused and not at_once, last=self.last
        )

    def stepped(self, cursor: bytes, parts: int, checked_bytes: int, corrupt: int) -> ScrubState:
        """After one step."""
        return replace(
            self,
            cursor=cursor,
            parts=self.parts + parts,
            checked_bytes=self.checked_bytes + checked_bytes,
            corrupt=self.corrupt + corrupt,
        )

    def finished(self, now_unix_s: float) -> ScrubState:
        """After the last step."""
        last = Finished(self.number, now_unix_s, self.parts, self.checked_bytes, self.corrupt)
        return replace(self, running=False, at_once=False, cursor=b"", last=last)

    def rest_s(self, step_s: float, uptime_s: float, params: ScrubParams) -> float:
        """How long to leave the disk alone after a step that took `step_s`."""
        share = params.share_now if self.at_once else params.share
        throttle_s = step_s * (1 - share) / share
        if self.at_once:
            return throttle_s
        ahead_s = self.progress * self.cycle_s - (uptime_s - self.began_s)
        return max(throttle_s, ahead_s)

    def encoded(self) -> bytes:
        """To be kept."""
        return msgspec.json.encode(self)


def decoded(kept: bytes, uptime_s: float) -> ScrubState | None:
    """The state that `encoded` made, or None when it is not one. A beginning in the future is now."""
    try:
        state = msgspec.json.decode(kept, type=ScrubState)
    except msgspec.MsgspecError:
        return None
    return replace(state, began_s=min(state.began_s, uptime_s))
