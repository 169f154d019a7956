"""How the daemon of a node.toml is found and asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lockbox_node.cli.asking import ask_node, socket_of
from lockbox_node.config import Config, NodeSettings, to_toml
from lockbox_node.errors import ConfigError, PeerUnreachable

if TYPE_CHECKING:
    from pathlib import Path


def test_the_socket_lies_in_the_data_dir_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(to_toml(Config(node=NodeSettings(data_dir="data"))))
    assert socket_of(tmp_path / "node.toml") == tmp_path / "data" / "control.sock"


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        socket_of(tmp_path / "node.toml")


def test_a_daemon_that_does_not_run_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(to_toml(Config()))
    with pytest.raises(PeerUnreachable):
        ask_node(tmp_path / "node.toml", "scrub", action="progress")
