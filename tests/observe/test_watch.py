"""What operators, probes and Prometheus are told of a running node, and what they may tell it."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.config import Config, NodeSettings
from lockbox_node.core.member_events import Status
from lockbox_node.core.storage_params import StoreParams
from lockbox_node.errors import LockboxError, UsageError
from lockbox_node.observe.watch import AWAIT_PER_NODE_S, AWAIT_TIMEOUT_S, Watch
from lockbox_node.ports import settled
from lockbox_node.services.announcing import NodeState
from protocol.messages import Ping
from tests.fakes.memory_store import BreakingStore
from tests.fakes.nodes import Town

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from trio.testing import MockClock

    from lockbox_node.node import Node

STATUS = {
    "id", "region", "operator", "state", "ready", "version", "software", "members", "connections", "stripes",
    "not_ready", "shards", "corrupt", "pointers", "bytes", "repairs", "certificates", "uptime_s", "trash", "scrub",
    "last_scrub", "clock", "last_backup", "restored", "digest_mismatches", "documents", "revoked", "location",
    "state_root", "siblings", "audits", "copies", "drain",
}  # fmt: skip
LABELS = {"state", "certificate", "kind", "request", "outcome", "cause", "margin", "le", "verdict"}


ROW = {"id", "status", "region", "location", "faults", "operator", "addresses", "state", "software"}


@pytest.fixture
def town() -> Town:
    return Town()


def watch_of(town: Town, node: Node) -> Watch:
    return Watch(node, node.announcer._identity, town.clock.now_unix_s)  # type: ignore[arg-type]


async def told(watch: Watch, verb: str, **arguments: object) -> Mapping[str, Any]:
    answer = await watch.verbs()[verb](arguments)
    assert isinstance(answer, dict)
    return answer


async def started(town: Town, nursery: trio.Nursery, number: int = 1, bootstrap: tuple[int, ...] = ()) -> Node:
    node = town.node(number, bootstrap)
    await nursery.start(node.run)
    return node


async def test_status_has_the_shape_that_people_rely_on(
    town: Town, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    node = await started(town, nursery)
    await started(town, nursery, 2, (1,))
    watch = watch_of(town, node)
    await trio.sleep(12)
    status = await told(watch, "status")
    assert set(status) == STATUS
    assert status["id"] == node.announcer.id.hex()
    assert (status["region"], status["operator"], status["state"]) == ("eu-central-1", "operator 1", "active")
    assert status["ready"] is True
    assert status["members"] == {"alive": 2, "suspect": 0, "dead": 0}
    assert status["connections"] == 1
    assert status["bytes"] == {"logical": 0, "disk": 0, "trash": 0, "reserved": 0}
    assert status["trash"] == 0
    assert set(status["scrub"]) == {"state", "number", "progress", "parts", "bytes", "corrupt", "due_in_s"}
    assert status["scrub"]["state"] == "waiting", "an empty store is scrubbed in no time"
    assert set(status["last_scrub"]) == {"number", "finished", "parts", "bytes", "corrupt"}
    assert status["clock"] == {"trusted": False, "why": "nobody was asked for the time yet"}
    assert status["repairs"] == {
        "done": 0, "failed": 0, "pending": 0, "left_s": 0.0, "moved": 0, "urgent": 0, "let_go": 0, "bytes": 0,
        "by_cause": {"loss": 0, "drain": 0, "damage": 0, "out_of_placement": 0}, "margin_worst": None, "margins": {},
        "short_s": None, "detection_s": None, "enabled": True, "view_trusted": True,
    }  # fmt: skip
    assert set(status["certificates"]) == {"identity_until", "operational_until"}
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", status["certificates"]["identity_until"])
    assert (status["documents"], status["revoked"]) == ({}, False)
    assert status["uptime_s"] == 12.0


async def test_nodes_that_agree_say_one_state_root_and_another_after_a_death(
    town: Town, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    nodes = [await started(town, nursery), await started(town, nursery, 2, (1,)), await started(town, nursery, 3, (1,))]
    watches = [watch_of(town, node) for node in nodes]

    async def roots(count: int) -> set[str]:
        return {(await told(watch, "status"))["state_root"] for watch in watches[:count]}

    await trio.sleep(30)
    (whole,) = await roots(3)
    assert (await told(watches[0], "status"))["siblings"] == {"compared": 2, "waiting": 0, "differing": 0}
    town.cut(3)
    await trio.sleep(15)
    (without,) = await roots(2)
    assert len({whole, without, *await roots(3)}) == 3


async def test_members_are_listed_with_ourselves_by_id(
    town: Town, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    nodes = [await started(town, nursery), await started(town, nursery, 2, (1,)), await started(town, nursery, 3, (1,))]
    watch = watch_of(town, nodes[0])
    await trio.sleep(5)
    town.cut(3)
    await trio.sleep(15)
    rows = (await told(watch, "members"))["members"]
    assert [row["id"] for row in rows] == sorted(node.announcer.id.hex() for node in nodes)
    assert {row["id"]: row["status"] for row in rows} == {
        nodes[0].announcer.id.hex(): "alive",
        nodes[1].announcer.id.hex(): "alive",
        nodes[2].announcer.id.hex(): Status.DEAD.name.lower(),
    }
    assert set(rows[0]) == ROW
    assert (await told(watch, "status"))["members"] == {"alive": 2, "suspect": 0, "dead": 1}


async def test_healing_is_paused_and_resumed_by_the_operators_word(
    town: Town, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    node = await started(town, nursery)
    watch = watch_of(town, node)
    for enabled in (False, True):
        assert await told(watch, "healing", enabled=enabled) == {"enabled": enabled}
        assert node.healing.active is enabled
        assert (await told(watch, "status"))["repairs"]["enabled"] is enabled
    for wrong in ({}, {"enabled": "yes"}, {"enabled": 1}):
        with pytest.raises(UsageError):
            await told(watch, "healing", **wrong)
    assert await told(watch, "resume") == {"view_trusted": True, "drain_ended": False, "draining": False}
    assert (await told(watch, "status"))["drain"] is None


async def test_a_restored_node_is_not_ready_until_it_has_asked_and_says_what_it_found(
    town: Town, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    store = BreakingStore(StoreParams(), town.clock)
    await settled(partial(store.note, "restored", b"x"))
    node = town.node(1, store=store)
    await nursery.start(node.run)
    watch = watch_of(town, node)
    assert not (await told(watch, "status"))["ready"]
    await trio.sleep(60)
    status = await told(watch, "status")
    assert status["ready"]
    assert status["restored"] == {"checked": 0, "dropped": 0, "missing": 0, "mended": 0}
    nursery.cancel_scope.cancel()


async def test_the_scrub_is_started_paused_and_resumed_by_the_operators_word(
    town: Town, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    node = await started(town, nursery)
    watch = watch_of(town, node)
    await trio.sleep(1)
    begun = await told(watch, "scrub", action="start")
    assert begun["scrub"]["number"] == 2
    await trio.sleep(1)
    over = await told(watch, "scrub", action="progress")
    assert (over["scrub"]["state"], over["last_scrub"]["number"], over["healing"]) == ("waiting", 2, True)
    assert (await told(watch, "scrub", action="pause"))["scrub"]["state"] == "paused"
    assert (await told(watch, "status"))["scrub"]["state"] == "paused"
    assert (await told(watch, "scrub", action="resume"))["scrub"]["state"] == "waiting"
    for wrong in ({}, {"action": "run"}, {"action": 1}, {"action": ["start"]}):
        with pytest.raises(UsageError):
            await told(watch, "scrub", **wrong)


async def test_the_clock_is_trusted_once_three_nodes_agree(
    town: Town, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    nodes = [await started(town, nursery), *[await started(town, nursery, number, (1,)) for number in (2, 3, 4)]]
    watch = watch_of(town, nodes[0])
    await trio.sleep(70)
    assert (await told(watch, "status"))["clock"] == {"trusted": True, "why": ""}
    assert "lockbox_clock_trusted 1.0" in watch.pages().metrics().decode()
    town.clock.ahead_s = 7200.0
    await trio.sleep(60)
    assert "jumped by 7200 s" in (await told(watch, "status"))["clock"]["why"]


async def test_await_members_returns_when_all_are_active(
    town: Town, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    first = await started(town, nursery)
    watch = watch_of(town, first)
    second = town.node(2, (1,))
    wanted = [first.announcer.id.hex(), second.announcer.id.hex()]

    async def later() -> None:
        await trio.sleep(20)
        await nursery.start(second.run)

    nursery.start_soon(later)
    assert await told(watch, "await-members", nodes=wanted) == {"alive": 2}
    assert 20 <= trio.current_time() < 25


async def test_await_members_hears_of_our_own_change(
    town: Town, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    node = town.node(1)
    watch = watch_of(town, node)
    nursery.start_soon(node.run)
    assert await told(watch, "await-members", nodes=[node.announcer.id.hex()]) == {"alive": 1}
    assert trio.current_time() < 1


async def test_await_members_counts_who_is_being_drained(
    town: Town, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    node = await started(town, nursery)
    await node.draining.begin()
    assert await told(watch_of(town, node), "await-members", nodes=[node.announcer.id.hex()]) == {"alive": 1}
    assert trio.current_time() < 1


async def test_await_members_gives_up_and_says_how_many_are_missing(
    town: Town, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    watch = watch_of(town, await started(town, nursery))
    with pytest.raises(LockboxError, match="2 of 2"):
        await told(watch, "await-members", nodes=["11" * 32, "22" * 32])
    assert trio.current_time() == pytest.approx(AWAIT_TIMEOUT_S + 2 * AWAIT_PER_NODE_S, abs=1)


@pytest.mark.parametrize("nodes", [None, 3, "11", ["xy"], ["11"], [3]])
async def test_await_members_wants_a_list_of_ids(town: Town, autojump_clock: MockClock, nodes: object) -> None:
    with pytest.raises(UsageError):
        await told(watch_of(town, town.node(1)), "await-members", nodes=nodes)


async def test_a_node_says_why_it_is_not_ready(town: Town, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    node = await started(town, nursery, 1, (9,))
    pages = watch_of(town, node).pages()
    assert pages.not_ready() == ["no other node was reached yet"]
    await started(town, nursery, 9)
    await trio.sleep(10)
    assert pages.not_ready() == []
    assert isinstance(node.store, BreakingStore)
    node.store.fail("the disk is gone")
    papers = node.announcer._identity
    papers.leaf_not_after_unix_s = papers.identity_not_after_unix_s = 0  # type: ignore[attr-defined]
    node.membership.set_state(NodeState.DRAINING)
    town.cut(9)
    await trio.sleep(20)
    assert pages.not_ready() == [
        "every other node that is known is gone",
        "the store is read-only: the disk is gone",
        "the node is draining",
        "the identity certificate has expired",
        "the operational certificate has expired",
    ]


async def test_a_node_that_nobody_reaches_is_not_ready_and_says_at_which_address(
    town: Town, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    seed = await started(town, nursery)
    base = Config(node=NodeSettings(advertise="router:7000"))
    node = town.node(2, (1,), base=base)
    await nursery.start(node.run)
    watch = watch_of(town, node)
    await trio.sleep(5)
    status = await told(watch, "status")
    assert status["ready"] is False
    assert status["not_ready"] == watch.pages().not_ready()
    assert status["not_ready"][0].startswith("nobody answers at router:7000 with this node's key; set node.advertise")
    assert b'lockbox_dial_backs_total{outcome="unreachable"}' in watch_of(town, seed).pages().metrics()
    town.forward("router:7000", 2)
    await trio.sleep(6)
    assert (await told(watch, "status"))["not_ready"] == []


async def test_metrics_have_plain_names_and_no_label_of_an_asset_or_client(
    town: Town, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    node = await started(town, nursery)
    watch = watch_of(town, node)
    client = town.authority.client(1)
    async with town.asker(client) as pool:
        connection = await pool.connect_address("node1", 7420)
        await connection.request(Ping(1))
    page = watch.pages().metrics().decode()
    names = {line.split("{")[0].split(" ")[0] for line in page.splitlines() if not line.startswith("#")}
    assert names
    assert all(name.startswith("lockbox_") for name in names)
    assert 'lockbox_requests_total{outcome="served",request="ping"} 1.0' in page
    assert 'lockbox_members{state="alive"} 1.0' in page
    assert set(re.findall(r"(\w+)=\"", page)) <= LABELS
    for secret in (client.id, node.announcer.id):
        assert secret.hex()[:8] not in page
