"""Lookups: examples of every rule, then whole small networks against a plain sort, then liars."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockbox_node.core.lookup import Lookup, LookupParams
from lockbox_node.errors import ConfigError
from protocol.ids import NodeId, distance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Answers = Callable[[NodeId], Sequence[bytes] | None]

ONE = LookupParams(k=3, reply_max=3, candidates_max=9, paths=1)
TARGET = bytes(32)


def node_id(number: int) -> NodeId:
    """At distance `number` from TARGET."""
    return NodeId(number.to_bytes(32, "big"))


def ids(*numbers: int) -> list[NodeId]:
    return [node_id(number) for number in numbers]


def play(lookup: Lookup, answers: Answers, steps_max: int = 10_000) -> list[NodeId]:
    """Answer every query in the order asked; None = no answer."""
    waiting: list[NodeId] = []
    for step in range(steps_max):
        waiting += lookup.next_queries(step * 1e-6)
        if lookup.finished:
            return lookup.result()
        peer = waiting.pop(0)
        reply = answers(peer)
        if reply is None:
            lookup.on_failure(peer)
        else:
            lookup.on_response(peer, reply)
    raise AssertionError("the lookup does not end")


def test_the_window_rolls_and_the_nearest_are_asked_first() -> None:
    lookup = Lookup(TARGET, b"", ids(90, 60, 80, 70), LookupParams(k=4, paths=1), 0.0)
    assert lookup.next_queries(0.0) == ids(60, 70, 80)
    assert lookup.next_queries(0.0) == [], "three are in flight"
    lookup.on_response(node_id(70), ids(5))
    assert lookup.next_queries(0.0) == ids(5), "one returned, the next starts at once"


def test_it_ends_when_the_k_nearest_have_answered() -> None:
    lookup = Lookup(TARGET, b"", ids(1, 2, 3, 4, 5), ONE, 0.0)
    asked: list[NodeId] = []

    def answers(peer: NodeId) -> list[NodeId]:
        asked.append(peer)
        return ids(9)

    assert play(lookup, answers) == ids(1, 2, 3)
    assert asked == ids(1, 2, 3)


def test_who_failed_is_neither_asked_again_nor_returned_and_the_next_takes_its_place() -> None:
    lookup = Lookup(TARGET, b"", ids(1, 2, 3, 4), ONE, 0.0)
    asked: list[NodeId] = []

    def answers(peer: NodeId) -> list[NodeId] | None:
        asked.append(peer)
        return None if peer == node_id(1) else ids(1)

    assert play(lookup, answers) == ids(2, 3, 4)
    assert asked.count(node_id(1)) == 1


def test_a_slow_peer_leaves_the_window_and_may_still_answer() -> None:
    lookup = Lookup(TARGET, b"", ids(1, 2, 3, 4), LookupParams(k=4, alpha=1, paths=1, slow_s=0.5), 0.0)
    assert lookup.next_queries(0.0) == ids(1)
    assert lookup.next_deadline() == 0.5
    assert lookup.next_queries(0.5) == ids(2)
    assert lookup.next_deadline() == 1.0, "what has passed is no deadline"
    lookup.on_response(node_id(1), [])
    lookup.on_response(node_id(2), [])
    assert lookup.next_queries(0.6) == ids(3)
    lookup.on_response(node_id(3), [])
    assert lookup.next_queries(0.6) == ids(4)
    lookup.on_response(node_id(4), [])
    assert lookup.next_queries(0.7) == []
    assert lookup.finished
    assert lookup.result() == ids(1, 2, 3, 4)


def test_a_silent_peer_fails_and_its_late_answer_is_not_taken() -> None:
    lookup = Lookup(TARGET, b"", ids(1), LookupParams(paths=1, query_timeout_s=3.0), 0.0)
    lookup.next_queries(0.0)
    assert lookup.next_queries(3.0) == []
    assert lookup.finished
    lookup.on_response(node_id(1), ids(2))
    assert lookup.result() == []


def test_to_wait_for_every_deadline_ends() -> None:
    lookup = Lookup(TARGET, b"", ids(*range(1, 60)), LookupParams(messages_max=10), 0.0)
    now, waits = 0.0, 0
    while lookup.next_queries(now) or not lookup.finished:
        assert lookup.next_deadline() > now
        now, waits = lookup.next_deadline(), waits + 1
    assert (lookup.result(), lookup.messages) == ([], 10)
    assert waits <= 2 * 10 + 1


def test_the_time_is_bounded_and_what_answered_counts() -> None:
    lookup = Lookup(TARGET, b"", ids(1, 2), LookupParams(paths=1, timeout_s=5.0), 0.0)
    lookup.next_queries(0.0)
    lookup.on_response(node_id(2), [])
    assert lookup.next_queries(5.0) == []
    assert lookup.finished
    assert lookup.result() == ids(2)


def test_nobody_known_is_no_result() -> None:
    lookup = Lookup(TARGET, b"", [], ONE, 0.0)
    assert lookup.next_queries(0.0) == []
    assert lookup.finished
    assert (lookup.result(), lookup.hops, lookup.messages) == ([], 0, 0)


def test_no_peer_is_asked_by_two_paths_and_each_answer_stays_in_its_own() -> None:
    lookup = Lookup(TARGET, b"", ids(10, 11), LookupParams(k=2, candidates_max=2, alpha=2, paths=2), 0.0)
    assert lookup.next_queries(0.0) == ids(10, 11)
    lookup.on_response(node_id(10), ids(1, 2))
    lookup.on_response(node_id(11), ids(1, 5))
    first = lookup.next_queries(0.0)
    assert sorted(first) == ids(1, 5), "one path takes 1, the other goes on to its own next"
    for peer in first:
        lookup.on_response(peer, [])
    assert lookup.next_queries(0.0) == ids(2)


def test_a_liar_ends_its_own_path_alone() -> None:
    liars, honest = ids(1, 2, 3), ids(4, 5, 6)

    def answers(peer: NodeId) -> list[NodeId]:
        if peer in (node_id(50), *liars):
            return liars
        return honest

    one = play(Lookup(TARGET, b"", ids(50, 51), ONE, 0.0), answers)
    both = LookupParams(k=6, candidates_max=6, paths=2)
    two = play(Lookup(TARGET, b"", ids(50, 51), both, 0.0), answers)
    assert not set(one) & set(honest), "with one path the three nearest are the liars"
    assert set(honest) <= set(two)


def test_hops_are_bounded_and_told() -> None:
    lookup = Lookup(TARGET, b"", ids(1000), LookupParams(k=1, candidates_max=1, paths=1, hops_max=5), 0.0)
    assert play(lookup, lambda peer: [node_id(int.from_bytes(peer, "big") - 1)]) == ids(996)
    assert lookup.hops == 5


def test_messages_are_bounded_when_one_always_offers_nearer_ids() -> None:
    params = LookupParams(messages_max=30, hops_max=1000)
    lookup = Lookup(TARGET, b"", ids(2**200), params, 0.0)
    number = 2**200

    def answers(_peer: NodeId) -> list[NodeId]:
        nonlocal number
        number -= 20
        return [node_id(number + one) for one in range(20)]

    assert len(play(lookup, answers)) == 20
    assert lookup.messages == 30


def test_of_thousands_of_contacts_the_first_are_read() -> None:
    lookup = Lookup(TARGET, b"", ids(10**6), ONE, 0.0)
    asked: list[NodeId] = []

    def answers(peer: NodeId) -> list[NodeId]:
        asked.append(peer)
        return ids(*range(5000, 0, -1)) if peer == node_id(10**6) else []

    assert play(lookup, answers) == ids(4998, 4999, 5000)
    assert asked == ids(10**6, 4998, 4999, 5000)


def test_a_peer_that_answers_with_itself_and_with_us_ends_it() -> None:
    own = node_id(7)
    lookup = Lookup(TARGET, own, ids(5, 7), ONE, 0.0)
    assert play(lookup, lambda peer: [peer] * 50 + [own] * 50) == ids(5)
    assert lookup.messages == 1


@pytest.mark.parametrize("bad", [b"", b"\x01", bytes(20), bytes(31), bytes(33), bytes(20_000)])
def test_ids_of_another_length_are_left_out(bad: bytes) -> None:
    lookup = Lookup(TARGET, b"", [bad, *ids(5)], ONE, 0.0)
    assert play(lookup, lambda _peer: [bad, *ids(6)]) == ids(5, 6)
    lookup.on_response(bad, ids(1))
    lookup.on_failure(bad)
    assert not lookup.wants(bad, node_id(1))


def test_who_was_not_asked_changes_nothing() -> None:
    lookup = Lookup(TARGET, b"", ids(5), ONE, 0.0)
    lookup.next_queries(0.0)
    lookup.on_response(node_id(9), ids(1))
    lookup.on_failure(node_id(9))
    lookup.on_response(node_id(5), [])
    lookup.on_response(node_id(5), ids(1))
    assert play(lookup, lambda _peer: []) == ids(5)


def test_only_what_would_change_something_is_wanted() -> None:
    lookup = Lookup(TARGET, b"", ids(5, 6), LookupParams(k=2, candidates_max=2, paths=1), 0.0)
    lookup.next_queries(0.0)
    assert lookup.wants(node_id(5), node_id(1))
    assert not lookup.wants(node_id(5), node_id(6)), "known"
    assert not lookup.wants(node_id(5), node_id(7)), "farther than all that are kept"
    assert not lookup.wants(node_id(1), node_id(2)), "1 was not asked"
    lookup.on_failure(node_id(6))
    assert not lookup.wants(node_id(5), node_id(6)), "failed"


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 60), dead=st.integers(0, 20), paths=st.integers(1, 4))
def test_it_finds_exactly_the_nearest_living_whoever_is_dead(seed: int, count: int, dead: int, paths: int) -> None:
    """Everybody knows everybody here: what is lost would be lost by the lookup itself."""
    rng = random.Random(seed)
    nodes = [NodeId(rng.randbytes(32)) for _ in range(count)]
    gone, target = set(nodes[1 : 1 + dead]), rng.randbytes(32)
    order = sorted(nodes, key=lambda node: distance(node, target))
    params = LookupParams(k=30, candidates_max=60)
    lookup = Lookup(target, b"", rng.sample(nodes, min(3, count)) + nodes[:1], params, 0.0, paths=paths)
    found = play(lookup, lambda peer: None if peer in gone else order[:30])
    living = [node for node in order[:30] if node not in gone]
    assert [node for node in found if node in order[:30]] == living
    assert not gone & set(found)
    assert lookup.messages <= params.messages_max


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), data=st.data())
def test_any_replies_end_within_the_limits(seed: int, data: st.DataObject) -> None:
    rng = random.Random(seed)
    kind = data.draw(st.sampled_from(["nothing", "garbage", "itself", "invented", "mixed"]))
    params = LookupParams(messages_max=20, timeout_s=15.0)

    def answers(peer: NodeId) -> list[bytes] | None:
        match rng.choice(["nothing", "garbage", "itself", "invented"]) if kind == "mixed" else kind:
            case "nothing":
                return None
            case "garbage":
                return [rng.randbytes(rng.randrange(80)) for _ in range(200)]
            case "itself":
                return [peer] * 128
        return [rng.randbytes(32) for _ in range(2000)]

    seeds = [NodeId(rng.randbytes(32)) for _ in range(30)]
    lookup = Lookup(rng.randbytes(32), b"", seeds, params, 0.0, paths=rng.choice([1, 2, 4]))
    found = play(lookup, answers)
    assert len(found) <= params.k
    assert lookup.messages <= 20


@pytest.mark.parametrize(
    "fields",
    [
        {"k": 0},
        {"reply_max": 0},
        {"reply_max": 129},
        {"alpha": 0},
        {"hops_max": 0},
        {"messages_max": 0},
        {"paths": 0},
        {"retry_paths": 0},
        {"candidates_max": 19},
        {"slow_s": 0.0},
        {"query_timeout_s": 0.1},
        {"timeout_s": 1.0},
    ],
)
def test_params_that_make_no_sense_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="lookup"):
        LookupParams(**fields)  # type: ignore[arg-type]


def test_the_candidates_of_a_path_are_bounded() -> None:
    lookup = Lookup(TARGET, b"", ids(10, 11), LookupParams(k=2, candidates_max=2, paths=1), 0.0)
    lookup.next_queries(0.0)
    lookup.on_response(node_id(10), ids(1, 2))
    assert not lookup.wants(node_id(11), node_id(5)), "two that are nearer are all that is kept"
