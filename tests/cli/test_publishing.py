"""The authority hands its documents to a real daemon, and hears what it has; SIGHUP takes files that lie there."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.adapters.document_files import load_documents, save_documents
from lockbox_node.cli.authority import open_authority
from lockbox_node.cli.publishing import fetch, hand_over
from lockbox_node.cli.signing import Signing
from lockbox_node.config import host_port, load
from tests.test_daemon import PATIENCE_S, ask, events, make_node, running

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real


def until(data: Path, versions: dict[str, int]) -> None:
    """Wait until the daemon goes by these."""
    deadline = time.monotonic() + PATIENCE_S
    while ask(data, "status")["documents"] != versions:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_node_takes_and_gives_documents_and_has_them_after_a_restart(tmp_path: Path) -> None:
    data, ca = make_node(tmp_path, "n01"), tmp_path / "ca"
    root, key = open_authority(ca)
    signing = Signing(ca, root, key)
    host, port = host_port(load(data / "node.toml").node.listen, "")
    with running(data) as daemon:
        daemon.told()
        assert ask(data, "status")["documents"] == {}
        assert trio.run(fetch, root, key, host, port) == []
        trio.run(hand_over, root, key, host, port, signing.signed())
        assert trio.run(fetch, root, key, host, port) == signing.signed()
        until(data, signing.versions())
        deadline = time.monotonic() + PATIENCE_S
        while load_documents(data / "network") != signing.signed():
            assert time.monotonic() < deadline
        signing.set_policy(["healing=off"])
        save_documents(data / "network", signing.signed())
        daemon.process.send_signal(signal.SIGHUP)
        until(data, signing.versions())
        assert ask(data, "status")["repairs"]["enabled"] is False
        assert daemon.end()[0] == 0
    with running(data) as daemon:
        daemon.told()
        assert ask(data, "status")["documents"] == signing.versions()
        assert ask(data, "status")["repairs"]["enabled"] is False
        daemon.end()


def test_a_reload_of_a_bad_document_changes_nothing_and_is_logged(tmp_path: Path) -> None:
    data, other = make_node(tmp_path, "n01"), make_node(tmp_path / "elsewhere", "n01")
    foreign = Signing(other.parent / "ca", *open_authority(other.parent / "ca"))
    with running(data) as daemon:
        daemon.told()
        save_documents(data / "network", foreign.signed())
        daemon.process.send_signal(signal.SIGHUP)
        assert ask(data, "status")["documents"] == {}
        lines = daemon.end()[2]
    assert {"documents.not_reloaded", "identity.renewed"} <= set(events(lines))
