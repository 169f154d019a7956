"""What the suites on real processes share: waiting with an end, and what a network says when it is settled."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.local_network import LocalNetwork

LOOK_S = 0.3
MERGED_S = 30.0


def within(limit_s: float, condition: Callable[[], bool], told: Callable[[], object]) -> float:
    """Seconds until it held; AssertionError with what `told` says when it took longer than `limit_s`."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit_s, told()
        time.sleep(LOOK_S)
    return time.monotonic() - began


def statuses(network: LocalNetwork) -> dict[str, dict[str, Any]]:
    """Name -> what that node says of itself, of those that answer."""
    return {row["name"]: row["status"] for row in network.status() if row.get("status")}


def is_settled(said: Sequence[dict[str, Any]], alive: int) -> bool:
    """Whether all these are ready, see `alive` nodes and nobody in doubt, and agree on all that the root covers."""
    views = {(one["members"]["alive"], one["members"]["suspect"], one["ready"]) for one in said}
    return views == {(alive, 0, True)} and len({one["state_root"] for one in said}) == 1


def until_settled(network: LocalNetwork, nodes: int, limit_s: float = MERGED_S) -> float:
    """Seconds until every one of so many nodes agrees with all others."""

    def settled() -> bool:
        said = list(statuses(network).values())
        return len(said) == nodes and is_settled(said, nodes)

    return within(limit_s, settled, lambda: _views(network))


def until_compared(network: LocalNetwork, names: Sequence[str], limit_s: float = MERGED_S) -> None:
    """Until these have compared what they hold with everybody who lives."""

    def compared() -> bool:
        said = statuses(network)
        return all(said[name]["siblings"]["waiting"] == 0 for name in names)

    within(limit_s, compared, lambda: _views(network))


def readiness(network: LocalNetwork, name: str) -> tuple[int, dict[str, Any]]:
    """What /ready of a node answers: HTTP status and body."""
    url = next(row["http"] for row in network.status() if row["name"] == name)
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


def _views(network: LocalNetwork) -> object:
    return {
        name: (said["members"], said["ready"], said["state_root"][:8], said["siblings"])
        for name, said in statuses(network).items()
    }
