"""One iterative lookup: who of those that answer is nearest to a target. A job with an end, which asks nobody itself.

The driver starts what `next_queries` names, feeds each outcome back, and stops at `finished`. There are no rounds: a
window of `alpha` queries is in flight, and whoever is slow stops counting towards it. A path ends when the k nearest
candidates that it knows of have answered; whoever failed stays out for good, whoever did not answer is never a result.
Paths are disjoint: each has its own candidates and nobody is asked by two, so that one liar misleads one path only.
Everything that a reply can make grow has a limit. Sources: Maymounkov and Mazieres, Kademlia, 2002, section 2.3;
Baumgart and Mies, S/Kademlia, 2007, section 4.3 (disjoint paths).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockbox_node.errors import ConfigError
from protocol.ids import ID_BYTES, NodeId
from protocol.messages import FIND_NODE_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class LookupParams:
    """Limits and times of lookups; relative seconds."""

    members_max: int = 10_000  # with more members than this the member table is not relied on, lookups are used
    k: int = 20
    reply_max: int = 32  # contacts asked of one peer, and read of its answer: more than k, since some of them are dead
    alpha: int = 3  # queries in flight
    hops_max: int = 20
    messages_max: int = 128
    candidates_max: int = 60  # kept by one path: the k nearest, and who replaces those that fail
    paths: int = 2
    retry_paths: int = 4
    slow_s: float = 0.5  # a query without an answer for so long does not count towards the window
    query_timeout_s: float = 2.0
    timeout_s: float = 15.0  # of the whole lookup

    def __post_init__(self) -> None:
        for name in ("k", "reply_max", "alpha", "hops_max", "messages_max", "paths", "retry_paths"):
            if getattr(self, name) < 1:
                raise ConfigError(f"lookup.{name} must be at least 1")
        if self.reply_max > FIND_NODE_MAX:
            raise ConfigError(f"lookup.reply_max must be at most {FIND_NODE_MAX}")
        if self.candidates_max < self.k:
            raise ConfigError("lookup.candidates_max must be at least lookup.k")
        if not 0 < self.slow_s <= self.query_timeout_s <= self.timeout_s:
            raise ConfigError("lookup: 0 < slow_s <= query_timeout_s <= timeout_s must hold")


class _Path:
    """The candidates of one path by distance, nearest first, and how many hops away each was heard of."""

    def __init__(self, limit: int) -> None:
        self.order: list[int] = []
        self.hops: dict[int, int] = {}
        self._limit = limit

    def would_take(self, away: int) -> bool:
        return away not in self.hops and (len(self.order) < self._limit or away < self.order[-1])

    def add(self, away: int, hop: int) -> None:
        if not self.would_take(away):
            return
        self.order.insert(bisect_left(self.order, away), away)
        self.hops[away] = hop
        if len(self.order) > self._limit:
            del self.hops[self.order.pop()]

    def drop(self, away: int) -> None:
        if self.hops.pop(away, None) is not None:
            self.order.remove(away)


@dataclass(slots=True)
class _Query:
    path: _Path
    hop: int
    since: float


class Lookup:
    """The lookup of `target` by node `own`, which is never asked. `now` is monotonic seconds throughout.

    `seeds` are dealt to the paths in turn, nearest first. Peers are known by their distance from the target.
    """

    def __init__(
        self, target: bytes, own: bytes, seeds: Iterable[bytes], params: LookupParams, now: float, *, paths: int = 0
    ) -> None:
        assert len(target) == ID_BYTES
        self._target = int.from_bytes(target, "big")
        self._own = int.from_bytes(own, "big") ^ self._target if own else -1
        self._params = params
        self._deadline = now + params.timeout_s
        self._paths = [_Path(params.candidates_max) for _ in range(paths or params.paths)]
        self._turn = 0  # the path that asks next
        self._flying: dict[int, _Query] = {}
        self._answered: dict[int, int] = {}  # distance -> hops
        self._failed: set[int] = set()
        self._asked_at = now
        self._over = False
        self.messages = 0
        aways = sorted({away for seed in seeds if (away := self._away(seed)) is not None})
        for number, away in enumerate(aways):
            self._paths[number % len(self._paths)].add(away, 1)

    def next_queries(self, now: float) -> list[NodeId]:
        """Whom to ask now, each once; who has been silent for too long has failed. May finish the lookup."""
        self._asked_at = now
        for away, query in list(self._flying.items()):
            if now >= query.since + self._params.query_timeout_s:
                self._fail(away)
        if now >= self._deadline:
            self._end()
        found: list[NodeId] = []
        window = max(self._params.alpha, len(self._paths))
        counted = sum(now < query.since + self._params.slow_s for query in self._flying.values())
        while not self._over and counted < window and self.messages < self._params.messages_max:
            peer = self._pick(now)
            if peer is None:
                break
            found.append(peer)
            counted += 1
        if not self._flying:
            self._end()
        return found

    def next_deadline(self) -> float:
        """When `next_queries` should be asked again, though nobody has answered: later than it was asked last."""
        deadlines = [self._deadline]
        for query in self._flying.values():
            slow_at = query.since + self._params.slow_s
            deadlines.append(slow_at if slow_at > self._asked_at else query.since + self._params.query_timeout_s)
        return min(deadlines)

    def wants(self, peer: bytes, node: bytes) -> bool:
        """Whether the answer of `peer` that names `node` would change anything: else its record need not be read."""
        query, away = self._flying.get(self._number(peer)), self._away(node)
        return query is not None and away is not None and self._is_news(query, away)

    def on_response(self, peer: bytes, nodes: Sequence[bytes]) -> None:
        """`peer` answered with `nodes`; beyond `reply_max` they are not read. Nothing when it was not asked."""
        away = self._number(peer)
        query = self._flying.pop(away, None)
        if query is None or self._over:
            return
        self._answered[away] = query.hop
        for node in nodes[: self._params.reply_max]:
            named = self._away(node)
            if named is not None and self._is_news(query, named):
                query.path.add(named, query.hop + 1)

    def on_failure(self, peer: bytes) -> None:
        """`peer` did not answer, or with something that no honest node says: it is out for the rest of this lookup."""
        away = self._number(peer)
        if away in self._flying:
            self._fail(away)

    @property
    def finished(self) -> bool:
        """Nothing more is asked, and no answer changes the result."""
        return self._over

    @property
    def hops(self) -> int:
        """The longest chain that led to one of the results: 1 = it was known at the start."""
        return max((self._answered[away] for away in self._best()), default=0)

    def result(self) -> list[NodeId]:
        """The k nearest of all that answered, nearest first."""
        return [self._node(away) for away in self._best()]

    def _best(self) -> list[int]:
        return sorted(self._answered)[: self._params.k]

    def _pick(self, now: float) -> NodeId | None:
        """The next peer of the next path that has one; marked as asked."""
        for _ in self._paths:
            path = self._paths[self._turn]
            self._turn = (self._turn + 1) % len(self._paths)
            for away in path.order[: self._params.k]:
                if away not in self._answered and away not in self._flying:
                    self._flying[away] = _Query(path, path.hops[away], now)
                    self.messages += 1
                    return self._node(away)
        return None

    def _is_news(self, query: _Query, away: int) -> bool:
        return away not in self._failed and query.hop < self._params.hops_max and query.path.would_take(away)

    def _fail(self, away: int) -> None:
        self._flying.pop(away)
        self._failed.add(away)
        for path in self._paths:
            path.drop(away)

    def _end(self) -> None:
        self._over = True
        self._flying.clear()

    def _away(self, node: bytes) -> int | None:
        """The distance of a peer that may be asked; None for another length and for our own id."""
        away = self._number(node)
        return None if away < 0 or away == self._own else away

    def _number(self, node: bytes) -> int:
        return int.from_bytes(node, "big") ^ self._target if len(node) == ID_BYTES else -1

    def _node(self, away: int) -> NodeId:
        return NodeId((away ^ self._target).to_bytes(ID_BYTES, "big"))
