"""Looks at a whole network once each virtual second and checks the invariants; the first that breaks ends the run.

Looking disturbs nothing: it draws no lot, sends no byte, and touches no clock. A node is up from its start on, for
others may hear of it before it is ready. What a part's bytes hash to is worked
out once for the bytes that it has, since most parts stay as they are for hours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from lockbox_node.rpc.pool import DEFAULTS as POOL
from protocol import merkle
from protocol.records import open_descriptor
from simulations.invariants import Invariants, Limits, leftovers
from simulations.snapshot import Bound, NodeSeen, PartSeen, Snapshot, StripeSeen

if TYPE_CHECKING:
    from lockbox_node.ports import StripePart
    from simulations.cluster import Cluster, Host
    from simulations.disk import SimDisk
    from simulations.kept import Kept
    from simulations.people import Kept as Asset

LOOK_EVERY_S = 1.0


class BrokenInvariant(AssertionError):
    """Something is that may never be, or lasts that may not last."""


@dataclass(frozen=True, slots=True)
class _Look:
    """A part as it was seen last, and of which bytes and marks that holds."""

    part: StripePart
    corrupt: bool
    seen: PartSeen


class Watcher:
    """The eye on one cluster and its people."""

    def __init__(self, cluster: Cluster, limits: Limits | None = None) -> None:
        self.seconds = 0  # that were checked
        self._cluster = cluster
        self._invariants = Invariants(limits or Limits())
        self._known: dict[Kept, _Look] = {}
        self._acknowledged: dict[Asset, StripeSeen] = {}
        self._disks: dict[Asset, dict[int, SimDisk]] = {}  # index -> the disk on which it was acknowledged
        cluster.on_locked = self.acknowledged

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look until cancelled. BrokenInvariant."""
        task_status.started()
        while True:
            await trio.sleep(LOOK_EVERY_S)
            self.check()

    def check(self) -> None:
        """Look now, later than last time. BrokenInvariant says all that does not hold."""
        broken = self._invariants.broken(self.snapshot())
        self.seconds += 1
        if broken:
            raise BrokenInvariant("\n".join(broken))

    def check_end(self) -> None:
        """After the end of all nodes and people. BrokenInvariant."""
        left = list(leftovers(self.snapshot()))
        if left:
            raise BrokenInvariant(f"after the end of all nodes: {', '.join(left)}")

    def acknowledged(self, asset: Asset, placed: int) -> None:
        """A person was just told that an asset is locked, `placed` parts of it durable. BrokenInvariant if they lie.

        Only the root stripe is followed; an asset of several stands in the same way.
        """
        entry = asset.asset
        holders: dict[int, bytes] = {}
        disks: dict[int, SimDisk] = {}
        for host in self._cluster.hosts.values():
            for kept in host.disk.parts.standing(entry.address):
                if kept.part.descriptor_hash == entry.descriptor_hash:
                    holders[kept.part.index] = host.id
                    disks[kept.part.index] = host.disk
        if placed <= asset.tier.n and len(holders) < placed:
            raise BrokenInvariant(f"{placed} parts of an asset were acknowledged, {len(holders)} are on disks")
        self._acknowledged[asset] = StripeSeen(entry.address, entry.descriptor_hash, entry.tier, holders)
        self._disks[asset] = disks

    def snapshot(self) -> Snapshot:
        """This moment."""
        cluster = self._cluster
        looks: dict[Kept, _Look] = {}
        alone = self._alone()
        nodes = tuple(self._node(host, looks, up=host.name not in alone) for host in cluster.hosts.values())
        self._known = looks
        assets = [asset for person in cluster.people for asset in person.kept]
        stripes = tuple(self._stripe(asset) for asset in assets if asset in self._acknowledged)
        up = {node.name for node in nodes if node.up}
        apart = any(source in up and target in up for source, target in cluster.hub.blocked())
        wrong = sum(person.wrong_reads for person in cluster.people)
        return Snapshot(trio.current_time(), nodes, stripes, apart, wrong, tuple(cluster.leftovers()))

    def _stripe(self, asset: Asset) -> StripeSeen:
        """Without what was acknowledged by a disk that the simulation has put another in the place of."""
        stripe = self._acknowledged[asset]
        disks = {host.id: host.disk for host in self._cluster.hosts.values()}
        there = self._disks[asset]
        holders = {index: holder for index, holder in stripe.holders.items() if disks[holder] is there[index]}
        return replace(stripe, holders=holders) if len(holders) < len(stripe.holders) else stripe

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

    def _node(self, host: Host, looks: dict[Kept, _Look], *, up: bool) -> NodeSeen:
        parts = tuple(self._part(kept, looks) for kept in host.disk.parts.kept())
        life = host.life
        if life is None:
            return NodeSeen(host.id, host.name, host.region, host.operator, False, host.disk.epoch, parts)
        node = life.node
        return NodeSeen(
            host.id,
            host.name,
            host.region,
            host.operator,
            up,
            host.disk.epoch,
            parts,
            frozenset(node.machine.alive()) | {host.id},
            node.guard.trusted,
            not (life.store.broken or host.disk.parts.full),
            node.healing.repairs_begun,
            host.disk.parts.tombstones(),
            self._bounds(host),
        )

    def _part(self, kept: Kept, looks: dict[Kept, _Look]) -> PartSeen:
        look = self._known.get(kept)
        if look is None or look.part is not kept.part or look.corrupt is not kept.corrupt:
            look = _Look(kept.part, kept.corrupt, _seen(kept))
        looks[kept] = look
        return look.seen

    def _bounds(self, host: Host) -> tuple[Bound, ...]:
        config, parts = self._cluster.config, host.disk.parts
        figures = parts.figures()
        quota = max(config.storage.client_quota_bytes, config.storage.node_quota_bytes)
        return (
            Bound("bytes on its disk", figures.disk_bytes, config.store.capacity_bytes),
            Bound("bytes of one owner", parts.most_used_bytes(), quota),
            Bound("pointers", figures.pointers, config.store.pointers_max),
            Bound("connections", len(self._cluster.hub.links_of(host.name)), POOL.hard_max),
        )


def _seen(kept: Kept) -> PartSeen:
    part = kept.part
    descriptor = open_descriptor(part.descriptor)
    found = tuple(merkle.root(shard, descriptor.leaf_bytes) for shard in part.shards)
    signed = tuple(group.shard_ids[part.index] for group in descriptor.groups)
    return PartSeen(
        part.address, part.descriptor_hash, part.version, part.index, found, signed, kept.corrupt, kept.harmed
    )
