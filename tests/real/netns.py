"""Network namespaces on one bridge, and nft rules that cut them apart; root only.

Each namespace is one machine: its own stack, addresses, timers. The rules stand on the bridge, where a switch would be.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PACKAGES = {"ip": "iproute2", "nft": "nftables"}
INSTALL_TIMEOUT_S = 300
BRIDGE, TABLE = "lbbr", "lbpart"
SUBNET = "10.99.0"
OURS = f"{SUBNET}.254"  # of the namespace that the tests run in


def require_tools() -> None:
    """ip and nft, installed from Debian if they are missing. Skips without root; with root what is missing fails."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for network namespaces")
    missing = [package for tool, package in PACKAGES.items() if shutil.which(tool) is None]
    if missing:
        quiet = {"capture_output": True, "text": True, "timeout": INSTALL_TIMEOUT_S, "check": False}
        subprocess.run(["apt-get", "update"], **quiet)  # type: ignore[call-overload]
        done = subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", *missing], **quiet)  # type: ignore[call-overload]
        if any(shutil.which(tool) is None for tool in PACKAGES):
            pytest.fail(f"apt-get install {' '.join(missing)} did not work: {done.stderr[-500:]}")


def address_of(number: int) -> str:
    """Of the only interface of namespace `number`."""
    return f"{SUBNET}.{number}"


def inside(number: int) -> list[str]:
    """What a command is prefixed with to run in namespace `number`."""
    return ["ip", "netns", "exec", name_of(number)]


@contextmanager
def namespaces(count: int) -> Iterator[None]:
    """Namespaces 1 to `count` on one bridge, which we are on too; removed at the end."""
    _remove(count)  # what an earlier run left when it was killed
    try:
        _ip(f"link add {BRIDGE} type bridge")
        _ip(f"addr add {OURS}/24 dev {BRIDGE}")
        _ip(f"link set {BRIDGE} up")
        for number in range(1, count + 1):
            name, ours = name_of(number), f"lbv{number}"
            _ip(f"netns add {name}")
            _ip(f"link add {ours} type veth peer name eth0 netns {name}")
            _ip(f"link set {ours} master {BRIDGE} up")
            _ip(f"-n {name} addr add {address_of(number)}/24 dev eth0")
            _ip(f"-n {name} link set eth0 up")
            _ip(f"-n {name} link set lo up")
        yield
    finally:
        _remove(count)


def part(a: Sequence[int], b: Sequence[int]) -> None:
    """No packet passes between the namespaces of `a` and those of `b` any more."""
    sides = [", ".join(address_of(number) for number in side) for side in (a, b)]
    rules = [f"ip saddr {{ {x} }} ip daddr {{ {y} }} drop" for x, y in (sides, sides[::-1])]
    lines = [f"table bridge {TABLE} {{", "chain f {", "type filter hook forward priority 0;", *rules, "}", "}"]
    subprocess.run(["nft", "-f", "-"], input="\n".join(lines) + "\n", text=True, check=True)


def heal() -> None:
    """All packets pass."""
    subprocess.run(["nft", "delete", "table", "bridge", TABLE], check=True)


def name_of(number: int) -> str:
    """Of namespace `number`, as ip knows it."""
    return f"lb{number}"


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


def _remove(count: int) -> None:
    """Whatever of it there is."""
    for words in (
        ["nft", "delete", "table", "bridge", TABLE],
        # A namespace dies later than its name, and would keep its end of the link until then.
        *(["ip", "link", "delete", f"lbv{number}"] for number in range(1, count + 1)),
        *(["ip", "netns", "delete", name_of(number)] for number in range(1, count + 1)),
        ["ip", "link", "delete", BRIDGE],
    ):
        subprocess.run(words, check=False, capture_output=True)
