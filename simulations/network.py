"""The Network port in memory: hosts on one hub, with the faults of real networks on demand.

Each host shows the leaf that its identity has at the moment of the dial, as TLS would; nothing is encrypted and no
certificate is checked, so what Hello must find is found by Hello. Without a `Geography` everything arrives at once.

Faults. A blocked way is silent, as a real partition is: what was sent stands still until it is free again, a dial
tries again each second and gives up after DIAL_TIMEOUT_S. A process that was killed breaks its connections behind the
last byte that it sent, and its host refuses dials; a host without power says nothing, and breaks what it no longer
knows when it is back and hears of it. A connection may also break or go silent alone.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from zlib import crc32

import trio

from lockbox_node.errors import PeerUnreachable
from simulations.streams import BROKE, BUFFER_BYTES, MemoryStream, Pipe, stream_pair

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from lockbox_node.ports import PeerHandler
    from simulations.geography import Geography

DIAL_TIMEOUT_S = 5.0
SYN_RETRY_S = 1.0
HANDSHAKE_WAYS = 4  # TCP and TLS 1.3, as the dialler sees it
PORT = 7420
TICKS_PER_S = 1000  # arrivals are rounded up to them: the clock jumps once for all that come together

Event = Callable[[], None]


class Way:
    """The line from one host to another: an event at its end comes after its time, or when it is free again."""

    def __init__(self, hub: Hub, source: str, target: str) -> None:
        self.hub, self.source, self.target = hub, source, target
        self.blocked = 0  # how many partitions stand across it
        self._standing: list[Event] = []

    def carry(self, pipe: Pipe) -> None:
        """See Line."""
        pipe.due = self.after(pipe.arrive, pipe.due)

    def after(self, event: Event, not_before: float = 0.0) -> float:
        """Let `event` happen at the other end; says when, if nothing stands in the way."""
        at = max(not_before, math.ceil((trio.current_time() + self.time_s()) * TICKS_PER_S) / TICKS_PER_S)
        self.hub.at(at, self, event)
        return at

    def time_s(self) -> float:
        """How long one message takes now."""
        geography = self.hub.geography
        return geography.one_way_s(self.source, self.target) if geography is not None else 0.0

    def free(self) -> None:
        """One partition less."""
        self.blocked -= 1
        if not self.blocked:
            standing, self._standing = self._standing, []
            for event in standing:
                self.after(event)

    def pass_on(self, event: Event) -> None:
        """The time of `event` has come."""
        if self.blocked:
            self._standing.append(event)
        else:
            event()


@dataclass(slots=True)
class Link:
    """A stream that is not closed at both ends: the dialler's host and end first."""

    hosts: tuple[str, str]
    ends: tuple[MemoryStream, MemoryStream]
    unknown_at: str = ""  # the host that lost its power and with it all knowledge of this stream

    def peer_of(self, host: str) -> str:
        """The other host."""
        return self.hosts[1 - self.hosts.index(host)]

    def end_at(self, host: str) -> MemoryStream:
        """The end of `host`."""
        return self.ends[self.hosts.index(host)]

    def other_end(self, host: str) -> MemoryStream:
        """The end of the peer of `host`."""
        return self.ends[1 - self.hosts.index(host)]


