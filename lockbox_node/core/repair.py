"""What healing decides: which stripes are short, who repairs them, when, in which order, and when to keep still.

Every live holder knows the table, so all rank themselves alike: the nearest live holder acts first, the next ones only
while the stripe is still short later: hold-off x (1 + rank / 2). Least margin first, then the higher tier. A view that
lost many members at once is no ground to repair on (`Guard`): a minority must not copy what the majority still has.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from lockbox_node.errors import ConfigError
from protocol.ids import NodeId, distance
from protocol.messages import ENTRIES_MAX, NO_INDEX, SEQUENCE_MAX, HolderEntry

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Mapping, Sequence

    from lockbox_node.core.tiers import Tier


URGENT_S = 15.0  # hold-off of what bears no further loss: longer than the deaths of one event lie apart


class Stripe(Protocol):
    """What repair needs to know of a held stripe: a StripeSummary."""

    @property
    def address(self) -> bytes:
        """Where it stands."""
        ...

    @property
    def index(self) -> int:
        """The shard index held here."""
        ...

    @property
    def corrupt(self) -> bool:
        """Whether our own part is known to be damaged."""
        ...

    @property
    def entries(self) -> Sequence[HolderEntry]:
        """The holder table."""
        ...


@dataclass(frozen=True, slots=True)
class RepairParams:
    """Budgets of healing; `hold_off_s` and `sweep_s` override the tier's own (None = the tier's)."""

    enabled: bool = True
    hold_off_s: float | None = None
    sweep_s: float | None = None
    in_flight_max: int = 4
    bytes_per_s: float = 50e6
    request_timeout_s: float = 10.0
    learn_timeout_s: float = 2.0  # for all siblings together to say what they know
    short_max: int = 10_000  # short stripes remembered at once; the next sweep finds the others
    lost_max: int = 10_000  # of our own parts that are gone, remembered at once; siblings tell of the others again
    lost_hold_s: float = 5.0  # what a sibling believes to be here may still be on its way
    holders_tried_max: int = 3  # new holders tried for one shard index
    return_hold_s: float = 24 * 3600.0  # a copy that is one too many, of a holder that was away, stays for so long

    def __post_init__(self) -> None:
        for name in ("in_flight_max", "short_max", "lost_max", "holders_tried_max"):
            if getattr(self, name) < 1:
                raise ConfigError(f"repair.{name} must be at least 1")
        for name in ("bytes_per_s", "request_timeout_s", "learn_timeout_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"repair.{name} must be above 0")
        if not 0 <= self.return_hold_s < math.inf:
            raise ConfigError("repair.return_hold_s must not be negative")
        if not 0 <= self.lost_hold_s < math.inf:
            raise ConfigError("repair.lost_hold_s must not be negative")
        if self.hold_off_s is not None and not 0 <= self.hold_off_s < math.inf:
            raise ConfigError("repair.hold_off_s must not be negative")
        if self.sweep_s is not None and not 0 < self.sweep_s < math.inf:
            raise ConfigError("repair.sweep_s must be above 0")

    def hold_off(self, tier: Tier) -> float:
        """Seconds that a stripe of this tier may be short before its nearest live holder acts."""
        return tier.hold_off_s if self.hold_off_s is None else self.hold_off_s

    def sweep(self, tier: Tier) -> float:
        """Seconds between two looks at all stripes of this tier."""
        return tier.sweep_s if self.sweep_s is None else self.sweep_s


class Cause(Enum):
    """Why a stripe is repaired."""

    LOSS = "loss"  # a holder died
    DRAIN = "drain"  # a holder is going, and serves until then
    DAMAGE = "damage"  # our own part is damaged or gone
    OUT_OF_PLACEMENT = "out_of_placement"  # every index is there, but not where the rules allow it


@dataclass(frozen=True, slots=True)
class Health:
    """One stripe as its holder `own` sees it now.

    `live` maps shard index to its live holders, nearest to the address first; without us when our part is corrupt.
    `margin` counts the shards that may still be lost; `rank` is our place among the live holders, 0 the nearest.
    `going` are holders that still serve but say that they will not for long: no margin, a source of last resort.
    Of `displaced` indices, missing too, the live holders are among the going, yet count for the margin; `surplus`: our
    own copy is out of place and its index stands elsewhere (both by `core.displaced`).
    """

    live: Mapping[int, tuple[NodeId, ...]]
    missing: tuple[int, ...]
    margin: int
    rank: int
    going: Mapping[int, tuple[NodeId, ...]] = field(default_factory=dict)
    displaced: tuple[int, ...] = ()
    surplus: bool = False

    @property
    def short(self) -> bool:
        """Whether some index has no live holder."""
        return bool(self.missing)

    @property
    def cause(self) -> Cause:
        """Why there is something to do, the gravest reason."""
        if self.surplus or (self.displaced and len(self.missing) == len(self.displaced)):
            return Cause.OUT_OF_PLACEMENT
        return Cause.DRAIN if self.missing and all(index in self.going for index in self.missing) else Cause.LOSS

    def holders(self) -> list[NodeId]:
        """All live holders."""
        return [node for nodes in self.live.values() for node in nodes]

    def sources(self) -> list[tuple[int, NodeId]]:
        """(index, node) of all who may serve a shard, those that are going last."""
        return [(index, node) for held in (self.live, self.going) for index, nodes in held.items() for node in nodes]


def health(
    stripe: Stripe, tier: Tier, members: Container[NodeId], own: NodeId, failing: Container[NodeId] = frozenset()
) -> Health:
    """Judge one stripe by its holder table; `members` are the live ones, `own` counts as live.

    A node keeps one index of a stripe: of several lines about it the highest sequence counts. `failing` are members
    that drain, leave or lost their disk.
    """
    index_of = current_indices(possible(stripe.entries, tier.n))
    index_of[own] = stripe.index
    nearest = sorted(
        (node for node in index_of if node == own or node in members), key=lambda node: distance(node, stripe.address)
    )
    live: dict[int, tuple[NodeId, ...]] = {}
    going: dict[int, tuple[NodeId, ...]] = {}
    for node in nearest:
        index = index_of[node]
        if index < tier.n and not (node == own and stripe.corrupt):
            held = going if node != own and node in failing else live
            held[index] = (*held.get(index, ()), node)
    missing = tuple(index for index in range(tier.n) if index not in live)
    staying = [node for node in nearest if node == own or node not in failing]
    return Health(live, missing, len(live) - tier.k, staying.index(own), going)


def possible(entries: Iterable[HolderEntry], n: int) -> list[HolderEntry]:
    """The lines that can be true of a stripe of `n` shards: any other would only overrule what was said of its node."""
    return [entry for entry in entries if entry.index < n or entry.index == NO_INDEX]


def current_indices(entries: Iterable[HolderEntry]) -> dict[NodeId, int]:
    """Node -> the shard index that its newest line names.

    Of equally new ones NO_INDEX counts: only the node itself can have said it, all else may be a stranger's word.
    """
    newest: dict[NodeId, HolderEntry] = {}
    for entry in entries:
        node = NodeId(entry.node)
        if node not in newest or _age(entry) > _age(newest[node]):
            newest[node] = entry
    return {node: entry.index for node, entry in newest.items()}


def _age(entry: HolderEntry) -> tuple[int, bool]:
    return entry.sequence, entry.index == NO_INDEX


def is_named(entries: Iterable[HolderEntry], node: bytes) -> bool:
    """Whether a table says that the node holds an index now."""
    newest = max((entry for entry in entries if entry.node == node), key=_age, default=None)
    return newest is not None and newest.index != NO_INDEX


def last_index(entries: Iterable[HolderEntry], node: bytes) -> int | None:
    """The index that the node held last by a table, whatever it said since."""
    lines = [entry for entry in entries if entry.node == node and entry.index != NO_INDEX]
    return max(lines, key=lambda entry: entry.sequence).index if lines else None


def siblings_of(entries: Iterable[HolderEntry], own: NodeId) -> list[NodeId]:
    """The other nodes that a table says hold an index now."""
    return [node for node, index in current_indices(entries).items() if index != NO_INDEX and node != own]


def line_of(entries: Iterable[HolderEntry], node: bytes, index: int) -> HolderEntry:
    """A line that overrules all that the table says of the node."""
    sequence = min(SEQUENCE_MAX, 1 + max((entry.sequence for entry in entries), default=0))
    return HolderEntry(index, node, sequence)


def tellable(entries: Sequence[HolderEntry]) -> list[HolderEntry]:
    """The lines of a table that others take from us: none of nodes that say themselves that they hold nothing now.

    That they said so, now or earlier, nobody believes but from themselves; their older lines alone would be wrong.
    """
    index_of = current_indices(entries)
    return [entry for entry in entries if NO_INDEX not in (entry.index, index_of[NodeId(entry.node)])]


def believable(entries: Iterable[HolderEntry], said_by: bytes) -> list[HolderEntry]:
    """The lines that are taken from a node: none by which it says of others that they lost what they held."""
    return [entry for entry in entries if entry.index != NO_INDEX or entry.node == said_by]


def due_at(short_since: float, rank: int, hold_off_s: float, margin: int) -> float:
    """When the holder of `rank` acts on a stripe that is short since then: soon, when no shard more may be lost."""
    return short_since + (min(hold_off_s, URGENT_S) if margin <= 0 else hold_off_s) * (1 + rank / 2)


def urgency(stripe: Stripe, tier: Tier, seen: Health) -> tuple[int, int, bytes]:
    """Sort key: least margin first, Elite before Basic, then the address so that the order is the same everywhere."""
    return seen.margin, -tier.number, stripe.address


def table_with(
    entries: Sequence[HolderEntry], members: Container[NodeId], added: Mapping[int, NodeId]
) -> list[HolderEntry]:
    """The holder table with new holders (index -> node), their sequence above all others.

    Lines are kept while there is room; beyond the limit of the wire the oldest lines of dead holders go.
    """
    sequence = min(SEQUENCE_MAX, 1 + max((entry.sequence for entry in entries), default=0))
    new = [HolderEntry(index, node, sequence) for index, node in added.items()]
    replaced = {(entry.index, entry.node) for entry in new}
    old = [entry for entry in entries if (entry.index, entry.node) not in replaced]
    old.sort(key=lambda entry: (NodeId(entry.node) not in members, -entry.sequence))
    kept = [*new, *old][:ENTRIES_MAX]
    return sorted(kept, key=lambda entry: (entry.index, entry.sequence, entry.node))


@dataclass(frozen=True, slots=True)
class GuardParams:
    """A view is doubted when more than `lost_share` of it went within `window_s`; trusted after `quiet_s`.

    It is also while the node that has it is slow or cut off itself, by a local health multiplier above `health_max`.
    """

    window_s: float = 60.0
    lost_share: float = 0.30
    quiet_s: float = 300.0
    health_max: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.window_s < math.inf or not 0 <= self.quiet_s < math.inf:
            raise ConfigError("guard.window_s must be above 0 and guard.quiet_s not negative")
        if self.health_max < 0:
            raise ConfigError("guard.health_max must not be negative")
        if not 0 < self.lost_share < 1:
            raise ConfigError("guard.lost_share must lie between 0 and 1")


class Guard:
    """Says whether the view of the members may be repaired on.

    Feed it the live members, ourselves included, after every change and now and then. Doubt ends by itself when more
    than half of the last stable view was reachable for a quiet time, else only by the operator's word (`resume`). A
    minority that hears the others again waits for that long too: they come back one by one, and who is not heard yet
    is not dead.
    """

    def __init__(self, params: GuardParams) -> None:
        self._params = params
        self._seen: frozenset[NodeId] = frozenset()
        self._lost: deque[tuple[float, NodeId]] = deque()
        self._stable: frozenset[NodeId] | None = None  # the view before the losses, while in doubt
        self._last_loss = -math.inf
        self._majority_since = -math.inf  # while in doubt: more than half of the stable view is reachable
        self._well = True

    @property
    def trusted(self) -> bool:
        """Whether repair may go on."""
        return self._stable is None and self._well

    def observe(self, live: Collection[NodeId], now: float, health: int = 0) -> None:
        """Take in the live members at `now` (seconds, never falling), and the local health multiplier."""
        self._well = health <= self._params.health_max
        current = frozenset(live)
        gone = self._seen - current
        self._seen = current
        if gone:
            self._last_loss = now
            self._lost.extend((now, node) for node in sorted(gone))
        while self._lost and self._lost[0][0] <= now - self._params.window_s:
            self._lost.popleft()
        if self._stable is None:
            self._doubt(current, now)
        elif 2 * len(current & self._stable) <= len(self._stable):
            self._majority_since = math.inf
        else:
            self._majority_since = min(self._majority_since, now)
            if now - max(self._last_loss, self._majority_since) >= self._params.quiet_s:
                self._trust()

    def obey(self, params: GuardParams) -> None:
        """Judge by these from now on."""
        self._params = params

    def resume(self) -> None:
        """The operator's word: what is reachable now is the network."""
        self._trust()

    def _doubt(self, current: frozenset[NodeId], now: float) -> None:
        lost = {node for _, node in self._lost} - current
        if len(lost) > self._params.lost_share * len(lost | current):
            self._stable = current | lost
            self._majority_since = now if 2 * len(current) > len(self._stable) else math.inf

    def _trust(self) -> None:
        self._stable = None
        self._lost.clear()
