"""One run of one scenario: the nodes start, the scenario plays, the nodes stop, the trace has one hash.

A run fails when the scenario or the product raises, and when the product logged an exception that it survived.
"""

from __future__ import annotations

import importlib
import pkgutil
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import trio

from lockbox_node.config import Config
from simulations import determinism, scenarios
from simulations.cluster import Cluster
from simulations.watching import BrokenInvariant, Watcher
from simulations.world import World

HOUR_S = 3600.0
STOP_S = 120.0  # for all nodes to end in order, however slow their disks
END_S = 10.0  # for what a crashed node still closes, and for the last bytes under way

Play = Callable[[Cluster, float], Awaitable[None]]
"""A scenario: plays on a running cluster for so many virtual seconds, or a little longer."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run."""

    scenario: str
    nodes: int
    seed: int
    hours: float


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it. `failure` is empty when all went well."""

    plan: Plan
    hash: str
    events: int
    virtual_s: float
    real_s: float
    failure: str
    last_events: list[str]


def names() -> list[str]:
    """Every scenario."""
    return sorted(module.name for module in pkgutil.iter_modules(scenarios.__path__))


def named(scenario: str) -> Play:
    """The scenario of that name."""
    play: Play = importlib.import_module(f"{scenarios.__name__}.{scenario}").play
    return play


def config_of(scenario: str) -> Config:
    """What its nodes are told: the CONFIG of its module, else the usual."""
    if scenario not in names():
        return Config()
    config: Config = getattr(importlib.import_module(f"{scenarios.__name__}.{scenario}"), "CONFIG", Config())
    return config


def run(plan: Plan, play: Play, config: Config | None = None) -> Report:
    """Run it in this process; with one trace for one seed if `determinism.fixed_hashes` has started it.

    `config` is what the nodes are told, if not what the scenario of that name says.
    """
    world = World(plan.seed)
    world.listen()
    began = time.perf_counter()  # noqa: TID251  # how fast the simulation is; it has no part in what happens
    failure = ""
    virtual_s = 0.0
    try:
        virtual_s = determinism.run(partial(_run, world, plan, play, config), plan.seed)
    except* BrokenInvariant as group:
        failure = "\n".join(f"broken invariant: {error}" for error in _leaves(group))
    except* Exception:
        failure += traceback.format_exc()
    real_s = time.perf_counter() - began  # noqa: TID251
    failure = failure or "".join(world.defects)
    return Report(plan, world.trace.hash, world.trace.events, virtual_s, real_s, failure, world.trace.last(100))


async def _run(world: World, plan: Plan, play: Play, config: Config | None) -> float:
    cluster = Cluster(world, plan.nodes, config or config_of(plan.scenario))
    watcher = Watcher(cluster)
    async with trio.open_nursery() as nursery:
        await nursery.start(cluster.run)
        await cluster.start_all()
        async with trio.open_nursery() as watched:
            await watched.start(watcher.run)
            await play(cluster, plan.hours * HOUR_S)
            watched.cancel_scope.cancel()
        # A node that does not end is found by the check, and no reason to wait for ever.
        with trio.move_on_after(STOP_S):
            await _stop_all(cluster)
        await trio.sleep(END_S)
        watcher.check_end()
        nursery.cancel_scope.cancel()
    return trio.current_time()


async def _stop_all(cluster: Cluster) -> None:
    async with trio.open_nursery() as ending:
        for host in cluster.living():
            ending.start_soon(cluster.stop, host.name)


def _leaves(group: BaseExceptionGroup[BrokenInvariant]) -> list[BrokenInvariant]:
    found: list[BrokenInvariant] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