class Hub:
    """All hosts of one simulation, and the streams between them."""

    def __init__(
        self, capacity: int = BUFFER_BYTES, geography: Geography | None = None, trace: Callable[..., None] | None = None
    ) -> None:
        self.capacity, self.geography, self._trace = capacity, geography, trace
        self.dial_s = 0.0  # what a dial takes without a geography
        self.listeners: dict[tuple[str, int], tuple[MemoryNetwork, Callable[[MemoryStream], None]]] = {}
        self.down: set[str] = set()  # hosts that refuse dials
        self.silent: set[str] = set()  # hosts that let a dial hang
        self.links: dict[int, Link] = {}  # by the number of their dial
        self._ways: dict[tuple[str, str], Way] = {}
        self._due: list[tuple[float, int, Way, Event]] = []
        self._order = itertools.count()
        self._sleeping = trio.CancelScope()

    def network(self, host: str, leaf: Callable[[], bytes], port: int = PORT) -> MemoryNetwork:
        """The Network of one host; `leaf` is asked at each connection."""
        return MemoryNetwork(self, host, port, leaf)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let what is under way arrive, for ever. Needed with a geography only."""
        task_status.started()
        while True:
            now = trio.current_time()
            while self._due and self._due[0][0] <= now:
                _, _, way, event = heapq.heappop(self._due)
                way.pass_on(event)
            with trio.CancelScope(deadline=self._due[0][0] if self._due else float("inf")) as self._sleeping:
                await trio.sleep_forever()

    def at(self, time: float, way: Way, event: Event) -> None:
        """Let `way` pass `event` on at `time`."""
        heapq.heappush(self._due, (time, next(self._order), way, event))
        if time < self._sleeping.deadline:
            self._sleeping.deadline = time

    def way(self, source: str, target: str) -> Way:
        """The line from host to host."""
        found = self._ways.get((source, target))
        if found is None:
            found = self._ways[source, target] = Way(self, source, target)
        return found

    # Connections

    async def reach(self, source: str, target: str) -> None:
        """Return when a dial has come through; never while something stands in the way."""
        if self.geography is not None and target not in self.geography:
            await trio.lowlevel.checkpoint()
            raise PeerUnreachable(f"{target} cannot be reached: no such name", "is the address right?")
        there, back = self.way(source, target), self.way(target, source)
        while True:
            await trio.sleep((there.time_s() + back.time_s()) * HANDSHAKE_WAYS / 2 + self.dial_s)
            if not (there.blocked or back.blocked or target in self.silent):
                return
            await trio.sleep(SYN_RETRY_S)

    def connect(self, source: MemoryNetwork, target: tuple[str, int]) -> MemoryStream:
        """The dialler's end of a new stream; PeerUnreachable when nobody listens."""
        listener = self.listeners.get(target)
        if listener is None or target[0] in self.down:
            self.tell("refused", source.host, target[0])
            raise PeerUnreachable(f"{target[0]}:{target[1]} refused the connection", "is it running?")
        network, welcome = listener
        here, there = source.host, network.host
        timed = self.geography is not None
        lines = (self.way(here, there), self.way(there, here)) if timed else (None, None)
        ours, theirs = stream_pair(source.leaf(), network.leaf(), (here, there), self.capacity, lines)
        self.opened(Link((here, there), (ours, theirs)))

        def come() -> None:
            if self.listeners.get(target) is listener:
                welcome(theirs)
            else:
                theirs.break_here(BROKE)
                theirs.close()

        if timed:
            self.way(here, there).after(come)
        else:
            come()
        return ours

    def opened(self, link: Link) -> None:
        """A new stream stands: keep it in mind until both ends are closed."""
        number = next(self._order)
        self.links[number] = link

        def closed() -> None:
            if link.ends[0].closed and link.ends[1].closed:
                self.links.pop(number, None)

        for end, here, there in zip(link.ends, link.hosts, reversed(link.hosts), strict=True):
            end.on_closed = closed
            if self._trace is not None:
                end.watch(self._arrivals(there, here, self._trace))
        self.tell("connected", *link.hosts)

    def links_of(self, host: str) -> list[Link]:
        """Every stream of `host`, oldest first."""
        return [link for link in self.links.values() if host in link.hosts]

    @staticmethod
    def _arrivals(there: str, here: str, trace: Callable[..., None]) -> Callable[[bytes], None]:
        def came(data: bytes) -> None:
            trace("bytes", there, here, len(data), crc32(data))

        return came

    def dialled(self, source: str, target: str) -> None:
        """A dial begins."""
        self.tell("dial", source, target)

    def tell(self, kind: str, *fields: str | int | float) -> None:
        """Write an event down, if anybody reads."""
        if self._trace is not None:
            self._trace(kind, *fields)

    # Faults

    def blocked(self) -> list[tuple[str, str]]:
        """From whom to whom nothing passes now."""
        return [hosts for hosts, way in self._ways.items() if way.blocked]

    def partition(self, left: Iterable[str], right: Iterable[str], *, one_way: bool = False) -> Callable[[], None]:
        """Let nothing pass from `left` to `right`, nor back unless `one_way`. Call what is returned to heal it."""
        pairs = [(source, target) for source in left for target in right if source != target]
        if not one_way:
            pairs += [(target, source) for source, target in pairs]
        ways = [self.way(*pair) for pair in dict.fromkeys(pairs)]
        for way in ways:
            way.blocked += 1
        self.tell("partition", len(ways))

        def heal() -> None:
            self.tell("heal", len(ways))
            while ways:
                ways.pop().free()

        return heal

    def kill(self, network: MemoryNetwork) -> None:
        """Its process ended without a word: the kernel ends its connections."""
        network.die()
        for link in self.links_of(network.host):
            end = link.end_at(network.host)
            end.break_here(BROKE)
            end.close()

    def power_off(self, network: MemoryNetwork) -> None:
        """Its host is gone at once: whoever talks to it hears nothing, until `power_on`."""
        network.die()
        self.silent.add(network.host)
        for link in self.links_of(network.host):
            link.unknown_at = network.host
            end = link.end_at(network.host)
            end.go_silent()
            end.close()

    def power_on(self, host: str) -> None:
        """The host is back and knows none of its connections: who sends on one is told that it broke."""
        self.silent.discard(host)
        for link in self.links_of(host):
            if link.unknown_at == host:
                other = link.other_end(host)
                other.when_it_sends(partial(self._answer_with_break, self.way(host, link.peer_of(host)), other))

    @staticmethod
    def _answer_with_break(way: Way, end: MemoryStream) -> None:
        way.after(end.lose)

    def break_some(self, rng: Random, count: int, *, silently: bool = False) -> int:
        """Break up to `count` connections, drawn by `rng`, at both ends; how many there were."""
        whole = [link for link in self.links.values() if not (link.ends[0].over or link.ends[1].over)]
        chosen = rng.sample(whole, min(count, len(whole)))
        for link in chosen:
            self.tell("broken", *link.hosts, int(silently))
            if silently:
                link.ends[0].go_silent()
            else:
                link.ends[0].lose()
        return len(chosen)


