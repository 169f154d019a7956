"""Looks at a whole network once each virtual second and checks the invariants; the first that breaks ends the run.

Looking disturbs nothing: it draws no lot, sends no byte, and touches no clock. A node is up from its start on, for
others may hear of it before it is ready. Most of what stands on a disk stays as it is for hours: it is judged once for
the bytes, the descriptor and the marks that it has, and a disk without a change is the same tuple as a second ago.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import trio

from lockbox_node.services.discovery import is_eligible
from protocol import merkle
from protocol.records import open_descriptor
from simulations.bounds import inner_bounds, outer_bounds
from simulations.identities import NOW_UNIX_S
from simulations.invariants import Invariants, Limits, leftovers
from simulations.likeness import Likeness
from simulations.overhearing import name_of
from simulations.promises import Promise, layout, promises
from simulations.snapshot import NodeSeen, PartSeen, Snapshot

if TYPE_CHECKING:
    from lockbox_node.ports import StripePart
    from protocol.messages import Signed
    from simulations.cluster import Cluster, Host
    from simulations.disk import SimDisk
    from simulations.kept import Kept
    from simulations.people import Kept as Asset

LOOK_EVERY_S = 1.0
INNER_EVERY = 5  # a node's queues and tables are looked at every so many seconds, other nodes in the others


class BrokenInvariant(AssertionError):
    """Something is that may never be, or lasts that may not last."""


Mark = tuple["Kept", tuple[bytes, ...], "Signed", int, int, bool, bool]
"""A part on a disk and all of it that is judged: shards, descriptor, index, version, `corrupt`, `harmed`."""


@dataclass(slots=True)
class _Disk:
    """What a medium held when it was looked at last, and what that means."""

    number: int
    marks: list[Mark] = field(default_factory=list)
    parts: tuple[PartSeen, ...] = ()
    used: Counter[bytes] = field(default_factory=Counter)  # bytes by owner
    buried: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # as it keeps them: until which unix time
    tombstones: dict[bytes, tuple[int, float]] = field(default_factory=dict)


class Watcher:
    """The eye on one cluster and its people."""

    def __init__(self, cluster: Cluster, limits: Limits | None = None) -> None:
        """Without `limits` those that follow from what the nodes were told."""
        self.seconds = 0  # that were checked
        self.invariants = Invariants(limits or Limits(hold_off_s=cluster.config.repair.hold_off_s))
        self._cluster = cluster
        self._ids = frozenset(host.id for host in cluster.hosts.values())
        self._streams: Counter[str] = Counter()  # by host, when they were looked at last
        self._disks: dict[SimDisk, _Disk] = {}
        self._promises: dict[Asset, list[Promise]] = {}
        self._secrets: set[str] = set()  # what assets and clients are called, as log lines call things
        self._verified: dict[bytes, tuple[bytes, ...]] = {}  # shards that were read and right, by what they must be
        self._wrong_served = 0
        self._likeness = Likeness()
        cluster.on_locked = self.acknowledged
        cluster.on_read = self.read

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look until cancelled. BrokenInvariant."""
        task_status.started()
        while True:
            await trio.sleep(LOOK_EVERY_S)
            self.check()

    def check(self) -> None:
        """Look now, later than last time. BrokenInvariant says all that does not hold."""
        broken = self.invariants.broken(self.snapshot())
        self.seconds += 1
        if broken:
            raise BrokenInvariant("\n".join(broken))

    def check_end(self) -> None:
        """After the end of all nodes and people. BrokenInvariant."""
        left = list(leftovers(replace(self.snapshot(), leftovers=tuple(self._cluster.leftovers()))))
        if left:
            raise BrokenInvariant(f"after the end of all nodes: {', '.join(left)}")

    def acknowledged(self, asset: Asset, placed: int) -> None:
        """A person was just told that an asset is locked, `placed` parts of it durable. BrokenInvariant if they lie."""
        owner = next(person for person in self._cluster.people if asset in person.kept)
        made = promises(self._cluster.hosts.values(), asset.asset, owner.vault.wallet.master)
        stand = sum(len(promise.disks) for promise in made)
        if stand < placed:
            raise BrokenInvariant(f"{placed} parts of an asset were acknowledged, {stand} are on disks")
        self._promises[asset] = made
        found = layout(self._cluster.hosts.values(), asset.asset, owner.vault.wallet.master)
        if found is not None:
            self._likeness.add(*found)
        if told := self._likeness.told():
            raise BrokenInvariant(told)
        for promise in made:
            self._secrets |= {name_of(promise.stripe.address), name_of(promise.stripe.descriptor_hash)}
        self._secrets.add(name_of(owner.vault.own_id))

    def read(self, part: StripePart) -> None:
        """A store hands out a part with its shards: to a client, a sibling, or its own node."""
        name = part.descriptor_hash + bytes([part.index])
        if self._verified.get(name) is not part.shards:
            found, signed = _ids(part)
            self._wrong_served += found != signed
            self._verified[name] = part.shards

    def snapshot(self) -> Snapshot:
        """This moment."""
        cluster = self._cluster
        alone = self._alone()
        self._streams = Counter(name for link in cluster.hub.links.values() for name in link.hosts)
        turn = round(trio.current_time()) % INNER_EVERY
        nodes = tuple(
            self._node(host, up=host.name not in alone, inner=number % INNER_EVERY == turn)
            for number, host in enumerate(cluster.hosts.values())
        )
        disks = {host.id: host.disk for host in cluster.hosts.values()}
        assets = [asset for person in cluster.people for asset in person.kept]
        stripes = tuple(promise.now(disks) for asset in assets for promise in self._promises.get(asset, ()))
        up = {node.name for node in nodes if node.up}
        apart = any(source in up and target in up for source, target in cluster.hub.blocked())
        wrong = sum(person.wrong_reads for person in cluster.people)
        told = cluster.world.overheard.leaks(self._secrets)
        tables = [host.life.node.documents.rules.regions for host in cluster.living() if host.life is not None]
        seen = Snapshot(trio.current_time(), nodes, stripes, apart, wrong, self._wrong_served, told)
        return replace(seen, regions=tables[0]) if tables else seen

    def _alone(self) -> set[str]:
        """Hosts that no running node can reach, or that reach none."""
        running = [host.name for host in self._cluster.living()]
        blocked = set(self._cluster.hub.blocked())
        if not blocked:
            return set()
        return {
            name
            for name in running
            if all((name, other) in blocked for other in running if other != name)
            or all((other, name) in blocked for other in running if other != name)
        }

    def _node(self, host: Host, *, up: bool, inner: bool) -> NodeSeen:
        disk = self._look_at(host.disk)
        life = host.life
        seen = NodeSeen(
            host.id,
            host.name,
            host.region,
            host.operator,
            life is not None and up,
            host.disk.epoch,
            disk.parts,
            tombstones=disk.tombstones,
            disk=disk.number,
        )
        if life is None:
            return seen
        node = life.node
        pointers, streams = host.disk.parts.pointers(), self._streams[host.name]
        outer = outer_bounds(self._cluster.config, disk.used, pointers, streams, self._ids)
        return replace(
            seen,
            view=frozenset(node.machine.alive()) | {host.id},
            trusted=node.guard.trusted,
            eligible=is_eligible(node.announcer.record) and not (life.store.broken or host.disk.parts.full),
            repairs=node.healing.repairs_begun,
            bounds=(*outer, *inner_bounds(life)) if inner else outer,
        )

    def _look_at(self, medium: SimDisk) -> _Disk:
        disk = self._disks.get(medium)
        if disk is None:
            disk = self._disks[medium] = _Disk(len(self._disks))
        marks = [_mark(kept) for kept in medium.parts.every()]
        if marks != disk.marks:
            before = {old[0][0]: old for old in zip(disk.marks, disk.parts, strict=True)}
            disk.parts = tuple(_part(mark, before.get(mark[0])) for mark in marks)
            disk.marks = marks
            disk.used = Counter()
            for kept, *_ in marks:
                disk.used[kept.owner] += kept.size
        buried = medium.parts.tombstones()
        if buried != disk.buried:
            disk.buried = buried
            disk.tombstones = {address: (version, until - NOW_UNIX_S) for address, (version, until) in buried.items()}
        return disk


def _mark(kept: Kept) -> Mark:
    part = kept.part
    return kept, part.shards, part.descriptor, part.index, part.version, kept.corrupt, kept.harmed


def _part(mark: Mark, before: tuple[Mark, PartSeen] | None) -> PartSeen:
    """The part as it is: hashed again only when its bytes, or what they should be, have changed."""
    kept, _, _, index, version, corrupt, harmed = mark
    if before is not None and before[0][:4] == mark[:4]:
        return replace(before[1], version=version, corrupt=corrupt, harmed=harmed)
    found, signed = _ids(kept.part)
    return PartSeen(kept.part.address, kept.part.descriptor_hash, version, index, found, signed, corrupt, harmed)


def _ids(part: StripePart) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """What the shards hash to, and what their owner signed."""
    descriptor = open_descriptor(part.descriptor)
    found = tuple(merkle.root(shard, descriptor.leaf_bytes) for shard in part.shards)
    return found, tuple(group.shard_ids[part.index] for group in descriptor.groups)
