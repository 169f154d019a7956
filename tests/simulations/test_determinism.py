"""One seed gives one trace, in any process: the guard over trio's private names and over chance that is not drawn."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from simulations import determinism

if TYPE_CHECKING:
    from pathlib import Path


def finished(project_root: Path, *arguments: str, hash_seed: str = "random") -> list[str]:
    """The lines of `python -m simulations ARGUMENTS` in a process of its own."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-m", "simulations", *arguments]
    done = subprocess.run(command, cwd=project_root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_two_processes_with_one_seed_do_the_same_and_another_seed_does_not(project_root: Path) -> None:
    churn = ("churn", "--nodes", "20", "--hours", "0.02")
    first, second = (finished(project_root, *churn, "--seed", "1", hash_seed=salt)[-1] for salt in ("1", "2"))
    other = finished(project_root, *churn, "--seed", "2")[-1]
    assert first.startswith("trace ")
    assert first == second != other


def order_of_tasks(seed: int, waste: int = 0) -> list[int]:
    """In which order a hundred tasks run that one Event wakes; trio keeps them in a set, by their address."""
    order: list[int] = []
    elsewhere: list[object] = []

    async def one(number: int, event: trio.Event) -> None:
        await event.wait()
        order.append(number)

    async def main() -> None:
        event = trio.Event()
        async with trio.open_nursery() as nursery:
            for number in range(100):
                elsewhere.append([bytes(1000 * waste)] * waste)
                nursery.start_soon(one, number, event)
            await trio.testing.wait_all_tasks_blocked()
            event.set()

    determinism.run(main, seed)
    return order


def test_the_seed_decides_which_task_runs_first() -> None:
    assert order_of_tasks(1) == order_of_tasks(1, waste=7)
    assert order_of_tasks(1) != order_of_tasks(2)


def test_hours_pass_at_once() -> None:
    async def main() -> float:
        await trio.sleep(3600)
        return trio.current_time()

    assert determinism.run(main, 1) >= 3600