class MemoryNetwork:
    """The Network port of one host on a hub, for one life of its process."""

    def __init__(self, hub: Hub, host: str, port: int, leaf: Callable[[], bytes]) -> None:
        self.hub, self.host, self.port, self.leaf = hub, host, port, leaf
        self._dead = False

    async def dial(self, host: str, port: int) -> MemoryStream:
        """See the port."""
        with trio.move_on_after(DIAL_TIMEOUT_S):
            if self._dead:
                await trio.sleep_forever()
            self.hub.dialled(self.host, host)
            await self.hub.reach(self.host, host)
            return self.hub.connect(self, (host, port))
        raise PeerUnreachable(f"{host}:{port} did not answer within {DIAL_TIMEOUT_S:g} s", "is it running?")

    async def serve(
        self, handler: PeerHandler, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """See the port."""
        place, hub = (self.host, self.port), self.hub
        assert place not in hub.listeners
        async with trio.open_nursery() as nursery:
            # What is begun for a peer belongs to whoever serves, not to whoever dialled.
            context = copy_context()

            def welcome(stream: MemoryStream) -> None:
                context.run(partial(nursery.start_soon, handler, stream))

            listener = hub.listeners[place] = (self, welcome)
            task_status.started(self.port)
            try:
                await trio.sleep_forever()
            finally:
                if hub.listeners.get(place) is listener:
                    del hub.listeners[place]

    def die(self) -> None:
        """Nothing more comes from here, nobody listens here."""
        self._dead = True
        listener = self.hub.listeners.get((self.host, self.port))
        if listener is not None and listener[0] is self:
            del self.hub.listeners[self.host, self.port]
