"""Latency and the faults of networks, as two peers see them. What every Network does is in tests/contracts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.errors import PeerUnreachable
from simulations.network import DIAL_TIMEOUT_S

if TYPE_CHECKING:
    from tests.simulations.conftest import Sea


async def test_a_message_takes_its_time_and_a_dial_two_round_trips(sea: Sea) -> None:
    async with sea.serving("far"):
        began = trio.current_time()
        stream = await sea.dialled("east", "far")
        took_s = trio.current_time() - began
        assert 4 * 0.11 < took_s < 4 * 0.2  # Ashburn to Sydney: 15,700 km
        await stream.send_all(b"hello")
        await trio.sleep(0.1)
        assert sea.heard["far"] == []
        await trio.sleep(0.1)
        assert sea.heard["far"] == [b"hello"]


async def test_a_partition_is_silent_and_afterwards_everything_arrives_in_order(sea: Sea) -> None:
    async with sea.serving("west"):
        stream = await sea.dialled("east", "west")
        await stream.send_all(b"before ")
        await trio.sleep(1)
        await stream.send_all(b"under way ")
        heal = sea.hub.partition(["east"], ["west", "far"])
        await stream.send_all(b"during ")
        await stream.aclose()
        await trio.sleep(1000)
        assert sea.heard["west"] == [b"before "]
        assert sea.ends == []
        heal()
        await trio.sleep(1)
        assert b"".join(sea.heard["west"]) == b"before under way during "
        assert sea.ends == ["closed"]


async def test_a_one_way_partition_lets_the_other_way_pass(sea: Sea) -> None:
    async with sea.serving("west"):
        stream = await sea.dialled("east", "west")
        await stream.send_all(b"hello")
        await trio.sleep(1)
        sea.hub.partition(["west"], ["east"], one_way=True)
        await stream.send_all(b"again")
        await sea.accepted[0].send_all(b"answer")
        await trio.sleep(10)
        assert sea.heard["west"] == [b"hello", b"again"]
        with trio.move_on_after(100) as waited:
            await stream.receive_into(memoryview(bytearray(10)))
        assert waited.cancelled_caught
        with pytest.raises(PeerUnreachable, match="did not answer"):  # a dial needs both ways
            await sea.dialled("east", "west")


async def test_a_way_is_free_when_the_last_partition_across_it_has_healed(sea: Sea) -> None:
    async with sea.serving("west"):
        stream = await sea.dialled("east", "west")
        first = sea.hub.partition(["east"], ["west"])
        second = sea.hub.partition(["east", "far"], ["west"])
        await stream.send_all(b"hello")
        first()
        first()  # healing twice is healing once
        await trio.sleep(10)
        assert sea.heard["west"] == []
        second()
        await trio.sleep(10)
        assert sea.heard["west"] == [b"hello"]


async def test_a_dial_into_a_partition_hangs_until_its_timeout_or_the_healing(sea: Sea) -> None:
    async with sea.serving("west"):
        heal = sea.hub.partition(["east"], ["west"])
        began = trio.current_time()
        with pytest.raises(PeerUnreachable, match="did not answer within 5 s"):
            await sea.dialled("east", "west")
        assert trio.current_time() - began == pytest.approx(DIAL_TIMEOUT_S)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sea.dialled, "east", "west")
            await trio.sleep(2)
            heal()


async def test_a_killed_process_breaks_its_streams_behind_its_last_byte_and_dials_nobody(sea: Sea) -> None:
    async with sea.serving("west"):
        dialler = sea.network("east")
        stream = await dialler.dial("west", 7420)
        await stream.send_all(b"last words")
        sea.hub.kill(dialler)
        await trio.sleep(1)
        assert sea.heard["west"] == [b"last words"]
        assert sea.ends == ["the connection broke"]
        with pytest.raises(PeerUnreachable, match="did not answer"):
            await dialler.dial("west", 7420)  # nothing comes from a dead process
        assert len(sea.accepted) == 1
    assert not sea.hub.links


async def test_a_killed_server_refuses_and_its_next_life_serves(sea: Sea) -> None:
    async with sea.serving("west") as network:
        await sea.dialled("east", "west")
        sea.hub.kill(network)
        with pytest.raises(PeerUnreachable, match="refused"):
            await sea.dialled("east", "west")
        async with sea.serving("west"):
            stream = await sea.dialled("east", "west")
            await stream.send_all(b"hello again")
            await trio.sleep(1)
    assert sea.heard["west"] == [b"hello again"]


async def test_without_power_a_host_says_nothing_until_it_is_back_and_hears_of_its_old_streams(sea: Sea) -> None:
    async with sea.serving("west") as network:
        stream = await sea.dialled("east", "west")
        quiet = await sea.dialled("far", "west")
        sea.hub.power_off(network)
        await stream.send_all(b"anybody there?")
        with trio.move_on_after(1000) as waited:
            await stream.receive_into(memoryview(bytearray(10)))
        assert waited.cancelled_caught
        with pytest.raises(PeerUnreachable, match="did not answer"):
            await sea.dialled("east", "west")
        sea.hub.power_on("west")
        with pytest.raises(PeerUnreachable, match="broke"):
            await stream.receive_into(memoryview(bytearray(10)))
        with trio.move_on_after(1000) as waited:
            await quiet.receive_into(memoryview(bytearray(10)))
        assert waited.cancelled_caught  # who says nothing learns nothing
        await quiet.send_all(b"anybody there?")
        with pytest.raises(PeerUnreachable, match="broke"):
            await quiet.receive_into(memoryview(bytearray(10)))


async def test_connections_break_at_both_ends_or_go_silent(sea: Sea) -> None:
    rng = sea.world.rng("weather")
    async with sea.serving("west"):
        await sea.dialled("east", "west")
        await trio.sleep(1)
        assert sea.hub.break_some(rng, 5) == 1
        await trio.sleep(1)
        assert sea.ends == ["the connection broke"]
        silent = await sea.dialled("east", "west")
        await trio.sleep(1)
        assert sea.hub.break_some(rng, 1, silently=True) == 1
        await silent.send_all(b"hello")
        await trio.sleep(1000)
        assert sea.ends == ["the connection broke"]
        assert sea.heard["west"] == []


async def test_no_closed_stream_is_kept(sea: Sea) -> None:
    async with sea.serving("west"):
        for _ in range(3):
            stream = await sea.dialled("east", "west")
            assert len(sea.hub.links) == 1
            await stream.aclose()
            await trio.sleep(1)
            assert not sea.hub.links


async def test_the_trace_holds_every_byte(sea: Sea) -> None:
    async def trace_of(said: bytes) -> str:
        async with sea.serving("west"):
            stream = await sea.dialled("east", "west")
            await stream.send_all(said)
            await trio.sleep(1)
        return sea.world.trace.last(1)[0].split(maxsplit=1)[1]

    assert await trace_of(b"hello") == "bytes east west 5 907060870"
    assert await trace_of(b"hellp") != await trace_of(b"hello")
