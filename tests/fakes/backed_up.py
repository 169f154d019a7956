"""A node's directory with a real store in it, and what of it a backup must bring back."""

from __future__ import annotations

import contextlib
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from lockbox_node.adapters import store_schema
from lockbox_node.adapters.shard_store import ShardStoreFile
from lockbox_node.adapters.store_backup import Backup, BackupDone, Sources
from lockbox_node.adapters.store_files import BigFiles
from lockbox_node.adapters.store_reader import Get, StoreReader
from lockbox_node.adapters.store_restore import Restored, restore
from lockbox_node.config import Config, NodeSettings, to_toml
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.ports import StripePart, settled
from protocol.ids import NodeId
from tests.fakes.stripes import DAY_S, NOW_UNIX_S, OWNER, FixedClock, Stripe, bytes_of, make_stripe, node_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

PARAMS = StoreParams(ballast_bytes=4096, free_floor_bytes=0, free_floor_percent=0.0, idle_s=0.01)
NODE = NodeId(node_of(1))
CLOCK = FixedClock()


def stripe_of(number: int) -> Stripe:
    """Every third is large: a file of its own."""
    return make_stripe(number, groups=4, shard_bytes=20_000) if number % 3 == 0 else make_stripe(number)


def node_home(home: Path) -> Sources:
    """The files of a node without a store; its data_dir is not where a restored node has it."""
    data_dir = home / "data"
    (data_dir / "identity").mkdir(parents=True)
    (home / "net").mkdir()
    (data_dir / "identity/key.pem").write_bytes(bytes_of("key"))
    (data_dir / "identity/key.pem").chmod(0o600)
    (data_dir / "identity/node.pem").write_bytes(bytes_of("certificate"))
    (home / "net/root.pem").write_bytes(bytes_of("network"))
    settings = NodeSettings(data_dir="data", network="net/root.pem", region="eu-west-1", listen="192.0.2.1:7420")
    (home / "node.toml").write_text(to_toml(Config(node=settings)))
    return Sources(data_dir, home / "node.toml", home / "net/root.pem")


@contextlib.asynccontextmanager
async def serving(data_dir: Path) -> AsyncIterator[ShardStoreFile]:
    """The store of `data_dir`, running."""
    store = ShardStoreFile.open(data_dir, PARAMS, CLOCK, NODE)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


async def put(store: ShardStoreFile, numbers: Iterable[int]) -> None:
    """Store the first part of these stripes, all in flight at once."""
    async with trio.open_nursery() as nursery:
        for number in numbers:
            part = stripe_of(number).parts[0]
            nursery.start_soon(settled, partial(store.put, part, (), OWNER))


async def delete(store: ShardStoreFile, numbers: Iterable[int]) -> None:
    """Bury these stripes."""
    async with trio.open_nursery() as nursery:
        for number in numbers:
            signer = stripe_of(number).signer
            until = NOW_UNIX_S + 60 * DAY_S
            nursery.start_soon(settled, partial(store.delete, signer.tombstone(1), signer.address, 1, until))


def fill(data_dir: Path, numbers: Iterable[int], without: Iterable[int] = ()) -> None:
    """The same in a run of its own, after which the store is closed."""

    async def run() -> None:
        async with serving(data_dir) as store:
            await put(store, numbers)
            await delete(store, without)

    trio.run(run)


def back_up(sources: Sources, directory: Path, *, full: bool = False, made: int = NOW_UNIX_S) -> BackupDone:
    """A backup of a store that does not run."""
    backup = Backup(sources, directory, made, lambda _count: None, full=full)
    backup.copy()
    return backup.finish()


def restored(directory: Path, target: Path, clock: FixedClock = CLOCK) -> Restored:
    """Restore the newest backup."""
    return restore(directory, target, clock, lambda _count: None)


def held_in(data_dir: Path) -> dict[bytes, StripePart]:
    """Every part of a store that does not run, verified, by its address. Fails when one is not whole."""
    with closing(store_schema.connect(data_dir / store_schema.DATABASE)) as connection:
        reader = StoreReader(connection, BigFiles(data_dir), PARAMS, CLOCK)
        keys: list[tuple[Any, ...]] = connection.execute("SELECT address, hash FROM part WHERE corrupt = 0").fetchall()
        found = {}
        for address, descriptor_hash in keys:
            (part,) = reader.read([Get(address, descriptor_hash)])
            assert isinstance(part, StripePart), part
            found[address] = part
        return found


def meta_of(data_dir: Path) -> dict[str, Any]:
    """The row of counters."""
    with closing(store_schema.connect(data_dir / store_schema.DATABASE)) as connection:
        cursor = connection.execute("SELECT * FROM meta")
        names = [column[0] for column in cursor.get_description()]
        return dict(zip(names, next(cursor), strict=True))


def parts_of(numbers: Iterable[int]) -> dict[bytes, StripePart]:
    """What `held_in` says of a store that holds these."""
    parts = [stripe_of(number).parts[0] for number in numbers]
    return {part.address: part for part in parts}
