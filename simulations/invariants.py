"""The invariants of a network, checked on snapshots: what may never be, and what may not last.

Each check of a moment is a function of one snapshot, each check of a step one of two, and `Invariants` remembers since
when a thing lasts. All answer with sentences, none of them with an asset. DESIGN, Ten invariants: all are here but 7
(real and decoy look alike), which needs the owner's key: `likeness`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lockbox_node.core.tiers import TIERS
from simulations.places import can_heal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lockbox_node.core.tiers import Tier
    from simulations.snapshot import NodeSeen, Snapshot, StripeKey, StripeSeen


@dataclass(frozen=True, slots=True)
class Limits:
    """How long what should pass may last, in seconds: about 1.5 times the longest that was seen of a sound product.

    Measured over 32 runs (9 of churn, 15 virtual minutes each; burn, mass return, flapping, rot, partition and others
    of 1.5 to 6; 12 to 20 nodes). A view was wrong for 35 s once and for at most 9 s in all other runs; allowed are two
    rounds of push-pull, which is every 30 s and mends what rumours miss. A shard was missing for at most 207 s above
    one hold-off, at Standard in churn: later ranks act half a hold-off after one another, and what failed is tried
    again a sweep later. It was 27 s where a hold-off is 20 s (rot).
    """

    hold_off_s: float | None = None  # the tier's own, if the policy does not shorten it
    hold_offs: float = 1.0  # so many of them until the first holder acts
    repair_s: float = 310.0  # from then to full redundancy: later ranks, detection, repairs that are tried again
    agree_s: float = 60.0  # until every view follows a death or a return

    def held_off_s(self, tier: Tier) -> float:
        """Until the nearest holder acts on the loss of another."""
        return self.hold_offs * (tier.hold_off_s if self.hold_off_s is None else self.hold_off_s)

    def heal_s(self, tier: Tier) -> float:
        """From the loss of a holder to full redundancy."""
        return self.held_off_s(tier) + self.repair_s


# A moment


def broken_acknowledgements(seen: Snapshot) -> Iterator[str]:
    """1. What a holder acknowledged stands on its disk, unless somebody else keeps that shard by now."""
    by_id = {node.id: node for node in seen.nodes}
    for stripe in seen.stripes:
        kept = {part.index for _, part in seen.kept.get(stripe.key, ())}
        for index, holder in stripe.holders.items():
            if index not in kept:
                yield f"{by_id[holder].name} acknowledged a shard that is on no disk"


def wrong_bytes(seen: Snapshot) -> Iterator[str]:
    """2. What a store hands out was verified, and nobody is served other bytes than were locked."""
    if seen.wrong_served:
        yield f"{seen.wrong_served} parts were handed out with other bytes than their owner signed"
    if seen.wrong_reads:
        yield f"{seen.wrong_reads} unlocks gave other bytes than were locked"


def strangers(seen: Snapshot) -> Iterator[str]:
    """3. A view holds members of the network alone: nobody gets in by saying an id."""
    ids = {node.id for node in seen.nodes}
    for node in seen.nodes:
        if node.up and not node.view <= ids:
            yield f"{node.name} believes in {len(node.view - ids)} nodes that the network does not have"


def told_secrets(seen: Snapshot) -> Iterator[str]:
    """4. No log line names an asset or a client."""
    yield from seen.told


def crowded_regions(seen: Snapshot) -> Iterator[str]:
    """5. The disks of one region, running or not, never store enough to rebuild."""
    for stripe in seen.stripes:
        tier = TIERS[stripe.tier]
        indices: dict[str, set[int]] = {}
        for node, part in seen.kept.get(stripe.key, ()):
            indices.setdefault(node.region, set()).add(part.index)
        for region, held in indices.items():
            if len(held) >= tier.k:
                yield f"{region} stores {len(held)} shards of a {tier.name} stripe, {tier.k} rebuild it"


def forged_parts(seen: Snapshot) -> Iterator[str]:
    """6. What stands on a disk, put or repaired, has the ids that the owner signed, unless the simulation harmed it."""
    for node in seen.nodes:
        wrong = sum(part.found != part.signed and not part.harmed for part in node.parts)
        if wrong:
            yield f"{node.name} stores {wrong} parts that are not what their owner signed"


def undead_parts(seen: Snapshot) -> Iterator[str]:
    """8. Where a tombstone stands, nothing of its version or below does."""
    for node in seen.nodes:
        buried = node.tombstones
        if buried and any(part.version <= buried[part.address][0] for part in node.parts if part.address in buried):
            yield f"{node.name} stores what its own tombstone covers"


def broken_bounds(seen: Snapshot) -> Iterator[str]:
    """9. What others can make grow stays within its limit: stored bytes, connections, queues, tables."""
    for node in seen.nodes:
        for bound in node.bounds:
            if bound.value > bound.limit:
                yield f"{node.name}: {bound.name} is {bound.value:g}, at most {bound.limit:g} are allowed"


MOMENTS = (broken_acknowledgements, wrong_bytes, strangers, told_secrets, crowded_regions, broken_bounds)
OF_DISKS = (forged_parts, undead_parts)
"""Checks of moments that say nothing new where no disk has changed."""


def leftovers(seen: Snapshot) -> Iterator[str]:
    """At the end of all nodes and people nothing runs, listens or is connected."""
    yield from seen.leftovers


# A step


def fallen_versions(before: Snapshot, seen: Snapshot) -> Iterator[str]:
    """8. On one disk the version that stands at an address never falls, and what is buried there stays buried.

    A tombstone may go when its time is over; a part may always go. An old image of a disk is another disk.
    """
    for then, node in _same_disks(before, seen):
        highest = _versions(then)
        if any(version < highest.get(address, 0) for address, version in _versions(node).items()):
            yield f"an older version has won at {node.name}"
        kept = node.tombstones
        if any(address not in kept and until > seen.now for address, (_, until) in then.tombstones.items()):
            yield f"{node.name} forgot a deletion before its time"


def _same_disks(before: Snapshot, seen: Snapshot) -> Iterator[tuple[NodeSeen, NodeSeen]]:
    """Nodes whose disk is the one of a second ago, and holds something else now."""
    earlier = {node.id: node for node in before.nodes}
    for node in seen.nodes:
        then = earlier.get(node.id)
        if then is not None and then.disk == node.disk and not _unchanged(then, node):
            yield then, node


def _unchanged(then: NodeSeen, node: NodeSeen) -> bool:
    return then.parts is node.parts and then.tombstones is node.tombstones


def _versions(node: NodeSeen) -> dict[bytes, int]:
    """By address, in half versions: a tombstone stands above what it buries and below what comes after it."""
    highest = {address: 2 * version + 1 for address, (version, _) in node.tombstones.items()}
    for part in node.parts:
        highest[part.address] = max(2 * part.version, highest.get(part.address, 0))
    return highest


def doubtful_repairs(before: Snapshot, seen: Snapshot) -> Iterator[str]:
    """10. A view that has lost many nodes at once repairs nothing."""
    earlier = {node.id: node for node in before.nodes}
    for node in seen.nodes:
        then = earlier.get(node.id, node)
        same_life = then.up and node.up and then.epoch == node.epoch
        if same_life and not then.trusted and not node.trusted and node.repairs > then.repairs:
            yield f"{node.name} began a repair while it doubted its view"


STEPS = (fallen_versions, doubtful_repairs)


# What lasts


@dataclass(slots=True)
class Longest:
    """The longest that was seen of what passes: what a bound has to leave room for. Seconds."""

    disagreed_s: float = 0.0  # a view was wrong about somebody, since that one or its owner turned
    healed_s: float = 0.0  # a shard was missing, above the hold-offs that Limits grants


class Invariants:
    """All checks, second by second. `broken` answers with what does not hold; the first is enough to end a run."""

    def __init__(self, limits: Limits) -> None:
        self.longest = Longest()
        self._limits = limits
        self._before: Snapshot | None = None
        self._missing_since: dict[StripeKey, dict[int, float]] = {}  # index -> when its healing could begin
        self._holders: dict[StripeKey, dict[bytes, int]] = {}  # that could serve a second ago: node -> index
        self._losses: dict[StripeKey, deque[tuple[float, int]]] = {}  # when which index lost a holder
        self._below: set[StripeKey] = set()  # that have fewer than k now: judged when they fell
        self._places: list[bytes] = []  # nodes that take shards now
        self._healable: dict[StripeKey, tuple[object, bool]] = {}  # as of which nodes
        self._turned_at: dict[bytes, float] = {}  # when a node came up or went down
        self._whole_since = -math.inf  # the first second after a partition

    def broken(self, seen: Snapshot) -> list[str]:
        """What does not hold at `seen.now`, which rises from call to call."""
        before = self._before
        assert before is None or seen.now > before.now
        found = [words for check in MOMENTS for words in check(seen)]
        changed = seen if before is None else replace(seen, nodes=_changed(before, seen))
        found += [words for check in OF_DISKS for words in check(changed)]
        if before is not None:
            found += [words for step in STEPS for words in step(before, seen)]
        self._note_turns(seen)
        found += self._disagreements(seen)
        excused = seen.partitioned or not all(node.trusted for node in seen.nodes if node.up)
        self._places = [node.id for node in seen.nodes if node.up and node.eligible]
        for stripe in seen.stripes:
            live = seen.live(stripe.key)
            self._note_losses(stripe, seen)
            found += self._lost(stripe, live, seen)
            found += self._unhealed(stripe, live, seen, excused=excused)
        self._before = seen
        return found

    def _note_turns(self, seen: Snapshot) -> None:
        was_up = {} if self._before is None else {node.id: node.up for node in self._before.nodes}
        for node in seen.nodes:
            if was_up.get(node.id) is not node.up:
                self._turned_at[node.id] = seen.now
        if self._before is not None and self._before.partitioned and not seen.partitioned:
            self._whole_since = seen.now

    def _disagreements(self, seen: Snapshot) -> Iterator[str]:
        """Views agree on who is up, and on who is not, within a bound.

        Counted since either of the two turned, or the last partition ended: who was right about a node and becomes
        wrong about it, though it did not turn, is told at once.
        """
        if seen.partitioned:
            return
        names = {node.id: node.name for node in seen.nodes}
        up = frozenset(node.id for node in seen.nodes if node.up)
        for node in seen.nodes:
            wrong = node.view ^ up if node.up else ()
            lasting = {
                names[other]: seen.now - max(self._turned_at[node.id], self._turned_at[other], self._whole_since)
                for other in wrong
                if other in names
            }
            if lasting:
                longest_s = max(lasting.values())
                self.longest.disagreed_s = max(self.longest.disagreed_s, longest_s)
                if longest_s >= self._limits.agree_s:
                    who = ", ".join(sorted(name for name, since in lasting.items() if since >= self._limits.agree_s))
                    yield f"{node.name} is wrong about {who}, {longest_s:.0f} s after the last change"

    def _note_losses(self, stripe: StripeSeen, seen: Snapshot) -> None:
        now = {node.id: part.index for node, part in seen.kept.get(stripe.key, ()) if node.up and part.sound}
        acknowledged = {holder: index for index, holder in stripe.holders.items()}  # who may be gone in that second
        before, self._holders[stripe.key] = self._holders.get(stripe.key, acknowledged), now
        losses = self._losses.setdefault(stripe.key, deque())
        losses.extend((seen.now, index) for node, index in before.items() if node not in now)
        while losses and losses[0][0] < seen.now - self._limits.heal_s(TIERS[stripe.tier]):
            losses.popleft()

    def _lost(self, stripe: StripeSeen, live: dict[int, NodeSeen], seen: Snapshot) -> Iterator[str]:
        """Never falls below k, unless more than n - k holders were lost within the time that healing may take.

        A doubted view is no excuse here. A network that has no legal place left for the missing shards is one.
        """
        tier = TIERS[stripe.tier]
        if len(live) >= tier.k:
            self._below.discard(stripe.key)
            return
        lost = len({index for _, index in self._losses[stripe.key]})
        fell = stripe.key not in self._below
        self._below.add(stripe.key)
        if not fell or lost > tier.n - tier.k or seen.partitioned:
            return
        if self._can_heal(stripe, live, seen):
            words = f"a {tier.name} stripe has {len(live)} live shards of the {tier.k} it needs"
            yield f"{words}, and lost only {lost} lately"

    def _unhealed(
        self, stripe: StripeSeen, live: dict[int, NodeSeen], seen: Snapshot, *, excused: bool
    ) -> Iterator[str]:
        """No index missing for longer than healing may take, while the rules can be kept and nobody doubts his view.

        Time in which either is not so does not count, nor does time below k.
        """
        tier = TIERS[stripe.tier]
        if len(live) == tier.n:
            self._missing_since.pop(stripe.key, None)
            return
        known = self._missing_since.get(stripe.key, {})
        restart = excused or len(live) < tier.k or not self._can_heal(stripe, live, seen)
        since = {
            index: seen.now if restart else known.get(index, seen.now) for index in range(tier.n) if index not in live
        }
        self._missing_since[stripe.key] = since
        lasting_s = seen.now - min(since.values())
        self.longest.healed_s = max(self.longest.healed_s, lasting_s - self._limits.held_off_s(tier))
        if lasting_s > self._limits.heal_s(tier):
            yield f"a {tier.name} stripe has {len(live)} of {tier.n} live shards, one is missing for {lasting_s:.0f} s"

    def _can_heal(self, stripe: StripeSeen, live: dict[int, NodeSeen], seen: Snapshot) -> bool:
        """Worked out anew only when the holders, or those who may become one, are others."""
        kept = {(node.id, part.index) for node, part in seen.kept.get(stripe.key, ())}
        given = (self._places, {index: node.id for index, node in live.items()}, kept, seen.regions)
        known = self._healable.get(stripe.key)
        if known is None or known[0] != given:
            known = self._healable[stripe.key] = (given, is_healable(stripe, live, seen))
        return known[1]


def _changed(before: Snapshot, seen: Snapshot) -> tuple[NodeSeen, ...]:
    """Nodes with another disk than a second ago, or something else on it."""
    earlier = {node.id: node for node in before.nodes}
    return tuple(node for node in seen.nodes if node.id not in earlier or not _unchanged(earlier[node.id], node))


def is_healable(stripe: StripeSeen, live: dict[int, NodeSeen], seen: Snapshot) -> bool:
    """Whether the nodes that are up can complete the set of those that hold a shard, by the rules."""
    kept = [(part.index, node) for node, part in seen.kept.get(stripe.key, ())]
    free = [node for node in seen.nodes if node.up and node.eligible]
    return can_heal(TIERS[stripe.tier], stripe.address, live, kept, free, seen.regions)
