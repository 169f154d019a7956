"""What others can make grow in a node, each beside the limit that the code names for it: invariant 9.

The limits are read from where they stand, from the Params that the node was given or from the module that keeps them.
Everything here looks into private tables on purpose: a node that forgot a limit would not tell of it either. What trio
bounds itself, a channel of a fixed size, is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockbox_node.core.allowances import PEERS_MAX
from lockbox_node.rpc.pool import DEFAULTS as POOL
from lockbox_node.rpc.server import DEFAULTS as SERVER
from lockbox_node.services.auditing import AUDITS_MAX, HEADS_MAX
from lockbox_node.services.lessons import LESSONS_MAX
from lockbox_node.services.mending import REPORTS_MAX
from protocol.framing import FRAME_BYTES_MAX
from simulations.snapshot import Bound

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping

    from lockbox_node.config import Config
    from lockbox_node.node import Node
    from lockbox_node.rpc.connection import Connection
    from simulations.cluster import Life
    from simulations.disk import SimStore

STREAMS_MAX = POOL.hard_max + POOL.dials_max + SERVER.visitors_max + SERVER.hellos_max


def outer_bounds(
    config: Config, used: Mapping[bytes, int], pointers: int, streams: int, nodes: Container[bytes]
) -> tuple[Bound, ...]:
    """What shows from outside: bytes on a disk by owner, pointers, streams; `nodes` of the network."""
    clients = max((size for owner, size in used.items() if owner not in nodes), default=0)
    handed = max((size for owner, size in used.items() if owner in nodes), default=0)
    return (
        Bound("bytes on its disk", sum(used.values()), config.store.capacity_bytes),
        Bound("bytes of one client", clients, config.storage.client_quota_bytes),
        Bound("bytes that one node brought", handed, config.storage.node_quota_bytes),
        Bound("pointers", pointers, config.store.pointers_max),
        Bound("streams of its host", streams, STREAMS_MAX),
    )


def inner_bounds(life: Life) -> Iterator[Bound]:
    """The queues and tables of a running node."""
    yield from _store(life.store)
    yield from _connections(life.node)
    yield from _members(life.node)
    yield from _work(life.node)


def _store(store: SimStore) -> Iterator[Bound]:
    params = store._params
    yield Bound("writes that wait for the disk", len(store._writes.waiting), params.write_queue_max)
    # One that is heavier than all may wait alone.
    yield Bound("bytes that wait for the disk", store._write_bytes, params.write_queue_bytes_max + FRAME_BYTES_MAX)
    yield Bound("reads that wait for the disk", len(store._reads.waiting), params.read_queue_max)


def _connections(node: Node) -> Iterator[Bound]:
    pool, server = node.pool, node.server
    params = pool._params
    every = [*pool._ready.values(), *pool._retired, *server._visitors]
    yield Bound("connections to nodes", len(pool._ready), params.hard_max)
    yield Bound("dials", len(pool._dials), params.dials_max)
    yield Bound("failed dials remembered", len(pool._backoffs._failures), params.backoffs_max)
    yield Bound("addresses remembered", len(pool._node_at), params.addresses_max)
    yield Bound("visitors", server.visitors, server._params.visitors_max)
    yield Bound("visits of one peer", max(server._visits.values(), default=0), server._params.visits_max)
    yield Bound("peers that have not said Hello", server._greeting, server._params.hellos_max)
    yield Bound("rates remembered", len(node.dispatcher.allowances), PEERS_MAX)
    yield from _queues(every)


def _queues(connections: list[Connection]) -> Iterator[Bound]:
    """The fullest queues of all connections."""
    calls = serving = queued = tasks = 0
    for one in connections:
        calls = max(calls, len(one._calls) + len(one._forgotten))
        serving = max(serving, len(one._serving))
        queued = max(queued, one._queued_bytes)
        tasks = max(tasks, one._tasks_running)
    if connections:
        params = connections[0]._params
        yield Bound("calls on one connection", calls, params.calls_max)
        yield Bound("calls of one peer that are served", serving, params.serving_max + 1)  # the last is refused
        # Refusals may still be added up to twice the limit, and the last thing that was is one frame at most.
        yield Bound("bytes queued for one peer", queued, 2 * params.out_bytes_max + FRAME_BYTES_MAX)
        yield Bound("tasks of one peer", tasks, params.tasks_max)


def _members(node: Node) -> Iterator[Bound]:
    machine, table = node.machine, node.discovery._table
    most = machine._params.members_max
    yield Bound("members", len(machine._members), most)
    yield Bound("rumours", len(machine._rumours), most + 1)  # and one of itself
    yield Bound("members accused", len(machine._accused), most)
    yield Bound("members told of their state", len(machine._told), most)
    yield Bound("probes under way", len(machine.probing._until), most)
    yield Bound("round trips remembered", len(machine.probing._round_trip_s), most)
    buckets = table._buckets.values()
    yield Bound("contacts of one bucket", max((len(bucket.nodes) for bucket in buckets), default=0), table._params.k)
    spare = max((len(bucket.replacement_nodes) for bucket in buckets), default=0)
    yield Bound("spare contacts of one bucket", spare, table._params.k)


def _work(node: Node) -> Iterator[Bound]:
    healing, pointers, storage = node.healing, node.pointers, node.storage
    repair, limits = healing.params, pointers._params
    yield Bound("short stripes remembered", len(healing._short) - healing._lost, repair.short_max)
    yield Bound("lost parts remembered", healing._lost, repair.lost_max)
    yield Bound("repairs at once", healing._lanes, repair.in_flight_max)
    yield Bound("tables to tell", len(pointers._pending), limits.spread_pending_max)
    yield Bound("tables being told", pointers._in_flight, limits.spread_posts_max)
    yield Bound("lessons that wait", len(node.rejoining.lessons._waiting), LESSONS_MAX)
    yield Bound("damage to report", len(node.rejoining.mender._reports), REPORTS_MAX)
    yield Bound("audits at once", node.auditing.under_way, AUDITS_MAX)
    yield Bound("last statements remembered", len(node.auditing._heads), HEADS_MAX)
    yield Bound("descriptors remembered", len(storage._verified), storage._params.verified_descriptors_max)
