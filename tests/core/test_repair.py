"""Repair: health of a stripe, whose turn it is, the table with new holders, and the guard."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockbox_node.core.repair import (
    Guard,
    GuardParams,
    RepairParams,
    believable,
    current_indices,
    due_at,
    health,
    is_named,
    last_index,
    line_of,
    possible,
    siblings_of,
    table_with,
    tellable,
    urgency,
)
from lockbox_node.core.tiers import BASIC, ELITE, TIERS, Tier
from lockbox_node.errors import ConfigError
from protocol.ids import NodeId
from protocol.messages import ENTRIES_MAX, NO_INDEX, SEQUENCE_MAX, HolderEntry


def node_id(number: int) -> NodeId:
    """Number = the distance from the address of the stripes here."""
    return NodeId(number.to_bytes(32, "big"))


@dataclass(frozen=True)
class Held:
    """A stripe held here."""

    address: bytes
    index: int
    corrupt: bool
    entries: list[HolderEntry]


def held(*nodes: int, index: int = 0, corrupt: bool = False) -> Held:
    """Shard i at nodes[i]."""
    entries = [HolderEntry(i, node_id(number), 1) for i, number in enumerate(nodes)]
    return Held(bytes(32), index, corrupt, entries)


def ids(*numbers: int) -> set[NodeId]:
    return {node_id(number) for number in numbers}


def test_a_whole_stripe_is_not_short() -> None:
    seen = health(held(5, 4, 3, 2, 1), BASIC, ids(1, 2, 3, 4), node_id(5))
    assert not seen.short
    assert seen.margin == 2
    assert seen.rank == 4
    assert seen.live == {4: (node_id(1),), 3: (node_id(2),), 2: (node_id(3),), 1: (node_id(4),), 0: (node_id(5),)}


def test_dead_holders_leave_their_indices_missing() -> None:
    seen = health(held(5, 4, 3, 2, 1), BASIC, ids(2, 4), node_id(5))
    assert seen.short
    assert seen.missing == (2, 4)
    assert seen.margin == 0
    assert seen.rank == 2
    assert sorted(seen.holders()) == sorted(ids(2, 4, 5))


def test_our_own_corrupt_part_is_missing_but_we_keep_our_rank() -> None:
    seen = health(held(1, 2, 3, 4, 5, corrupt=True), BASIC, ids(2, 3, 4, 5), node_id(1))
    assert seen.missing == (0,)
    assert seen.rank == 0
    assert node_id(1) not in seen.holders()


def test_a_second_holder_of_an_index_stands_in_for_a_dead_one() -> None:
    stripe = held(1, 2, 3, 4, 5)
    stripe.entries.append(HolderEntry(4, node_id(9), 2))
    assert not health(stripe, BASIC, ids(2, 3, 4, 9), node_id(1)).short
    assert health(stripe, BASIC, ids(2, 3, 4, 5, 9), node_id(1)).live[4] == (node_id(5), node_id(9))


def test_of_several_lines_about_a_node_the_newest_counts() -> None:
    stripe = held(1, 2, 3, 4, 5)
    stripe.entries.insert(0, HolderEntry(4, node_id(2), 2))
    seen = health(stripe, BASIC, ids(2, 3, 4), node_id(1))
    assert seen.missing == (1,)
    assert seen.live[4] == (node_id(2),)


def test_an_index_beyond_n_counts_for_nothing() -> None:
    stripe = held(1, 2, 3, 4, 5)
    stripe.entries.append(HolderEntry(7, node_id(6), 1))
    seen = health(stripe, BASIC, ids(2, 3, 4, 5, 6), node_id(1))
    assert seen.margin == 2
    assert 7 not in seen.live


def test_the_nearest_holder_acts_first_and_the_others_one_by_one() -> None:
    assert [due_at(100, rank, 30, 1) for rank in range(4)] == [130, 145, 160, 175]


@pytest.mark.parametrize("margin", [0, -1])
def test_what_bears_no_further_loss_waits_only_for_the_guard_and_for_those_before(margin: int) -> None:
    assert [due_at(100, rank, 30, margin) for rank in range(4)] == [115, 122.5, 130, 137.5]
    assert due_at(100, 0, 300, margin) == 115
    assert due_at(100, 0, 3, margin) == 103, "never later than the hold-off asks"


def test_least_margin_comes_first_then_the_higher_tier() -> None:
    stripe = held(1, 2, 3, 4, 5)
    two_left = health(stripe, BASIC, ids(2), node_id(1))
    four_left = health(stripe, BASIC, ids(2, 3, 4), node_id(1))
    keys = [urgency(stripe, tier, seen) for tier, seen in [(BASIC, four_left), (ELITE, four_left), (BASIC, two_left)]]
    assert sorted(keys) == [keys[2], keys[1], keys[0]]


def lines(table: list[HolderEntry]) -> list[tuple[int, int, int]]:
    return [(entry.index, entry.node[-1], entry.sequence) for entry in table]


def test_new_holders_outrank_the_lines_before_them() -> None:
    table = table_with(held(1, 2, 3).entries, ids(1, 2), {2: node_id(9)})
    assert lines(table) == [(0, 1, 1), (1, 2, 1), (2, 3, 1), (2, 9, 2)]
    assert lines(table_with(table, ids(1, 2, 9), {2: node_id(9)})) == [(0, 1, 1), (1, 2, 1), (2, 3, 1), (2, 9, 3)]
    assert table_with([], ids(), {0: node_id(1)}) == [HolderEntry(0, node_id(1), 1)]


def test_who_says_that_it_holds_nothing_is_told_to_nobody_until_it_holds_again() -> None:
    entries = [*held(1, 2).entries, HolderEntry(NO_INDEX, node_id(2), 2)]
    assert lines(tellable(entries)) == [(0, 1, 1)]
    again = table_with(entries, ids(1, 2), {1: node_id(2)})
    assert (1, 2, 3) in lines(tellable(again))
    seen = health(Held(bytes(32), 0, False, entries), BASIC, ids(2), node_id(1))
    assert 1 in seen.missing


def test_a_full_table_loses_the_oldest_lines_of_the_dead() -> None:
    entries = [HolderEntry(number % 5, node_id(number + 1), number) for number in range(ENTRIES_MAX)]
    table = table_with(entries, ids(1, 2), {0: node_id(9999)})
    assert len(table) == ENTRIES_MAX
    gone = {entry.node for entry in entries} - {entry.node for entry in table}
    assert gone == {node_id(3)}


@given(st.sampled_from(TIERS), st.data())
def test_health_counts_what_lives(tier: Tier, data: st.DataObject) -> None:
    stripe = held(*range(1, tier.n + 1))
    alive = data.draw(st.sets(st.integers(2, tier.n)))
    seen = health(stripe, tier, ids(*alive), node_id(1))
    assert len(seen.missing) + len(seen.live) == tier.n
    assert seen.margin == len(alive) + 1 - tier.k
    assert seen.rank == 0


def test_overrides_replace_the_times_of_the_tier() -> None:
    assert RepairParams().hold_off(ELITE) == 30
    assert RepairParams().sweep(ELITE) == 60
    quick = RepairParams(hold_off_s=1, sweep_s=2)
    assert (quick.hold_off(ELITE), quick.sweep(ELITE)) == (1, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [("in_flight_max", 0), ("bytes_per_s", 0), ("hold_off_s", -1), ("sweep_s", 0), ("request_timeout_s", math.inf)],
)
def test_repair_params_that_cannot_work_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        RepairParams(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"), [("window_s", 0), ("health_max", -1), ("lost_share", 0), ("lost_share", 1), ("quiet_s", -1)]
)
def test_guard_params_that_cannot_work_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        GuardParams(**{name: value})  # type: ignore[arg-type]


EVERYBODY = ids(*range(1, 25))
GUARD = GuardParams(window_s=60, quiet_s=300)


def guard() -> Guard:
    made = Guard(GUARD)
    made.observe(EVERYBODY, 0)
    return made


def test_losing_thirty_percent_is_no_ground_for_doubt_and_one_more_is() -> None:
    made = Guard(GUARD)
    made.observe(ids(*range(1, 11)), 0)
    made.observe(ids(*range(1, 8)), 1)
    assert made.trusted
    made.observe(ids(*range(1, 7)), 2)
    assert not made.trusted


def test_a_node_that_is_slow_or_cut_off_itself_trusts_no_view_until_it_is_well() -> None:
    guard, nodes = Guard(GuardParams(health_max=2)), [NodeId(bytes([number]) * 32) for number in range(10)]
    trusted = []
    for now, doubt in enumerate([2, 3, 0]):
        guard.observe(nodes, now, doubt)
        trusted.append(guard.trusted)
    assert trusted == [True, False, True]


def test_slow_losses_are_no_ground_for_doubt() -> None:
    made = guard()
    for step in range(1, 20):
        made.observe(ids(*range(1, 25 - step)), 61.0 * step)
        assert made.trusted


def test_doubt_ends_after_a_quiet_time_with_more_than_half() -> None:
    made = guard()
    made.observe(ids(*range(1, 16)), 10)
    assert not made.trusted
    made.observe(ids(*range(1, 16)), 309)
    assert not made.trusted
    made.observe(ids(*range(1, 16)), 310)
    assert made.trusted


def test_every_further_loss_starts_the_quiet_time_again() -> None:
    made = guard()
    made.observe(ids(*range(1, 16)), 10)
    made.observe(ids(*range(1, 15)), 200)
    made.observe(ids(*range(1, 15)), 499)
    assert not made.trusted
    made.observe(ids(*range(1, 15)), 500)
    assert made.trusted


def test_half_or_less_waits_for_the_word_of_the_operator() -> None:
    made = guard()
    half = ids(*range(1, 13))
    trust = []
    for now in (10, 10_000):
        made.observe(half, now)
        trust.append(made.trusted)
    made.resume()
    made.observe(half, 10_001)
    assert [*trust, made.trusted] == [False, False, True]


def test_newcomers_do_not_make_up_a_majority() -> None:
    made = guard()
    made.observe(ids(*range(1, 13)) | ids(*range(100, 200)), 10)
    made.resume()
    made.observe(ids(*range(1, 13)), 11)
    assert not made.trusted
    made.observe(ids(*range(1, 13)) | ids(*range(300, 400)), 10_000)
    assert not made.trusted


def test_the_return_of_the_lost_ends_doubt_after_the_quiet_time() -> None:
    made = guard()
    made.observe(ids(1, 2), 10)
    made.observe(EVERYBODY, 20)
    assert not made.trusted
    made.observe(EVERYBODY, 319)
    assert not made.trusted
    made.observe(EVERYBODY, 320)
    assert made.trusted


def test_a_minority_that_hears_the_others_again_waits_for_a_quiet_time_before_it_judges() -> None:
    made = guard()
    made.observe(ids(*range(1, 11)), 10)
    made.observe(ids(*range(1, 11)), 10_000)
    made.observe(ids(*range(1, 14)), 10_001)
    assert not made.trusted, "those that it does not hear yet are not dead: they come back one by one"
    made.observe(ids(*range(1, 12)), 10_100)
    made.observe(EVERYBODY, 10_101)
    made.observe(EVERYBODY, 10_400)
    assert not made.trusted, "it was a minority in between"
    made.observe(EVERYBODY, 10_401)
    assert made.trusted


def test_a_loss_that_came_back_within_the_window_is_no_loss() -> None:
    made = guard()
    for step in range(10):
        made.observe(EVERYBODY - ids(step + 1), step)
    assert made.trusted


def test_a_failing_holder_gives_no_margin_but_is_asked_last() -> None:
    stripe = held(1, 2, 3, 4, 5, index=2)
    seen = health(stripe, BASIC, ids(1, 2, 3, 4, 5), node_id(3), failing=ids(1, 3))
    assert seen.missing == (0,)
    assert seen.margin == 1
    assert seen.rank == 1, "the failing one is no steward; we are, whatever others say of us"
    assert seen.going == {0: (node_id(1),)}
    assert seen.sources()[-1] == (0, node_id(1))
    assert len(seen.sources()) == 5


def test_what_a_node_said_of_its_losses_is_not_handed_on() -> None:
    lost = [HolderEntry(2, node_id(1), 1), HolderEntry(NO_INDEX, node_id(1), 3)]
    other, back = HolderEntry(0, node_id(2), 5), HolderEntry(2, node_id(1), 6)
    assert tellable([*lost, other]) == [other]
    assert tellable([*lost, other, back]) == [lost[0], other, back]
    assert believable([*lost, other], node_id(2)) == [lost[0], other]
    assert believable([*lost, other], node_id(1)) == [*lost, other]
    assert last_index(lost, node_id(1)) == 2
    assert last_index(lost, node_id(2)) is None


def test_the_newest_line_says_whether_a_table_names_a_node() -> None:
    entries = [HolderEntry(2, node_id(1), 1), HolderEntry(NO_INDEX, node_id(1), 3), HolderEntry(0, node_id(2), 5)]
    assert not is_named(entries, node_id(1))
    assert is_named(entries, node_id(2))
    assert not is_named(entries, node_id(3))
    assert siblings_of(entries, node_id(2)) == []
    back = line_of(entries, node_id(1), 2)
    assert back.sequence == 6
    assert is_named([*entries, back], node_id(1))
    assert siblings_of([*entries, back], node_id(2)) == [node_id(1)]


def test_a_line_with_an_index_that_the_stripe_has_not_overrules_nothing() -> None:
    lines = [HolderEntry(4, bytes([1] * 32), 3), HolderEntry(NO_INDEX, bytes([2] * 32), 1)]
    assert possible([*lines, HolderEntry(10, bytes([1] * 32), 9), HolderEntry(254, bytes([3] * 32), 9)], 10) == lines


def test_of_two_equally_new_lines_the_one_counts_that_only_the_node_can_have_said() -> None:
    lines = [HolderEntry(3, node_id(1), SEQUENCE_MAX), HolderEntry(NO_INDEX, node_id(1), SEQUENCE_MAX)]
    for entries in (lines, lines[::-1]):
        assert current_indices(entries) == {node_id(1): NO_INDEX}
        assert not is_named(entries, node_id(1))
