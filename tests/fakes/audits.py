"""What tests of audits between siblings look at in a cluster: verdicts, findings, faults, who challenged when."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import trio

from lockbox_node.core.audit_pace import AuditParams
from lockbox_node.core.repair import current_indices
from protocol.messages import Prove

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.core.audit import Verdict
    from lockbox_node.ports import StripePart
    from protocol.ids import NodeId
    from tests.fakes.healing_cluster import Cluster

PERIOD_S = 100.0
AUDIT = AuditParams(period_s=PERIOD_S, first_s=0.0, audits_per_s=50, retry_s=2, again_s=8)
ROUND_S = PERIOD_S + 3  # a whole round, and the answers to it


def said(cluster: Cluster) -> Counter[Verdict]:
    """All verdicts of all judges."""
    return sum((rounds.counts for rounds in cluster.rounds.values()), Counter())


def faults_of(cluster: Cluster, node: NodeId) -> float:
    """What all judges together hold against a node."""
    return sum(rounds.standings.faults(node, trio.current_time()) for rounds in cluster.rounds.values())


def found(cluster: Cluster) -> int:
    """Findings that stand."""
    return sum(len(rounds.findings) for rounds in cluster.rounds.values())


def challenges(cluster: Cluster) -> list[tuple[float, bytes]]:
    """When, and by whom."""
    return [(when, asker) for when, asker, message in cluster.requests if isinstance(message, Prove)]


async def until(reached: Callable[[], bool]) -> None:
    """Look every 0.1 s, for at most three rounds."""
    with trio.fail_after(3 * ROUND_S):
        while not reached():  # noqa: ASYNC110  # nobody tells
            await trio.sleep(0.1)


async def whole_without(cluster: Cluster, part: StripePart, ward: NodeId) -> bool:
    """Whether every index stands, whole, at somebody other than the ward, by the table of a holder."""
    steward = next(node for node in cluster.nearest_first(part) if node != ward)
    table = (await cluster.part_at(steward, part)).entries
    others = [(node, index) for node, index in current_indices(table).items() if node != ward]
    assert all([(await cluster.part_at(node, part)).index == index for node, index in others])
    return {index for _, index in others} == set(range(10))
