"""The way in: all bootstrap peers at once, the silent ones given up, each reason of a refusal said once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog.testing
import trio

from lockbox_node.core.documents import Rules
from lockbox_node.services.joining import JOIN_TIMEOUT_S, Joining
from tests.fakes.nodes import Member, Town

if TYPE_CHECKING:
    from trio.testing import MockClock

    from lockbox_node.rpc.connection import Connection


@pytest.fixture
def town() -> Town:
    return Town()


async def test_the_first_node_of_a_network_has_nobody_to_ask(town: Town, autojump_clock: MockClock) -> None:
    async with town.asker(town.authority.node(9)) as pool:
        assert Joining(pool, [], _welcome).alone
        assert not Joining(pool, [("node1", 7420)], _welcome).alone


async def test_whoever_answers_is_met_and_the_silent_are_given_up(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    met: list[bytes] = []

    async def welcome(connection: Connection) -> None:
        met.append(connection.peer.id)
        await trio.lowlevel.checkpoint()

    first = Member(town, 1)
    await nursery.start(first.run)
    town.hub.silent.add("node8")
    async with town.asker(town.authority.node(9)) as pool:
        await Joining(pool, [("node7", 7420), ("node8", 7420), ("node1", 7420)], welcome).once()
        assert met == [first.id]
        assert trio.current_time() == pytest.approx(JOIN_TIMEOUT_S)


async def test_a_refusal_is_logged_once_for_each_reason(
    town: Town, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    members = [Member(town, 1), Member(town, 2)]
    asker = town.authority.node(9)
    for member in members:
        await nursery.start(member.run)
        member.pool._dispatcher.rules = Rules(revoked={asker.id: "test"})
    async with town.asker(asker) as pool:
        joining = Joining(pool, [("node1", 7420), ("node2", 7420)], _welcome)
        with structlog.testing.capture_logs() as logs:
            await joining.once()
            await trio.sleep(10)
            await joining.once()
    assert [line["reason"] for line in logs if line["event"] == "join.refused"] == ["REVOKED"]


async def _welcome(_connection: Connection) -> None:
    await trio.lowlevel.checkpoint()
