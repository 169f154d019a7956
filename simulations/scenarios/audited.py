"""Bits flip on disks as in rot, but a scrub would come in weeks: siblings that audit one another find each.

The day of audits is a minute here. Nobody's standing suffers, since who is asked says itself that its part is damaged;
nothing else than audits reads the parts, so as many were found as flipped.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lockbox_node.core.audit import Verdict
from lockbox_node.core.audit_pace import AuditParams
from simulations.scenarios import rot
from simulations.staging import quick_healing

if TYPE_CHECKING:
    from simulations.cluster import Cluster

CONFIG = replace(quick_healing(), audit=AuditParams(period_s=60.0, first_s=5.0, retry_s=3.0, again_s=20.0))


async def play(cluster: Cluster, seconds: float) -> None:
    """Until `seconds` have passed."""
    await rot.play(cluster, seconds)
    rounds = [host.life.node.rounds for host in cluster.living() if host.life is not None]
    assert sum(one.counts[Verdict.CORRUPT] for one in rounds), "nothing was found by an audit"
    blamed = [one for one in rounds if one.standings.all(0.0)]
    assert not blamed, f"{len(blamed)} nodes blame others for what they said themselves"
