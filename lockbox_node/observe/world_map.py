"""A map of the world with a circle for each region: how much it holds, and what its loss would leave.

One SVG to be put into a page, with nothing loaded from elsewhere: equirectangular, 10 units a degree. Every label says
in words what its colour says, and stands free of the other labels and of the circles: the nearest free place is
taken, and a line leads to it. Colours come from the classes of the page (`lost`, `thin`, `low`, `good`, `none`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LEFT, TOP, WIDTH, HEIGHT = -1800, -850, 3600, 1440  # without Antarctica
FONT = 46
CHARACTER = 0.56 * FONT  # the usual width of a letter in a sans-serif face
LINE = 1.15 * FONT
RADIUS_MIN, RADIUS_MAX = 16, 46
GAP = 8
TURNS = 16  # directions in which a place for a label is looked for,
RINGS = 12  # and distances
RING = 34


@dataclass(frozen=True, slots=True)
class Spot:
    """One region on the map. `kind` is its class, `label` the words beside it, `title` the whole sentence."""

    latitude: float
    longitude: float
    weight: float  # 0 to 1: the share of the largest
    kind: str
    label: str
    title: str

    @property
    def x(self) -> float:
        """To the right."""
        return self.longitude * 10

    @property
    def y(self) -> float:
        """Downwards."""
        return -self.latitude * 10

    @property
    def radius(self) -> float:
        """The area grows with the weight."""
        return RADIUS_MIN + (RADIUS_MAX - RADIUS_MIN) * math.sqrt(self.weight)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle by its corners."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether they overlap."""
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)

    def inside(self, other: Box) -> bool:
        """Whether it lies wholly in the other."""
        across = other.left <= self.left and self.right <= other.right
        return across and other.top <= self.top and self.bottom <= other.bottom


FRAME = Box(LEFT, TOP, LEFT + WIDTH, TOP + HEIGHT)


def land() -> str:
    """The coast lines as the `d` of an SVG path."""
    text = files("lockbox_node.observe").joinpath("land.txt").read_text(encoding="ascii")
    return "".join(line for line in text.splitlines() if not line.startswith("#"))


def world_map(spots: Sequence[Spot], title: str) -> str:
    """The SVG element; spots that weigh more get their labels first."""
    ordered = sorted(spots, key=lambda spot: (-spot.weight, spot.label))
    boxes = label_boxes(ordered)
    parts = [
        f'<svg viewBox="{LEFT} {TOP} {WIDTH} {HEIGHT}" role="img" aria-labelledby="map-title" class="map">',
        f'<title id="map-title">{escape(title)}</title>',
        f'<path class="land" d="{land()}"/>',
    ]
    for spot, box in zip(ordered, boxes, strict=True):
        parts.append(_line(spot, box))
    for spot, box in zip(ordered, boxes, strict=True):
        parts.append(
            f'<g><title>{escape(spot.title)}</title><circle class="spot {escape(spot.kind)}" cx="{spot.x:.0f}" '
            f'cy="{spot.y:.0f}" r="{spot.radius:.0f}"/><text x="{box.left + GAP:.0f}" '
            f'y="{box.bottom - 0.3 * FONT:.0f}" font-size="{FONT}">{escape(spot.label)}</text></g>'
        )
    return "".join([*parts, "</svg>"])


def label_boxes(spots: Sequence[Spot]) -> list[Box]:
    """A place for each label: free of circles, of the labels before it, and inside the map, if there is one."""
    circles = [Box(s.x - s.radius, s.y - s.radius, s.x + s.radius, s.y + s.radius) for s in spots]
    placed: list[Box] = []
    for spot in spots:
        places = [box for box in _places(spot) if box.inside(FRAME)]
        free = (box for box in places if not any(box.meets(other) for other in (*circles, *placed)))
        placed.append(next(free, places[0] if places else next(_places(spot))))
    return placed


def _places(spot: Spot) -> Iterator[Box]:
    """Boxes around the spot, the nearest first, the right side before the left."""
    width, height = CHARACTER * len(spot.label) + 2 * GAP, LINE
    for ring in range(RINGS):
        for turn in range(TURNS):
            angle = (turn + 1) // 2 * (-1) ** turn * 2 * math.pi / TURNS
            far = spot.radius + 4 + ring * RING
            x, y = spot.x + far * math.cos(angle), spot.y + far * math.sin(angle)
            left = x - width * (1 - math.cos(angle)) / 2
            top = y - height * (1 - math.sin(angle)) / 2
            yield Box(left, top, left + width, top + height)


def _line(spot: Spot, box: Box) -> str:
    """From the circle to a label that stands away from it."""
    x = min(max(spot.x, box.left), box.right)
    y = min(max(spot.y, box.top), box.bottom)
    if math.hypot(x - spot.x, y - spot.y) <= spot.radius + RING:
        return ""
    return f'<line class="lead" x1="{spot.x:.0f}" y1="{spot.y:.0f}" x2="{x:.0f}" y2="{y:.0f}"/>'
