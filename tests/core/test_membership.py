"""Membership: precedence and limits by example, then 24 machines over a heap with virtual time."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest

from lockbox_node.core.member_events import (
    Action,
    Barred,
    ConnectionLost,
    Declare,
    HeardFrom,
    MemberAlive,
    MemberDead,
    ProbeAnswered,
    ProbeFailed,
    PushPull,
    Refute,
    SendProbe,
    Spread,
    Status,
    Tick,
    TwinMet,
    Yield,
)
from lockbox_node.core.member_params import MembershipParams
from lockbox_node.core.membership import Membership
from protocol.messages import MemberState, MemberUpdate
from tests.fakes.swarm import PARAMS, Swarm, heard, learned, node_id, own_signed, record_of

if TYPE_CHECKING:
    from protocol.ids import NodeId

OWN, A, B = node_id(1), node_id(2), node_id(3)


def machine(*nodes: NodeId, params: MembershipParams = PARAMS) -> Membership:
    """A machine of OWN at time 0 that knows `nodes`."""
    made = Membership(OWN, params, random.Random(1))
    made.handle(own_signed(OWN), 0.0)
    for node in nodes:
        made.handle(learned(node), 0.0)
    return made


def bury(made: Membership, node: NodeId, now: float) -> list[Action]:
    """Make `node` dead in the eyes of `made`: it is said to be, and our own probe of it fails."""
    made.handle(heard(node, Status.DEAD), now)
    return made.handle(ProbeFailed(node), now)


def of(kind: type[Action], actions: list[Action]) -> list[Action]:
    return [action for action in actions if isinstance(action, kind)]


def test_a_new_record_is_declared_and_an_equal_or_older_one_is_not() -> None:
    made = machine()
    assert Declare(MemberAlive(A)) in made.handle(learned(A, 5), 0.0)
    assert not of(Declare, made.handle(learned(A, 5), 0.0))
    assert not of(Declare, made.handle(learned(A, 4), 0.0))
    assert made.members[A].incarnation == 5
    assert Declare(MemberAlive(A)) in made.handle(learned(A, 6), 0.0)


def test_within_one_incarnation_dead_beats_suspect_beats_alive() -> None:
    made = machine(A)
    made.handle(heard(A, Status.SUSPECT), 0.1)
    assert made.members[A].status is Status.SUSPECT
    made.handle(heard(A, Status.ALIVE), 0.1)
    assert made.members[A].status is Status.SUSPECT
    assert Declare(MemberDead(A)) in bury(made, A, 0.1)
    made.handle(heard(A, Status.SUSPECT), 0.1)
    assert made.members[A].status is Status.DEAD
    assert A not in made.alive()


def test_a_newer_record_revives_the_dead_and_clears_suspicion() -> None:
    made = machine(A, B)
    bury(made, A, 0.1)
    made.handle(heard(B, Status.SUSPECT), 0.1)
    assert Declare(MemberAlive(A)) in made.handle(learned(A, 2), 0.2)
    made.handle(learned(B, 2), 0.2)
    assert [made.members[node].status for node in (A, B)] == [Status.ALIVE, Status.ALIVE]
    assert made.alive() == [A, B]


@pytest.mark.parametrize("incarnation", [0, 2, 2**63 - 1])
def test_nobody_can_speak_for_an_incarnation_that_was_not_signed(incarnation: int) -> None:
    made = machine(A)
    made.handle(heard(A, Status.DEAD, incarnation), 0.1)
    assert made.members[A].status is Status.ALIVE
    assert not of(Refute, made.handle(heard(OWN, Status.DEAD, incarnation), 0.1))


def test_a_rumour_about_an_unknown_node_is_ignored() -> None:
    made = machine()
    made.handle(heard(A, Status.DEAD), 0.1)
    assert A not in made.members


def test_a_failed_probe_makes_suspect_tells_the_suspect_and_time_makes_dead() -> None:
    made = machine(A, B)
    actions = made.handle(ProbeFailed(A), 0.1)
    told = Spread((MemberUpdate(MemberState(A, 1, Status.SUSPECT), None),), (A,))
    assert told in actions
    assert not of(Declare, actions)
    for second in range(1, 6):
        assert not of(Declare, made.handle(Tick(), float(second)))
    assert not of(Declare, made.handle(ProbeFailed(A), 5.05))
    assert of(Declare, made.handle(Tick(), 5.2)) == [Declare(MemberDead(A))]
    assert made.members[A].since == 5.2


def test_suspicion_of_ourselves_is_refuted_once_for_each_incarnation() -> None:
    made = machine(A)
    assert Refute(2) in made.handle(heard(OWN, Status.SUSPECT), 0.1)
    assert not of(Refute, made.handle(heard(OWN, Status.DEAD), 0.1))
    assert not of(Refute, made.handle(heard(OWN, Status.ALIVE), 0.1))
    made.handle(own_signed(OWN, 9), 0.2)
    assert not of(Refute, made.handle(heard(OWN, Status.SUSPECT, 1), 0.3))
    assert Refute(10) in made.handle(heard(OWN, Status.DEAD, 9), 0.3)


def test_a_newer_record_of_our_own_from_an_earlier_life_is_outdone() -> None:
    made = machine(A)
    assert Refute(78) in made.handle(learned(OWN, 77), 0.1)
    assert not of(Refute, made.handle(learned(OWN, 1), 0.1))
    assert OWN not in made.members


def test_a_later_life_of_ourselves_is_yielded_to_once_it_answers() -> None:
    made = machine(A)
    assert Refute(78) in made.handle(learned(OWN, 77, epoch=2), 0.1)
    assert not of(Refute, made.handle(learned(OWN, 77, epoch=2), 0.1))  # heard again, before we have signed
    made.handle(own_signed(OWN, 78), 0.2)
    assert of(Yield, made.handle(learned(OWN, 79, epoch=2), 0.3)) == [Yield(2)]


def test_a_later_life_of_ourselves_that_is_met_is_yielded_to_at_once_and_an_earlier_one_is_not() -> None:
    made = machine(A)
    assert not of(Yield, made.handle(TwinMet(record_of(OWN, 77, epoch=0)), 0.1))
    assert of(Yield, made.handle(TwinMet(record_of(OWN, 0, epoch=2)), 0.2)) == [Yield(2)]
    assert OWN not in made.members


def test_a_newer_record_of_our_own_is_wanted() -> None:
    made = machine(A)
    assert made.compare([MemberState(OWN, 1, 0)]).wanted == []
    assert made.compare([MemberState(OWN, 2, 0)]).wanted == [OWN]
    assert Membership(OWN, PARAMS, random.Random(1)).compare([MemberState(OWN, 2, 0)]).wanted == []


def test_who_speaks_to_us_while_believed_gone_is_told_at_most_once_a_second() -> None:
    made = machine(A, B)
    bury(made, A, 0.1)
    about_a = Spread((MemberUpdate(MemberState(A, 1, Status.DEAD), None),), (A,))
    assert about_a in made.handle(HeardFrom(A), 0.2)
    assert about_a not in made.handle(HeardFrom(A), 0.3)
    assert about_a in made.handle(ProbeAnswered(A, 1), 1.3)
    assert not of(PushPull, made.handle(HeardFrom(B), 0.4))


def test_a_probe_that_shows_a_newer_incarnation_asks_for_the_record() -> None:
    made = machine(A)
    assert PushPull(A) in made.handle(ProbeAnswered(A, 2), 0.1)
    assert PushPull(A) not in made.handle(ProbeAnswered(A, 1), 0.2)
    assert made.handle(ProbeAnswered(B, 2), 0.2) == made.handle(ProbeFailed(B), 0.2) == []


def test_neighbours_are_probed_in_turn_once_a_second() -> None:
    nodes = [node_id(number) for number in range(2, 40)]
    made = machine(*nodes)
    assert made.neighbours() == sorted(nodes, key=lambda node: int.from_bytes(node, "big") ^ 1)[:16]
    probed = []
    for second in range(1, 17):
        probes = of(SendProbe, made.handle(Tick(), float(second)))
        assert len(probes) == 1
        probed += [probe.node for probe in probes if isinstance(probe, SendProbe)]
    assert sorted(probed) == sorted(made.neighbours())


def test_one_probe_at_a_time_goes_to_a_node_until_its_outcome_is_overdue() -> None:
    made = machine(A)
    assert SendProbe(A, 0.5, (), 1.0) in made.handle(ConnectionLost(A), 0.1)
    assert not of(SendProbe, made.handle(ConnectionLost(A), 3.0))
    assert SendProbe(A, 0.5, (), 1.0) in made.handle(ConnectionLost(A), 3.2)
    bury(made, A, 3.3)
    assert not of(SendProbe, made.handle(ConnectionLost(A), 9.0))
    assert not of(SendProbe, made.handle(ConnectionLost(B), 9.0))


def test_rumours_stop_after_enough_transmissions() -> None:
    made = machine(A, B)
    sent = 0
    for step in range(1, 100):
        for action in made.handle(Tick(), step / 10):
            if isinstance(action, Spread):
                sent += sum(update.state.node == A for update in action.updates) * len(action.targets)
                assert len(action.targets) == 2
    assert PARAMS.transmissions(3) <= sent < PARAMS.transmissions(3) + 2


def test_one_message_holds_a_bounded_number_of_rumours_the_freshest_first() -> None:
    made = machine(*(node_id(number) for number in range(2, 100)), params=MembershipParams(updates_max=5))
    for step in range(1, 30):
        for action in made.handle(Tick(), step / 2):
            if isinstance(action, Spread):
                assert len(action.updates) <= 5
    bury(made, A, 14.9)
    (spread,) = of(Spread, made.handle(Tick(), 15.2))
    assert isinstance(spread, Spread)
    assert spread.updates[0].state == MemberState(A, 1, Status.DEAD)


def test_alone_there_is_nobody_to_probe_or_tell() -> None:
    made = machine()
    assert made.handle(Tick(), 1.0) == []
    assert made.handle(Tick(), 40.0) == []
    assert made.next_deadline() < math.inf


def test_push_pull_goes_to_the_living_and_to_the_dead_and_the_long_dead_are_forgotten() -> None:
    made = machine(A, B)
    bury(made, B, 0.1)
    pulled = [action for second in range(1, 31) for action in of(PushPull, made.handle(Tick(), float(second)))]
    assert pulled == [PushPull(A), PushPull(B)]
    assert made.handle(Tick(), 86_500.0).count(PushPull(A)) == 1
    assert B not in made.members


def test_the_table_is_bounded_and_the_dead_go_first() -> None:
    made = machine(A, B, params=MembershipParams(members_max=2))
    made.handle(learned(node_id(4)), 0.1)
    assert list(made.members) == [A, B]
    bury(made, A, 0.2)
    made.handle(learned(node_id(4)), 0.3)
    assert list(made.members) == [B, node_id(4)]


def test_after_a_stall_of_our_own_suspicions_start_again_and_tables_are_exchanged() -> None:
    made = machine(A, B)
    made.handle(ProbeFailed(A), 0.1)
    actions = made.handle(Tick(), 100.0)
    assert not of(Declare, actions)
    assert of(PushPull, actions)
    assert of(Declare, made.handle(Tick(), 101.0)) == []
    assert not of(Declare, made.handle(Tick(), 102.9))
    for second in (103.0, 104.0):
        assert not of(Declare, made.handle(Tick(), second))
    assert of(Declare, made.handle(Tick(), 105.0)) == [Declare(MemberDead(A))]


def test_compare_names_what_either_side_lacks() -> None:
    made = machine(A, B, node_id(4), node_id(5))
    made.handle(learned(B, 7), 0.1)
    made.handle(heard(node_id(4), Status.SUSPECT), 0.1)
    bury(made, node_id(5), 0.1)
    known = [MemberState(B, 6, 0), MemberState(node_id(4), 1, 0), MemberState(A, 9, 0), MemberState(node_id(8), 1, 0)]
    reply = made.compare(known)
    assert [(one.state.node, one.state.status, one.record is None) for one in reply.updates] == [
        (OWN, 0, False),
        (B, 0, False),
        (node_id(4), 1, True),
    ]
    assert reply.wanted == [A, node_id(8)]
    assert not reply.more


def test_a_stranger_that_is_dead_to_others_is_not_wanted_since_its_record_would_make_it_live() -> None:
    made = machine(A)
    assert made.compare([MemberState(B, 4, Status.DEAD), MemberState(A, 9, Status.DEAD)]).wanted == [A]
    assert made.compare([MemberState(B, 4, Status.SUSPECT)]).wanted == [B]


def test_compare_pages_by_id() -> None:
    made = machine(*(node_id(number) for number in range(2, 12)))
    first = made.compare([], limit=4)
    second = made.compare([], after=first.updates[-1].state.node, limit=4)
    third = made.compare([], after=second.updates[-1].state.node, limit=4)
    nodes = [update.state.node for reply in (first, second, third) for update in reply.updates]
    assert nodes == [node_id(number) for number in range(1, 12)]
    assert [reply.more for reply in (first, second, third)] == [True, True, False]


def test_known_and_updates_of_include_ourselves() -> None:
    made = machine(A)
    assert made.known() == [MemberState(OWN, 1, 0), MemberState(A, 1, 0)]
    assert [update.state.node for update in made.updates_of([A, B, OWN])] == [A, OWN]
    silent = Membership(OWN, PARAMS, random.Random(1))
    assert silent.known() == []
    assert silent.compare([MemberState(OWN, 1, 0)]).updates == []
    assert silent.updates_of([OWN]) == []
    assert not of(Refute, silent.handle(heard(OWN, Status.DEAD), 0.0))
    assert not of(Refute, silent.handle(learned(OWN, 9), 0.0))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("killed", [1, 4, 6])
def test_survivors_of_24_agree_on_the_dead_within_15_s(killed: int, seed: int) -> None:
    swarm = Swarm(24, seed)
    swarm.run(10)
    assert swarm.agreed(set(swarm.ids)), "everybody knows everybody"
    assert not [event for _, _, event in swarm.declared if isinstance(event, MemberDead)]
    dead = swarm.ids[5 : 5 + killed]
    swarm.stop(dead)
    swarm.run(15)
    assert swarm.agreed(set(swarm.ids) - set(dead))


@pytest.mark.parametrize("seed", range(5))
def test_a_stopped_and_continued_node_refutes_and_is_alive_again_everywhere(seed: int) -> None:
    swarm = Swarm(24, seed)
    swarm.run(10)
    sleeper = swarm.ids[3]
    swarm.stop([sleeper])
    swarm.run(40)
    assert swarm.agreed(set(swarm.ids) - {sleeper})
    deaths = len([event for _, _, event in swarm.declared if isinstance(event, MemberDead)])
    swarm.resume(sleeper)
    swarm.run(10)
    assert swarm.agreed(set(swarm.ids))
    assert swarm.sequence[sleeper] > 1
    later = [event for _, _, event in swarm.declared if isinstance(event, MemberDead)]
    assert len(later) == deaths, "the sleeper declared nobody dead when it woke"


def test_a_short_stop_kills_nobody() -> None:
    swarm = Swarm(24, 1)
    swarm.run(10)
    swarm.stop([swarm.ids[3]])
    swarm.run(3)
    swarm.resume(swarm.ids[3])
    swarm.run(10)
    assert swarm.agreed(set(swarm.ids))
    assert not [event for _, _, event in swarm.declared if isinstance(event, MemberDead)]


def test_a_link_that_breaks_between_two_of_many_kills_nobody() -> None:
    swarm = Swarm(24, 3)
    swarm.run(40)
    for node in swarm.ids:
        neighbour = swarm.machines[node].neighbours()[0]
        swarm.broken.add((node, neighbour))
    swarm.run(60)
    assert swarm.deaths() == []
    assert swarm.agreed(set(swarm.ids))


def test_a_node_that_hears_nobody_asks_less_often() -> None:
    swarm = Swarm(24, 4)
    swarm.run(40)
    swarm.apart = {swarm.ids[0]}
    swarm.run(6)
    lonely, others = swarm.machines[swarm.ids[0]], [swarm.machines[node] for node in swarm.ids[1:]]
    assert lonely.health > max(other.health for other in others)
    swarm.apart = set()
    swarm.run(120)
    assert lonely.health == 0
    assert swarm.agreed(set(swarm.ids))


def test_a_quiet_network_gossips_nothing() -> None:
    swarm = Swarm(24, 2)
    swarm.run(60)
    assert all(not made._rumours for made in swarm.machines.values())


def test_a_barred_member_is_dead_at_once_and_stays_so_whatever_it_signs() -> None:
    made = machine(A, B)
    assert of(Declare, made.handle(Barred(frozenset({A})), 1.0)) == [Declare(MemberDead(A))]
    assert made.alive() == [B]
    assert not of(Declare, made.handle(learned(A, 99), 2.0))
    assert made.members[A].status is Status.DEAD
    assert not of(Declare, made.handle(Barred(frozenset({A})), 3.0)), "it is dead already"


def test_a_barred_stranger_never_becomes_a_member_and_is_one_when_it_is_no_longer_barred() -> None:
    made = machine(B)
    made.handle(Barred(frozenset({A})), 0.0)
    made.handle(learned(A, 5), 1.0)
    assert A not in made.members
    made.handle(Barred(frozenset()), 2.0)
    assert of(Declare, made.handle(learned(A, 5), 3.0)) == [Declare(MemberAlive(A))]


def test_nobody_exchanges_tables_with_the_barred() -> None:
    made = machine(A)
    made.handle(Barred(frozenset({A})), 0.0)
    actions = [action for now in range(1, 200) for action in made.handle(Tick(), float(now))]
    assert not of(PushPull, actions)
    assert not of(SendProbe, actions)
