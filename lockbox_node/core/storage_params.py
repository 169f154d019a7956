"""The limits of the shard store and of the storage service, with their defaults and checks.

Each limit bounds something that a peer can make grow (queue, transaction, table, disk) or names a moment (checkpoint,
expiry). Source of the values: DESIGN, Storage; measured on ext4 with the engine comparison behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from lockbox_node.errors import ConfigError
from protocol.messages import TABLES_MAX

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


def _positive(params: object, section: str) -> None:
    for item in fields(params):  # type: ignore[arg-type]  # every caller is a dataclass of this module
        if getattr(params, item.name) < 0:
            raise ConfigError(f"{section}.{item.name} is negative", "give zero or more")


@dataclass(frozen=True, slots=True)
class StoreParams:
    """Limits of one shard store."""

    capacity_bytes: int = 16 * GIB  # of logical bytes; more is StoreFull
    free_floor_bytes: int = GIB  # the disk keeps at least this much free,
    free_floor_percent: float = 2.0  # and at least this share of its size
    ballast_bytes: int = 64 * MIB  # given up when the disk is full, so that deletes work
    inside_bytes_max: int = 64 * KIB  # parts above it become one file each
    group_requests_max: int = 256  # of one transaction
    group_bytes_max: int = 8 * MIB
    gather_write_s: float = 0.03  # a crowded queue waits at most so long for more to share a flush,
    gather_read_s: float = 0.015  # or a thread hop
    gather_enough: int = 8  # requests that wait: go at once
    write_queue_max: int = 4096  # requests that wait; beyond it BUSY
    write_queue_bytes_max: int = 64 * MIB
    read_queue_max: int = 4096
    read_group_max: int = 64  # reads of one thread hop
    read_group_bytes_max: int = 4 * MIB
    check_bytes_max: int = 4 * MIB  # verified in one step of a scrub
    scan_rows_max: int = 2000  # of one read transaction: a long reader would block WAL truncation
    checkpoint_wal_bytes: int = 4 * MIB  # PASSIVE from here on: all who wait meanwhile wait for it
    idle_s: float = 1.0  # quiet for so long: TRUNCATE, unlink, sweep, expire
    salvage_every_s: float = 3600.0  # a damaged database is rebuilt at most so often; sooner again, it is read-only
    idle_rows_max: int = 500  # of each kind of idle work per step
    pointer_ttl_s: float = 24 * 3600.0
    pointer_renew_s: float = 6 * 3600.0  # an equal pointer told again within this time is not rewritten
    pointers_max: int = 1_000_000
    tombstones_max: int = 4_000_000  # where nothing stands; others are kept, at the cost of what is put

    def __post_init__(self) -> None:
        _positive(self, "store")
        if not 1 <= self.group_requests_max <= self.write_queue_max:
            raise ConfigError("store.group_requests_max is outside 1 to store.write_queue_max")
        if self.read_group_max < 1 or self.scan_rows_max < 1 or self.idle_rows_max < 1 or self.idle_s <= 0:
            raise ConfigError("store.read_group_max, scan_rows_max, idle_rows_max and idle_s must be above zero")
        if self.gather_enough < 3:
            raise ConfigError("store.gather_enough is below 3", "8 is usual")
        if not self.free_floor_percent <= 90:
            raise ConfigError("store.free_floor_percent is above 90", "2 is usual")


@dataclass(frozen=True, slots=True)
class StorageParams:
    """Limits of the storage service and of the pointer spreader."""

    verified_descriptors_max: int = 2048  # remembered hashes of descriptors whose signature was checked
    client_quota_bytes: int = 4 * GIB  # that one client may keep here
    node_quota_bytes: int = 64 * GIB  # that one node may bring here by handing over: what its clients had elsewhere
    lease_slack_s: float = 300.0  # a lease may end this much after the tier's longest, for clocks that differ
    neighbours: int = 20  # the nearest nodes that keep pointers
    spread_every_s: float = 0.5
    spread_batch_max: int = TABLES_MAX  # tables of one tell_holders
    spread_pending_max: int = 8192  # tables that wait; beyond it the oldest is dropped and counted
    spread_posts_max: int = 256  # requests in flight; what is above waits for the next round
    renew_every_s: float = 12 * 3600.0
    renew_page: int = 256  # stripes per round while pointers are renewed
    joined_hold_s: float = 30.0  # joins are gathered this long before pointers are told again

    def __post_init__(self) -> None:
        _positive(self, "storage")
        if not 1 <= self.spread_batch_max <= TABLES_MAX:
            raise ConfigError(f"storage.spread_batch_max is outside 1 to {TABLES_MAX}")
        if self.spread_every_s <= 0 or self.renew_every_s <= 0 or self.verified_descriptors_max < 1:
            raise ConfigError("storage.spread_every_s, renew_every_s, verified_descriptors_max must be above zero")


@dataclass(frozen=True, slots=True)
class LeaseParams:
    """When leases are looked at, and how long trash is kept."""

    look_every_s: float = 60.0  # at the clocks; uptime and wall time are noted as often
    leases_every_s: float = 600.0
    trash_kept_s: float = 7 * 24 * 3600.0  # of the store's uptime

    def __post_init__(self) -> None:
        _positive(self, "leases")
        if not self.look_every_s > 0 or not self.leases_every_s > 0:
            raise ConfigError("leases.look_every_s and leases_every_s must be above zero", "60 and 600 are usual")
