"""Fixtures that several rooms share. Automatic is only the strict log: a line that names an asset fails its test."""

from __future__ import annotations

import random
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from lockbox_node.observe import logging

if TYPE_CHECKING:
    from collections.abc import Iterator

# The gate's machine is slow and shared: an example that takes long says nothing about the code.
settings.register_profile("lockbox", deadline=None, print_blob=True)
settings.load_profile("lockbox")


def pytest_configure(config: pytest.Config) -> None:
    """Let every log line be checked, in every test."""
    logging.configure(strict=True)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Chance that is the same in every run, and another one for each test."""
    return random.Random(zlib.crc32(request.node.name.encode()))


@pytest.fixture
def ram_path(tmp_path: Path) -> Iterator[Path]:
    """As tmp_path, in memory where there is such a place: for disks that the test plays itself, thousands of times."""
    shared = Path("/dev/shm")
    if not shared.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared) as path:
        yield Path(path)


@pytest.fixture(scope="session")
def project_root(pytestconfig: pytest.Config) -> Path:
    """The checkout."""
    return pytestconfig.rootpath
