"""A run as a picture: the least margin, repairs done, bytes a second over virtual time, and what befell the network.

Looked at between two turns of trio's loop, by an instrument: a task of its own would move the dice of the scheduler,
so that a run with a picture would not be the run without. The margin is that of what people keep, by what running
nodes have on disk: a part that rots counts as lost from that moment, whether anybody has noticed or not.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

import trio

from protocol.ids import Address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulations.cluster import Cluster
    from simulations.people import Kept
    from simulations.running import Play
    from simulations.world import Field

GOES, COMES, OTHER = "#c0392b", "#27853d", "#b7791f"
COLOURS = {"crash": GOES, "stop": GOES, "burns": GOES, "start": COMES, "heal": COMES, "room": COMES, "partition": OTHER}
COLOURS |= dict.fromkeys(("rot", "full", "jumps", "slow", "slow disk", "other disk"), OTHER)
WIDTH, PANEL, LEFT, TOP, GAP, RIGHT = 960, 150, 90, 64, 44, 24
TICKS_MAX = 8


@dataclass
class History:
    """Second by second from when the scenario began, each list as long as `at`; `marks` = (second, kind)."""

    at: list[float] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)  # nan while nobody keeps anything
    repairs: list[float] = field(default_factory=list)
    traffic: list[float] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)


class _Looking(trio.abc.Instrument):
    def __init__(self, cluster: Cluster, history: History) -> None:
        self._cluster, self._history = cluster, history
        self._next_at = trio.current_time()
        self._bytes = 0
        self._repairs: Counter[int] = Counter()  # by life

    def heard(self, event: tuple[Field, ...]) -> None:
        kind = str(event[1])
        if kind == "bytes":
            self._bytes += int(event[4])
        elif kind in COLOURS:
            self._history.marks.append((float(event[0]), kind))

    def after_io_wait(self, timeout: float) -> None:
        """See trio."""
        now = trio.current_time()
        if now >= self._next_at:
            self._look(now)
            self._next_at = math.floor(now) + 1.0

    def _look(self, now: float) -> None:
        history, cluster = self._history, self._cluster
        owed = [kept for person in cluster.people for kept in person.kept]
        least = min((kept.tier.margin(live_shards(cluster, kept)) for kept in owed), default=math.nan)
        for host in self._cluster.living():
            if host.life is not None:
                self._repairs[id(host.life)] = host.life.node.healing.repairs_done
        span_s = now - history.at[-1] if history.at else 1.0
        history.at.append(now)
        history.margins.append(least)
        history.repairs.append(sum(self._repairs.values()))
        history.traffic.append(self._bytes / span_s)
        self._bytes = 0


def live_shards(cluster: Cluster, asset: Kept) -> int:
    """How many shards of an asset's root stripe stand sound on nodes that run."""
    found = {
        kept.part.index
        for host in cluster.living()
        for kept in host.disk.parts.standing(Address(asset.asset.address))
        if kept.part.descriptor_hash == asset.asset.descriptor_hash
        and not (kept.corrupt or kept.harmed or kept.trashed_at_s >= 0)
    }
    return len(found)


def watched(play: Play, history: History) -> Play:
    """The same scenario, which fills `history` as it plays."""

    async def watched_play(cluster: Cluster, seconds: float) -> None:
        looking = _Looking(cluster, history)
        cluster.world.trace.listeners.append(looking.heard)
        trio.lowlevel.add_instrument(looking)
        try:
            await play(cluster, seconds)
        finally:
            trio.lowlevel.remove_instrument(looking)
            cluster.world.trace.listeners.remove(looking.heard)

    return watched_play


def svg(history: History, title: str) -> str:
    """The picture. A history without a second in it makes empty panels."""
    begin, end = (history.at[0], history.at[-1]) if history.at else (0.0, 1.0)
    end = max(end, begin + 1.0)
    panels = [
        ("least margin: live shards - k", history.margins, "#2255aa"),
        ("repairs done", history.repairs, "#7a3fa0"),
        ("traffic, bytes a second", history.traffic, "#3d6b6b"),
    ]
    height = TOP + len(panels) * (PANEL + GAP)
    said = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>',
        *_legend(history),
    ]
    for number, (name, values, colour) in enumerate(panels):
        top = TOP + number * (PANEL + GAP)
        said += [
            f'<line x1="{_x(at, begin, end):.1f}" x2="{_x(at, begin, end):.1f}" y1="{top}" y2="{top + PANEL}" '
            f'stroke="{COLOURS[kind]}" opacity="0.35"/>'
            for at, kind in history.marks
            if begin <= at <= end
        ]
        said += _panel(name, history.at, values, colour, top, (begin, end))
    return "\n".join([*said, "</svg>\n"])


def _legend(history: History) -> list[str]:
    counts, said, x = Counter(kind for _, kind in history.marks), [], LEFT
    for kind, count in counts.items():
        words = f"{kind} ({count})"
        said.append(f'<text x="{x}" y="40" fill="{COLOURS[kind]}">{escape(words)}</text>')
        x += 8 * len(words) + 12
    return said


def _x(at: float, begin: float, end: float) -> float:
    return LEFT + (at - begin) / (end - begin) * (WIDTH - LEFT - RIGHT)


def _panel(
    name: str, at: Sequence[float], values: Sequence[float], colour: str, top: int, span: tuple[float, float]
) -> list[str]:
    known = [value for value in values if not math.isnan(value)]
    low, high = min([0.0, *known]), max([1.0, *known])
    begin, end = span

    def y(value: float) -> float:
        return top + PANEL - (value - low) / (high - low) * PANEL

    said = [
        f'<text x="{LEFT}" y="{top - 6}" fill="{colour}">{name}</text>',
        f'<rect x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" height="{PANEL}" fill="none" stroke="#999"/>',
    ]
    if low < 0:
        said.insert(
            0,
            f'<rect x="{LEFT}" y="{y(0):.1f}" width="{WIDTH - LEFT - RIGHT}" height="{y(low) - y(0):.1f}" '
            f'fill="{GOES}" opacity="0.12"/>',
        )
    for value in dict.fromkeys((low, 0.0, high)):
        said.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:,.0f}</text>')
        said.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ccc"/>')
    steps, before = [], math.nan
    for moment, value in zip(at, values, strict=True):
        if not math.isnan(value):
            place = _x(moment, begin, end)
            steps.append(f"M{place:.1f} {y(value):.1f}" if math.isnan(before) else f"H{place:.1f}V{y(value):.1f}")
        before = value
    said.append(f'<path d="{"".join(steps)}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    for moment in _round_moments(begin, end):
        place = _x(moment, begin, end)
        said.append(f'<text x="{place:.1f}" y="{top + PANEL + 15}" text-anchor="middle">{moment:g} s</text>')
    return said


def _round_moments(begin: float, end: float) -> list[float]:
    """Up to TICKS_MAX multiples of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((end - begin) / TICKS_MAX))
    step = next(power * times for times in (1, 2, 5, 10, 20) if (end - begin) / (power * times) < TICKS_MAX)
    return [step * number for number in range(math.ceil(begin / step), math.floor(end / step) + 1)]
