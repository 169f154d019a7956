"""Crashes between two steps of a node's tasks."""

from __future__ import annotations

import trio

from simulations import crashing


async def test_it_acts_before_the_wanted_step_of_the_wanted_tasks_and_their_children() -> None:
    done: list[str] = []
    acted: list[int] = []

    async def work(name: str) -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()
            done.append(name)

    async def root(name: str) -> None:
        crashing.mark.set(name)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work, name)
            nursery.start_soon(work, name)

    async with trio.open_nursery() as nursery:
        crashing.at_step("b 1", 4, lambda: acted.append(done.count("b 1")))
        for name in ("a 1", "b 1", "b 2"):
            nursery.start_soon(root, name)
    assert len(acted) == 1
    assert 1 <= acted[0] <= 2  # four steps of two children: each begins, then is done once a step


async def test_what_is_called_off_never_acts() -> None:
    acted: list[int] = []
    crashing.mark.set("a 1")
    call_off = crashing.at_step("a 1", 2, lambda: acted.append(1))
    call_off()
    call_off()
    for _ in range(5):
        await trio.lowlevel.checkpoint()
    assert not acted
