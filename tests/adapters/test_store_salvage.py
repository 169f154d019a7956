"""A damaged database is built anew: what is kept, what stays away, and a crash at every step."""

from __future__ import annotations

import shutil
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from lockbox_node.adapters import store_salvage, store_schema
from lockbox_node.adapters.disk import DISK, Disk
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.ports import Owner, PutOutcome, StripePart
from tests.fakes.stepped_store import SteppedStore
from tests.fakes.stripes import DAY_S, NOW_UNIX_S, make_stripe

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.adapters.store_salvage import Salvaged

pytestmark = pytest.mark.real
PARAMS = StoreParams(ballast_bytes=4096, free_floor_bytes=0, free_floor_percent=0.0)
BIG: dict[str, Any] = {"groups": 4, "shard_bytes": 17_000}
OWNERS = [Owner(bytes([number]) * 32, 2**60) for number in range(2)]
SMALL = [make_stripe(number).parts[number % 10] for number in range(40)]
LARGE = [make_stripe(("big", number), **BIG).parts[number] for number in range(2)]
HELD = [*SMALL, *LARGE]
UNTIL = NOW_UNIX_S + 400 * DAY_S


def fill(data_dir: Path) -> None:
    """Parts of two owners, some renewed, one in trash; a tombstone, a pointer, a note."""
    data_dir.mkdir(exist_ok=True)
    stepped = SteppedStore(data_dir, PARAMS)
    store = stepped.store
    for place, part in enumerate(HELD):
        assert isinstance(stepped.ask(partial(store.put, part, (), OWNERS[place % 2])), PutOutcome)
    trashed = make_stripe("trashed", lease_s=DAY_S)
    stepped.put(trashed.parts[0])
    stepped.ask(partial(store.expire, NOW_UNIX_S + 2 * DAY_S, 77.0))
    gone = make_stripe("gone")
    stepped.put(gone.parts[0])
    stepped.delete(gone.signer.tombstone(1), gone.parts[0], 1)
    stepped.ask(partial(store.merge, [make_stripe("pointed").table], ()))
    stepped.ask(partial(store.note, "cursor", b"here"))
    renewal = make_stripe(3).signer.renewal(1, SMALL[3].descriptor_hash, UNTIL)
    stepped.ask(partial(store.renew, renewal, SMALL[3].address, SMALL[3].descriptor_hash, UNTIL))
    stepped.rest()
    stepped.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("salvage") / "store"
    fill(data_dir)
    return data_dir


@pytest.fixture
def data_dir(filled: Path, tmp_path: Path) -> Path:
    """A copy of the filled store."""
    shutil.copytree(filled, tmp_path / "store")
    return tmp_path / "store"


def salvage(data_dir: Path, disk: Disk = DISK) -> Salvaged:
    salvaged = store_salvage.rebuild(data_dir, b"", NOW_UNIX_S, disk)
    store_salvage.finish(data_dir, NOW_UNIX_S, disk)
    return salvaged


def everything(data_dir: Path) -> tuple[object, ...]:
    """All that a store says of itself, and each part that is held."""
    stepped = SteppedStore(data_dir, PARAMS)
    store = stepped.store
    parts = [stepped.get(part) for part in HELD]
    summaries = stepped.ask(partial(store.summaries, b"", 1000))
    digests = stepped.ask(store.digests)
    views = [stepped.look(make_stripe(name).parts[0]) for name in ("gone", "pointed", "trashed")]
    usage = [store._writer._books.used_bytes(owner.id) for owner in OWNERS]
    figures, notes = store.figures(), dict(store.notes)
    kept = (figures.stripes, figures.shards, figures.logical_bytes, figures.corrupt, figures.pointers)
    stepped.close()
    return parts, summaries, digests, views, usage, kept, (figures.tombstones, figures.trash_bytes), notes


def sql(data_dir: Path, *statements: str) -> None:
    connection = store_schema.connect(data_dir / store_schema.DATABASE)
    for statement in statements:
        connection.execute(statement).fetchall()
    connection.close()


def page_of(data_dir: Path, name: str) -> int:
    """The root page of a table."""
    connection = store_schema.connect(data_dir / store_schema.DATABASE)
    try:
        return int(connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).get)
    finally:
        connection.close()


def overwrite(data_dir: Path, page: int, raw: bytes) -> None:
    with open(data_dir / store_schema.DATABASE, "r+b") as file:
        file.seek((page - 1) * store_schema.PAGE_BYTES)
        file.write(raw)


