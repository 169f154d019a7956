"""The operator asks for a backup over the socket, is told what it holds, and `status` remembers it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from lockbox_node.adapters.backups import Backups
from lockbox_node.adapters.shard_store import ShardStoreFile
from lockbox_node.errors import UsageError
from lockbox_node.observe.backups import BackupVerbs, last_backup
from tests.fakes.backed_up import CLOCK, PARAMS, node_home, put, serving
from tests.fakes.stripes import NOW_UNIX_S

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real


async def test_a_backup_is_made_told_and_remembered(tmp_path: Path) -> None:
    sources = node_home(tmp_path / "n01")
    async with serving(sources.data_dir) as store:
        await put(store, range(9))
        verbs = BackupVerbs(Backups(store, sources, CLOCK), store)
        assert last_backup(store.notes) is None
        said: Any = await verbs.backup({"directory": str(tmp_path / "backup")})
        assert (said["kind"], said["unix_s"], said["parts"], said["missing"]) == ("full", NOW_UNIX_S, 9, 0)
        assert (said["big"]["files"], said["big"]["linked"], said["big"]["copied"]) == (3, 3, 0)
        assert last_backup(store.notes) == {"unix_s": NOW_UNIX_S, "kind": "full", "bytes": said["bytes"]}
        assert await verbs.progress({}) == {"done": 0, "total": 0}
        again: Any = await verbs.backup({"directory": str(tmp_path / "backup"), "full": True})
        assert (again["kind"], again["why_full"]) == ("full", "asked for")
    async with serving(sources.data_dir) as store:
        remembered = last_backup(store.notes)
        assert remembered is not None
        assert remembered["kind"] == "full"


async def test_a_store_that_takes_no_more_writes_is_backed_up_all_the_same(tmp_path: Path) -> None:
    sources, other = node_home(tmp_path / "n01"), node_home(tmp_path / "n02")
    closed = ShardStoreFile.open(other.data_dir, PARAMS, CLOCK)
    closed.close()
    async with serving(sources.data_dir) as store:
        await put(store, range(3))
        said: Any = await BackupVerbs(Backups(store, sources, CLOCK), closed).backup({"directory": str(tmp_path / "b")})
        assert said["parts"] == 3
        assert last_backup(closed.notes) is None


@pytest.mark.parametrize("request_", [{}, {"directory": 3}, {"directory": "/x", "full": 1}, {"directory": "x"}])
async def test_a_wrong_request_is_refused(request_: dict[str, Any], tmp_path: Path) -> None:
    sources = node_home(tmp_path / "n01")
    async with serving(sources.data_dir) as store:
        with pytest.raises(UsageError):
            await BackupVerbs(Backups(store, sources, CLOCK), store).backup(request_)


@pytest.mark.parametrize("raw", [b"", b"\xc1", msgpack.packb([1]), msgpack.packb({"unix_s": "x"})])
def test_a_note_that_is_not_readable_is_none(raw: bytes) -> None:
    assert last_backup({"backup": raw}) is None
