"""The unit file: what systemd must keep from the daemon, and what it must grant."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

HARDENING = {
    "AmbientCapabilities": "",
    "CapabilityBoundingSet": "",
    "DevicePolicy": "closed",
    "LimitCORE": "0",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "MemorySwapMax": "0",
    "NoNewPrivileges": "yes",
    "PrivateDevices": "yes",
    "PrivateIPC": "yes",
    "PrivateTmp": "yes",
    "PrivateUsers": "yes",
    "ProcSubset": "pid",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHome": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectProc": "invisible",
    "ProtectSystem": "strict",
    "RemoveIPC": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "SystemCallArchitectures": "native",
    "UMask": "0077",
}


@pytest.fixture
def service(project_root: Path) -> dict[str, list[str]]:
    """The lines of [Service]: key -> values in order."""
    lines: dict[str, list[str]] = defaultdict(list)
    section = ""
    for line in (project_root / "systemd" / "lockbox-node.service").read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line and not line.startswith("#"):
            key, _, value = line.partition("=")
            lines[key].append(value)
    return lines


@pytest.mark.parametrize(("key", "value"), HARDENING.items())
def test_the_daemon_is_kept_from_what_it_does_not_need(service: dict[str, list[str]], key: str, value: str) -> None:
    assert service[key] == [value]


def test_only_calls_of_a_plain_service_are_allowed(service: dict[str, list[str]]) -> None:
    allowed, denied = service["SystemCallFilter"]
    assert allowed == "@system-service"
    assert set(denied.removeprefix("~").split()) >= {"@privileged", "@resources", "@mount", "@debug", "@obsolete"}


def test_it_runs_as_its_own_user_and_writes_to_its_state_only(service: dict[str, list[str]]) -> None:
    assert service["User"] == ["lockbox"]
    assert (service["StateDirectory"], service["StateDirectoryMode"]) == (["lockbox"], ["0700"])
    assert "ReadWritePaths" not in service


def test_systemd_hears_of_readiness_and_starts_again_but_not_on_a_bad_configuration(
    service: dict[str, list[str]],
) -> None:
    assert service["Type"] == ["notify"]
    assert (service["Restart"], service["RestartPreventExitStatus"]) == (["on-failure"], ["4 78"])
    assert service["ExecStart"] == ["/opt/lockbox/.venv/bin/lockbox-node run --config /var/lib/lockbox/node.toml"]


def test_there_is_room_for_every_connection(service: dict[str, list[str]]) -> None:
    assert int(service["LimitNOFILE"][0]) >= 4 * 512
