"""Wallet files: modes, whole replacement, one writer, and errors that say what to do."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lockbox_node.client import wallet_files
from lockbox_node.client.wallet_files import check_free, create_directory, locked, read_file, replace_file
from lockbox_node.errors import ConfigError, LockboxError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"one": b"1", "two": b"2"}


def mode(path: Path) -> int:
    """Permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def test_a_directory_is_made_whole_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "wallet"
    create_directory(path, FILES, "draft")
    assert {file.name: file.read_bytes() for file in path.iterdir()} == FILES
    assert mode(path) == 0o700
    assert {mode(file) for file in path.iterdir()} == {0o600}
    assert os.listdir(path.parent) == ["wallet"]


def test_an_empty_directory_may_be_there_already(tmp_path: Path) -> None:
    check_free(tmp_path)
    (tmp_path / "wallet").mkdir()
    create_directory(tmp_path / "wallet", FILES, "draft")
    assert mode(tmp_path / "wallet") == 0o700


@pytest.mark.parametrize("kind", ["directory", "file", "dangling link"])
def test_what_stands_there_is_never_overwritten(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "wallet"
    if kind == "directory":
        path.mkdir()
        (path / "mine").write_text("mine")
    elif kind == "file":
        path.write_text("mine")
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="exists already"):
        check_free(path)
    with pytest.raises(UsageError, match="exists already"):
        create_directory(path, FILES, "draft")
    assert os.listdir(tmp_path) == ["wallet"]


def test_a_place_that_cannot_be_used_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError):
        create_directory(tmp_path / "file" / "wallet", FILES, "draft")
    with pytest.raises(ConfigError), locked(tmp_path / "nowhere"):
        raise AssertionError
    with pytest.raises(ConfigError):
        read_file(tmp_path)


def test_a_name_that_is_too_long_cannot_be_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        check_free(tmp_path / ("loop" * 100))


def test_reading_what_is_not_there_gives_nothing(tmp_path: Path) -> None:
    assert read_file(tmp_path / "nothing") is None


def test_a_file_without_end_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(wallet_files.FILE_BYTES_MAX + 1)
    with pytest.raises(ConfigError, match="too large"):
        read_file(tmp_path / "big")


def test_a_file_is_replaced_whole_whatever_an_earlier_process_left(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"old")
    (tmp_path / ".state.new").write_bytes(b"half")
    replace_file(tmp_path / "state", b"new")
    assert read_file(tmp_path / "state") == b"new"
    assert os.listdir(tmp_path) == ["state"]
    assert mode(tmp_path / "state") == 0o600


def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    with pytest.raises(LockboxError, match="cannot write"):
        replace_file(tmp_path / "nowhere" / "state", b"new")


def test_the_lock_keeps_another_process_out_until_it_is_released(tmp_path: Path) -> None:
    script = (
        "import fcntl, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "try: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "except BlockingIOError: sys.exit(3)\n"
    )
    attempt = [sys.executable, "-c", script, str(tmp_path / wallet_files.LOCK_NAME)]
    with locked(tmp_path):
        assert subprocess.run(attempt, check=False).returncode == 3
    assert subprocess.run(attempt, check=False).returncode == 0
