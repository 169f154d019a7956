"""Fixtures that several rooms share. Automatic is only the strict log: a line that names an asset fails its test."""

from __future__ import annotations

import random
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from lockbox_node.observe import logging

if TYPE_CHECKING:
    from pathlib import Path

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


@pytest.fixture(scope="session")
def project_root(pytestconfig: pytest.Config) -> Path:
    """The checkout."""
    return pytestconfig.rootpath
