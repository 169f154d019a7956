"""What a seed decides, and what is written down of a run.

Each part of a simulation draws from a generator of its own, made from the seed and the part's name, so that one more
draw here does not move the dice there. The trace is a running SHA-256 over every event with its virtual time, and the
last of them in words: two runs with one hash did the same. Wall clocks drift and jump; trio's clock does neither.
"""

from __future__ import annotations

import hashlib
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, TypeVar

import structlog
import trio

from simulations.identities import NOW_UNIX_S
from simulations.overhearing import Overheard

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from typing import Any

T = TypeVar("T")
Field = str | int | float

RECENT = 2000  # events kept in words
INFO = 20
DEFECTS_MAX = 20

who: ContextVar[str] = ContextVar("who", default="-")
"""Whose task this is: set at the root of each node's and client's tasks."""


class Trace:
    """Everything that happened, as one hash, and the last RECENT events."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.recent: deque[tuple[Field, ...]] = deque(maxlen=RECENT)
        self.events = 0
        self.listeners: list[Callable[[tuple[Field, ...]], None]] = []  # who looks on; none may draw, wait or add

    def add(self, kind: str, *fields: Field) -> None:
        """One event, now."""
        event = (trio.current_time(), kind, *fields)
        self._hash.update(repr(event).encode())
        self.recent.append(event)
        self.events += 1
        for listener in self.listeners:
            listener(event)

    @property
    def hash(self) -> str:
        """Of all events until now, 64 hex digits."""
        return self._hash.hexdigest()

    def last(self, count: int, without: frozenset[str] = frozenset()) -> list[str]:
        """The last events in words, oldest first, without some kinds."""
        chosen = [event for event in self.recent if event[1] not in without]
        return [f"{event[0]:12.6f} {' '.join(map(str, event[1:]))}" for event in chosen[-count:]]


@dataclass
class World:
    """The seed and what came of it. `defects`: what the product raised where a seed may not make it raise."""

    seed: int
    trace: Trace = field(default_factory=Trace)
    defects: list[str] = field(default_factory=list)
    overheard: Overheard = field(default_factory=Overheard)

    def rng(self, name: str) -> Random:
        """The generator of this seed for `name`, from its beginning."""
        return Random(f"{self.seed} {name}")

    def entropy(self, name: str) -> SeededEntropy:
        """Key bytes for `name`."""
        return SeededEntropy(f"{self.seed} entropy {name}")

    def listen(self) -> None:
        """Every log line of the product becomes an event; one with a traceback is a defect."""
        structlog.configure(
            processors=[structlog.processors.format_exc_info, self._heard],
            wrapper_class=structlog.make_filtering_bound_logger(INFO),
            cache_logger_on_first_use=False,
        )

    def _heard(self, _logger: object, level: str, event: MutableMapping[str, Any]) -> str:
        self.overheard.hear(event)
        words = [f"{key}={value}" for key, value in event.items() if key not in ("event", "exception")]
        self.trace.add(level, who.get(), event["event"], *words)
        if "exception" in event and len(self.defects) < DEFECTS_MAX:
            self.defects.append(f"at {trio.current_time():.6f} {who.get()} {event['event']}\n{event['exception']}")
        raise structlog.DropEvent


class DriftingClock:
    """A WallClock: runs at its own rate, and jumps when it is told to."""

    def __init__(self, ahead_s: float = 0.0, rate: float = 1.0) -> None:
        self._at_s, self._shown_unix_s, self._rate = 0.0, NOW_UNIX_S + ahead_s, rate

    def now_unix_s(self) -> float:
        """See the port."""
        return self._shown_unix_s + (trio.current_time() - self._at_s) * self._rate

    def drift(self, rate: float) -> None:
        """From now on it shows `rate` seconds a second."""
        self._at_s, self._shown_unix_s = trio.current_time(), self.now_unix_s()
        self._rate = rate

    def jump(self, seconds: float) -> None:
        """It is set forward, or back."""
        self._shown_unix_s += seconds


class SeededEntropy:
    """Entropy that is the same in every run."""

    def __init__(self, seed: int | str) -> None:
        self._rng = Random(seed)

    def fill(self, buffer: bytearray | memoryview) -> None:
        """See the port."""
        buffer[:] = self._rng.randbytes(len(buffer))


class InlineWorkers:
    """Workers without threads: a thread takes real time, and virtual time jumps over it."""

    async def run(self, fn: Callable[[], T]) -> T:
        """See the port."""
        await trio.lowlevel.checkpoint()
        return fn()
