"""The verbs of a drain: begun by a word, seen at any time, ended by another; its receipt can be checked elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lockbox_node.errors import LockboxError, UsageError
from lockbox_node.observe.drains import DrainVerbs, drain_said, receipt_said
from lockbox_node.services.draining import DrainFigures
from protocol.certificates import verify_drain
from protocol.messages import Signed
from tests.fakes.memory_store import BreakingStore
from tests.fakes.nodes import Town
from tests.protocol import samples

if TYPE_CHECKING:
    import trio
    from trio.testing import MockClock


def figures(**changes: Any) -> DrainFigures:  # noqa: ANN401  # of any field
    said: dict[str, Any] = {
        "parts": 3, "shard_bytes": 1800, "parts_left": 2, "bytes_left": 1300, "bytes_per_s": 100.4, "left_s": 13.0,
        "stuck": {"INSUFFICIENT_NODES": 2}, "passes_idle": 1, "waiting": "", "receipt": None,
    }  # fmt: skip
    return DrainFigures(**(said | changes))


async def test_a_node_is_drained_by_a_word_and_takes_part_again_by_another(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    node = Town().node(1)
    await nursery.start(node.run)
    verbs = DrainVerbs(node)
    assert await verbs.drain({"action": "progress"}) == {"drain": None}
    said: Any = await verbs.drain({"action": "start"})
    assert said["drain"]["state"] == "running"
    assert node.storage.closed()
    kept = await verbs.resume({"view_only": True})
    assert kept == {"view_trusted": True, "drain_ended": False, "draining": True}
    ended = await verbs.resume({})
    assert ended == {"view_trusted": True, "drain_ended": True, "draining": False}
    assert not node.storage.closed()
    assert await verbs.drain({"action": "progress"}) == {"drain": None}
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("request_", [{}, {"action": "stop"}, {"action": 3}])
async def test_a_word_that_is_none_begins_nothing(request_: dict[str, Any], autojump_clock: MockClock) -> None:
    node = Town().node(1)
    with pytest.raises(UsageError):
        await DrainVerbs(node).drain(request_)
    with pytest.raises(UsageError):
        await DrainVerbs(node).resume({"view_only": "yes"})
    assert not node.draining.active


async def test_a_node_with_a_broken_store_says_why_it_is_not_drained(autojump_clock: MockClock) -> None:
    node = Town().node(1)
    assert isinstance(node.store, BreakingStore)
    node.store.fail("the disk is gone")
    with pytest.raises(LockboxError, match="the disk is gone"):
        await DrainVerbs(node).drain({"action": "start"})


def test_what_is_said_of_a_drain_names_every_figure() -> None:
    assert drain_said(None) is None
    assert drain_said(figures()) == {
        "state": "running", "waiting": "", "parts": 3, "bytes": 1800, "parts_left": 2, "bytes_left": 1300,
        "bytes_per_s": 100, "left_s": 13.0, "stuck": {"INSUFFICIENT_NODES": 2}, "passes_idle": 1, "receipt": None,
    }  # fmt: skip
    waiting, done = drain_said(figures(waiting="doubt")), drain_said(figures(receipt=samples.signed_drain()))
    assert waiting is not None
    assert waiting["state"] == "waiting"
    assert done is not None
    assert done["state"] == "done"


def test_a_receipt_that_was_shown_can_be_checked_elsewhere() -> None:
    said = receipt_said(samples.signed_drain())
    assert (said["parts"], said["bytes"], said["left"]) == (1200, 5_000_000, 0)
    signed = Signed(bytes.fromhex(said["signed"]["body"]), bytes.fromhex(said["signed"]["signature"]))
    assert verify_drain(samples.network(), signed).node.hex() == said["node"]
