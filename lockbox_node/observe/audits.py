"""What a node says of its audits: how far they are, what they found, whom it would give nothing new; and the verb.

Nodes are named, assets never: which parts failed is between the holders of a stripe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from lockbox_node.core.audit import Verdict
from lockbox_node.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lockbox_node.services.audit_rounds import AuditRounds


@dataclass(frozen=True, slots=True)
class AuditWork:
    """For metrics: what was done since the start, and what stands."""

    verdicts: Mapping[str, int]  # challenges by what was shown
    skipped: int
    overflow: int
    proof_bytes: int
    findings: int
    blamed: int  # nodes with faults
    excluded: int


def audit_work(rounds: AuditRounds) -> AuditWork:
    """The present values."""
    return AuditWork(
        {verdict.value: rounds.counts[verdict] for verdict in Verdict},
        rounds.skipped,
        rounds.overflow,
        rounds.proof_bytes,
        len(rounds.findings),
        len(rounds.standings.all(trio.current_time())),
        len(rounds.excluded()),
    )


def audits_said(rounds: AuditRounds) -> dict[str, object]:
    """The part of `status`: where they stand, and the nodes with faults, the worst first."""
    work, excluded = audit_work(rounds), rounds.excluded()
    faults = sorted(rounds.standings.all(trio.current_time()).items(), key=lambda item: (-item[1], item[0]))
    return {
        "state": rounds.word,
        "period_s": rounds.params.period_s,
        **work.verdicts,
        "skipped": work.skipped,
        "findings": work.findings,
        "faults": [
            {"node": node.hex(), "faults": round(weight, 3), "excluded": node in excluded} for node, weight in faults
        ],
    }


def pass_said(rounds: AuditRounds) -> dict[str, object]:
    """The round that the operator asked for last: its number is 0 when there was none."""
    last = rounds.last
    verdicts = {verdict.value: last.counts[verdict] for verdict in Verdict}
    return {"number": last.number, "running": last.running, "parts": last.parts, "cut": last.cut, **verdicts}


async def audit_verb(rounds: AuditRounds, request: dict[str, Any]) -> object:
    """`action`: start or progress; the answer says where the round stands then."""
    match request.get("action"):
        case "start":
            rounds.start_now()
        case "progress":
            pass
        case _:
            raise UsageError("audit needs action = start or progress")
    await trio.lowlevel.checkpoint()
    return {"pass": pass_said(rounds), "audits": audits_said(rounds)}
