"""Files of the wallet directory: 0600 in 0700, replaced whole, one writer at a time.

A file is written aside, synced, renamed over the old one, and the directory synced: after a crash the old or the new
one stands there, never a mixture. A new directory is filled aside and renamed into place in the same way.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lockbox_node.errors import ConfigError, LockboxError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

LOCK_NAME = "lock"
FILE_BYTES_MAX = 64 * 1024 * 1024


def check_free(path: Path) -> None:
    """UsageError unless nothing, or an empty directory, stands at `path`."""
    try:
        free = not os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        free = not os.path.lexists(path)
    except OSError as error:
        raise _unusable(path, error) from None
    if not free:
        raise UsageError(f"{path} exists already", "a wallet is never overwritten: choose another place with --wallet")


def create_directory(path: Path, files: Mapping[str, bytes], suffix: str) -> None:
    """Make the directory `path` with `files`, whole or not at all. `suffix` makes the name of the draft unique."""
    draft = path.with_name(f".{path.name}.{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir(mode=0o700)
        try:
            for name, content in files.items():
                _write_new(draft / name, content)
            _sync_directory(draft)
            draft.rename(path)  # fails over anything but an empty directory
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        _sync_directory(path.parent)
    except OSError as error:
        check_free(path)
        raise _unusable(path, error) from None


def read_file(path: Path) -> bytes | None:
    """The whole file; None when it does not exist. ConfigError when it cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from None
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(f"{path} is too large for a file of a wallet", "move it away")
    return content


def replace_file(path: Path, content: bytes) -> None:
    """Make `content` the file at `path`, durably. The caller holds the lock. LockboxError when the disk refuses."""
    draft = path.with_name(f".{path.name}.new")
    try:
        draft.unlink(missing_ok=True)  # of a process that was killed
        _write_new(draft, content)
        draft.rename(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise LockboxError(f"cannot write {path}: {error.strerror}", "make room or check permissions") from None


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the wallet's lock: for milliseconds, and never twice in one task."""
    try:
        descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(directory, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_new(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot use {path}: {error.strerror}", "check the path and its permissions, or give --wallet")
