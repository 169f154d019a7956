"""Hearsay of deaths: a node that was cut off comes back believing everybody else dead, and nobody takes its word."""

from __future__ import annotations

import random

import pytest

from lockbox_node.core.member_events import (
    Action,
    Declare,
    MemberDead,
    ProbeAnswered,
    ProbeFailed,
    SendProbe,
    Spread,
    Status,
    Tick,
)
from lockbox_node.core.membership import Membership
from protocol.messages import MemberState, MemberUpdate
from tests.fakes.swarm import PARAMS, Swarm, heard, learned, node_id, own_signed

OWN, A, B = node_id(1), node_id(2), node_id(3)
DEAD_A = Declare(MemberDead(A))


@pytest.fixture
def made() -> Membership:
    """The machine of OWN, which knows A and B; its rounds are over for now."""
    machine = Membership(OWN, PARAMS, random.Random(1))
    for event in (own_signed(OWN), learned(A), learned(B)):
        machine.handle(event, 0.0)
    return machine


def said_dead(made: Membership, now: float) -> list[Action]:
    return made.handle(heard(A, Status.DEAD), now)


def test_hearsay_makes_suspect_and_is_probed_at_once(made: Membership) -> None:
    actions = said_dead(made, 0.1)
    assert SendProbe(A, 0.5, (B,), 1.0) in actions
    assert DEAD_A not in actions
    assert made.members[A].status is Status.SUSPECT
    assert A in made.alive()


def test_hearsay_however_often_never_declares_dead(made: Membership) -> None:
    told = [action for step in range(1, 50) for action in said_dead(made, step / 10)]
    assert DEAD_A not in told
    assert made.members[A].since == 0.1, "nor does it prolong the suspicion"


def test_a_failed_probe_of_the_accused_declares_it_dead_at_once_and_once(made: Membership) -> None:
    said_dead(made, 0.1)
    assert DEAD_A in made.handle(ProbeFailed(A), 0.6)
    assert made.members[A].since == 0.6
    assert DEAD_A not in made.handle(ProbeFailed(A), 0.7)
    assert DEAD_A not in said_dead(made, 0.8)


def test_a_suspect_that_is_accused_is_probed_too(made: Membership) -> None:
    made.handle(ProbeFailed(A), 0.1)
    assert SendProbe(A, 1.0, (B,), 1.5) in said_dead(made, 0.2), "which waits longer: the failure may be ours"
    assert made.members[A].since == 0.1
    assert DEAD_A in made.handle(ProbeFailed(A), 0.7)


def test_an_answered_probe_clears_the_accusation_and_tells_the_accused(made: Membership) -> None:
    said_dead(made, 0.1)
    told = Spread((MemberUpdate(MemberState(A, 1, Status.SUSPECT), None),), (A,))
    assert told in made.handle(ProbeAnswered(A, 1), 0.2), "so that it refutes"
    assert DEAD_A not in made.handle(ProbeFailed(A), 1.2)
    assert made.members[A].status is Status.SUSPECT


def test_a_refutation_clears_the_accusation(made: Membership) -> None:
    said_dead(made, 0.1)
    made.handle(learned(A, 2), 0.2)
    assert DEAD_A not in made.handle(ProbeFailed(A), 0.6)
    assert made.members[A].status is Status.SUSPECT


def test_without_any_outcome_time_makes_the_accused_dead(made: Membership) -> None:
    said_dead(made, 0.1)
    assert DEAD_A not in [action for second in range(1, 6) for action in made.handle(Tick(), float(second))]
    assert DEAD_A in made.handle(Tick(), 5.2)


@pytest.mark.parametrize("seed", range(8))
def test_who_was_cut_off_and_returns_takes_nobody_along(seed: int) -> None:
    swarm = Swarm(24, seed)
    swarm.run(10)
    lost = swarm.ids[seed]
    others = set(swarm.ids) - {lost}
    swarm.apart = {lost}
    swarm.run(240)
    assert swarm.machines[lost].alive() == [], "it believes everybody else dead"
    assert all(lost not in swarm.machines[node].alive() for node in others)
    swarm.apart = set()
    swarm.run(90)
    assert swarm.agreed(set(swarm.ids))
    assert {dead for by, dead in swarm.deaths() if by != lost} == {lost}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("killed", [1, 4])
def test_every_survivor_declares_each_death_once_within_15_s_and_no_other(killed: int, seed: int) -> None:
    swarm = Swarm(24, seed)
    swarm.run(10)
    dead = swarm.ids[7 : 7 + killed]
    swarm.stop(dead)
    swarm.run(15)
    survivors = set(swarm.ids) - set(dead)
    assert sorted(swarm.deaths()) == sorted((by, node) for by in survivors for node in dead)
