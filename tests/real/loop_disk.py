"""A file system of its own in a file, mounted over a loop device; root may make it fail as a dying disk does."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXT4_IOC_SHUTDOWN = 0x8004587D  # linux/fs/ext4: every access answers EIO from then on
NO_LOG_FLUSH = 2


@contextmanager
def loop_disk(image: Path, mounted: Path, size_bytes: int) -> Iterator[None]:
    """An empty ext4 of that size at `mounted`, which exists. Skips, saying why, where that cannot be."""
    missing = [tool for tool in ("mkfs.ext4", "mount", "umount") if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"needs root and mkfs.ext4, mount, umount (e2fsprogs, mount); missing: {missing or 'root'}")
    with image.open("wb") as stream:
        stream.truncate(size_bytes)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-b", "4096", image], check=True)
    done = subprocess.run(["mount", "-o", "loop", image, mounted], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device can be mounted here (modprobe loop, or a container without it): {done.stderr}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", mounted], check=True)


def fail(mounted: Path) -> None:
    """The disk is gone: reads, writes and flushes answer EIO."""
    descriptor = os.open(mounted, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    finally:
        os.close(descriptor)