def test_a_whole_database_is_rebuilt_as_it_was(data_dir: Path) -> None:
    before = everything(data_dir)
    salvaged = salvage(data_dir)
    assert (salvaged.kept, salvaged.lost, salvaged.corrupt, salvaged.pages) == (len(HELD) + 1, 0, (), 0)
    assert everything(data_dir) == before
    assert before[0][3].lease_until_unix_s == UNTIL  # type: ignore[index]
    assert [path.name for path in (data_dir / "quarantine").iterdir()] == [f"shards.db-{NOW_UNIX_S}"]


@pytest.mark.parametrize("name", ["body", "part", "part_identity", "named", "sqlite_schema"])
def test_a_page_above_others_costs_nothing(data_dir: Path, name: str) -> None:
    before = everything(data_dir)
    overwrite(data_dir, 1 if name == "sqlite_schema" else page_of(data_dir, name), bytes(100))
    salvaged = salvage(data_dir)
    assert (salvaged.kept, salvaged.lost, salvaged.corrupt) == (len(HELD) + 1, 0, ())
    assert salvaged.pages == 1
    assert everything(data_dir) == before


def test_a_lost_body_is_a_corrupt_part_that_can_be_put_again(data_dir: Path) -> None:
    database = data_dir / store_schema.DATABASE
    at = database.read_bytes().index(SMALL[7].slots[0])
    overwrite(data_dir, at // store_schema.PAGE_BYTES + 1, bytes(store_schema.PAGE_BYTES))
    salvaged = salvage(data_dir)
    assert (bytes(SMALL[7].address), bytes(SMALL[7].descriptor_hash)) in salvaged.corrupt
    assert salvaged.kept + len(salvaged.corrupt) == len(HELD) + 1
    stepped = SteppedStore(data_dir, PARAMS)
    assert stepped.store.figures().corrupt == len(salvaged.corrupt)
    assert isinstance(stepped.put(SMALL[7]), PutOutcome)
    assert stepped.get(SMALL[7]) == SMALL[7]
    assert stepped.store.figures().corrupt == len(salvaged.corrupt) - 1
    stepped.close()


def test_rows_on_a_lost_page_are_counted_and_their_bodies_kept(data_dir: Path) -> None:
    connection = store_schema.connect(data_dir / store_schema.DATABASE)
    sql_text = "SELECT pageno FROM dbstat WHERE name = 'part' AND pagetype = 'leaf'"
    pages = [int(row[0]) for row in connection.execute(sql_text)]
    connection.close()
    for page in pages:
        overwrite(data_dir, page, bytes(store_schema.PAGE_BYTES))
    salvaged = salvage(data_dir)
    assert (salvaged.kept, salvaged.lost) == (len(HELD) + 1, 0)
    stepped = SteppedStore(data_dir, PARAMS)
    for part in HELD:
        found = stepped.get(part)
        assert isinstance(found, StripePart)
        assert (found.shards, found.slots, found.index, found.entries) == (part.shards, part.slots, part.index, ())
    stepped.close()


def test_without_its_meta_row_a_store_goes_on_above_what_it_used(data_dir: Path) -> None:
    stepped = SteppedStore(data_dir, PARAMS)
    epoch, rid = stepped.store.epoch, stepped.store._writer._books.next_rid
    stepped.close()
    overwrite(data_dir, page_of(data_dir, "meta"), bytes(store_schema.PAGE_BYTES))
    assert salvage(data_dir).kept == len(HELD) + 1
    stepped = SteppedStore(data_dir, PARAMS)
    assert stepped.store.epoch > NOW_UNIX_S > epoch
    assert stepped.store._writer._books.next_rid > rid - store_schema.RID_SKIP
    stepped.close()


def test_what_was_removed_does_not_come_back(data_dir: Path) -> None:
    stepped = SteppedStore(data_dir, PARAMS)
    for part in SMALL[:30]:
        stepped.ask(partial(stepped.store.drop, part.address, part.descriptor_hash))
    stepped.rest()
    stepped.close()
    assert salvage(data_dir).kept == len(HELD) + 1 - 30


def test_a_body_left_by_a_careful_delete_does_not_come_back(data_dir: Path) -> None:
    sql(data_dir, "DELETE FROM part WHERE rid = (SELECT min(rid) FROM part)", "UPDATE meta SET stripes = stripes - 1")
    salvaged = salvage(data_dir)
    assert (salvaged.kept, salvaged.lost) == (len(HELD), 0)


def test_what_a_tombstone_covers_does_not_come_back(data_dir: Path) -> None:
    signed = make_stripe(0).signer.tombstone(1)
    connection = store_schema.connect(data_dir / store_schema.DATABASE)
    row = (SMALL[0].address, 1, signed.body, signed.signature, 0, UNTIL)
    connection.execute("INSERT INTO tomb VALUES (?, ?, ?, ?, ?, ?)", row)
    connection.execute("UPDATE meta SET tombstones = tombstones + 1")
    connection.close()
    assert salvage(data_dir).kept == len(HELD)


def test_a_body_without_its_row_that_another_replaces_does_not_come_back(data_dir: Path) -> None:
    new = make_stripe(5, version=2, replaces=[SMALL[5].descriptor_hash]).parts[0]
    stepped = SteppedStore(data_dir, PARAMS)
    stepped.put(new)  # both stand, as after a transaction that was lost in part
    stepped.close()
    sql(data_dir, f"DELETE FROM part WHERE hash = x'{SMALL[5].descriptor_hash.hex()}'")
    salvaged = salvage(data_dir)
    assert (salvaged.kept, salvaged.lost) == (len(HELD) + 1, 1)
    stepped = SteppedStore(data_dir, PARAMS)
    assert stepped.get(new) == new
    assert not isinstance(stepped.get(SMALL[5]), StripePart)
    stepped.close()


def test_a_forged_body_is_left_out(data_dir: Path) -> None:
    sql(data_dir, f"UPDATE body SET head = (SELECT head FROM body WHERE rid = {row_of(data_dir, 1)}) WHERE rid > 0")
    assert salvage(data_dir).kept <= 1


def row_of(data_dir: Path, place: int) -> int:
    connection = store_schema.connect(data_dir / store_schema.DATABASE)
    try:
        return int(connection.execute("SELECT rid FROM part ORDER BY rid LIMIT 1 OFFSET ?", (place,)).get)
    finally:
        connection.close()


class FailingDisk(Disk):
    """Fails from a step on, as a crash there would leave it."""

    def __init__(self, at: int) -> None:
        self.steps, self._at = 0, at

    def _step(self) -> None:
        self.steps += 1
        if self.steps > self._at:
            raise OSError(5, "the disk is gone")

    def flush(self, descriptor: int) -> None:
        self._step()
        super().flush(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        self._step()
        super().rename(old, new)

    def link(self, old: Path, new: Path) -> None:
        self._step()
        super().link(old, new)

    def unlink(self, path: Path) -> None:
        self._step()
        super().unlink(path)

    def flush_directory(self, path: Path) -> None:
        self._step()
        super().flush_directory(path)


def test_a_crash_at_any_step_leaves_the_old_or_the_new(data_dir: Path, tmp_path: Path) -> None:
    wanted = everything(data_dir)
    stepped = SteppedStore(data_dir, PARAMS)  # its last put is in the WAL alone
    late = make_stripe("late").parts[0]
    stepped.put(late)
    names = []
    for at in range(100):
        copy = tmp_path / f"crash{at}"
        shutil.copytree(data_dir, copy, ignore=lambda _folder, found: [name for name in found if "-shm" in name])
        disk = FailingDisk(at)
        try:
            salvage(copy, disk)
        except OSError:
            names.append((copy / store_salvage.NEXT).exists())
        else:
            break
        again = SteppedStore(copy, PARAMS)
        assert again.get(late) == late
        again.ask(partial(again.store.drop, late.address, late.descriptor_hash))
        again.rest()
        again.close()
        assert everything(copy) == wanted
        assert not list(copy.glob("shards.salvage*"))
        assert not (copy / store_salvage.NEXT).exists()
    stepped.close()
    assert names.count(False) > 1
    assert names.count(True) > 3


def test_the_second_salvage_replaces_what_the_first_put_aside(data_dir: Path) -> None:
    salvage(data_dir)
    store_salvage.rebuild(data_dir, b"", NOW_UNIX_S + 1, DISK)
    store_salvage.finish(data_dir, NOW_UNIX_S + 1, DISK)
    assert [path.name for path in (data_dir / "quarantine").iterdir()] == [f"shards.db-{NOW_UNIX_S + 1}"]
