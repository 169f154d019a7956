"""What a node says of its audits, and what the operator may ask of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from lockbox_node.core.audit import Verdict
from lockbox_node.core.audit_findings import Turn
from lockbox_node.errors import UsageError
from lockbox_node.observe.audits import audit_verb, audit_work, audits_said, pass_said
from protocol.ids import NodeId
from tests.fakes.hamlet import Hamlet

if TYPE_CHECKING:
    from trio.testing import MockClock

LIAR, SLOW = (NodeId(bytes([number]) * 32) for number in (1, 2))


async def test_a_node_names_who_has_faults_the_worst_first_and_no_part(autojump_clock: MockClock) -> None:
    hamlet = Hamlet()
    async with hamlet.running(1, 2, 3):
        rounds = hamlet.nodes[1].rounds
        neighbour = hamlet.ids[2]
        for node, verdict, times in ((SLOW, Verdict.SILENT, 1), (neighbour, Verdict.CORRUPT, 3)):
            for _ in range(times):
                rounds.standings.denied(node, verdict, trio.current_time())
        key = (b"address", b"hash", neighbour)
        assert rounds.findings.take(key, Verdict.CORRUPT, trio.current_time()) is Turn.FOUND
        said = audits_said(rounds)
        assert said == {
            "state": "on",
            "period_s": 86_400.0,
            "held": 0,
            "missing": 0,
            "corrupt": 0,
            "silent": 0,
            "skipped": 0,
            "findings": 1,
            "faults": [
                {"node": neighbour.hex(), "faults": 3.0, "excluded": True},
                {"node": SLOW.hex(), "faults": 0.25, "excluded": False},
            ],
        }
        work = audit_work(rounds)
        assert (work.findings, work.blamed, work.excluded) == (1, 2, 1)


async def test_the_operator_starts_a_round_and_hears_how_it_went(autojump_clock: MockClock) -> None:
    hamlet = Hamlet()
    async with hamlet.running(1, 2, 3):
        rounds = hamlet.nodes[1].rounds
        assert pass_said(rounds)["number"] == 0
        begun: Any = await audit_verb(rounds, {"action": "start"})
        assert begun["pass"]["number"] == 1
        await trio.sleep(1)
        over: Any = await audit_verb(rounds, {"action": "progress"})
        assert over["pass"] == {
            "number": 1, "running": False, "parts": 0, "cut": False, "held": 0, "missing": 0, "corrupt": 0, "silent": 0,
        }  # fmt: skip
        assert over["audits"]["state"] == "on"
        for wrong in ({}, {"action": "stop"}, {"action": 1}):
            with pytest.raises(UsageError):
                await audit_verb(rounds, wrong)
