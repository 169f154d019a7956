"""Liars about their place by the hundred: all honest nodes stay in, and whoever stands near others is found out."""

from __future__ import annotations

import pytest

from lockbox_node.core.location import quorum
from simulations.liars import Places


@pytest.mark.parametrize("seed", range(1, 11))
@pytest.mark.parametrize("count", [10, 20, 45])
def test_a_fifth_of_colluding_liars_gets_no_honest_node_out(count: int, seed: int) -> None:
    places = Places(count, seed)
    honest = {actor.node for actor in places.honest()}
    caught = 0
    for actor in [None, *places.honest()]:
        found = places.verdict(actor)
        assert not found.doubted
        assert honest.isdisjoint(found.refuted)
        if actor is not None:
            assert places.sees_through(actor) <= found.refuted.keys()
            caught += len(found.refuted)
    displaced = [actor for actor in places.actors.values() if actor.displaced]
    assert caught or not any(places.sees_through(actor) for actor in places.honest()) or not displaced


@pytest.mark.parametrize("seed", range(1, 4))
def test_in_a_large_network_the_nearest_bear_witness_and_liars_among_them_are_too_few(seed: int) -> None:
    places = Places(300, seed)
    honest = {actor.node for actor in places.honest()}
    judges = [None, *places.honest()[:20]]
    assert all(honest.isdisjoint(places.verdict(actor).refuted) for actor in judges)


@pytest.mark.parametrize("seed", range(1, 6))
def test_delay_alone_refutes_nobody(seed: int) -> None:
    places = Places(30, seed, liars=0.0, delayed=0.7)
    assert all(places.verdict(actor).refuted == {} for actor in [None, *places.honest()])


def test_who_is_near_many_is_refuted_for_everybody() -> None:
    """A liar is refuted for all when more than a fifth of the nodes are near enough to know it."""
    for seed in range(1, 11):
        places = Places(30, seed, displaced=1.0)
        refuted = places.verdict(None).refuted
        for liar in [actor for actor in places.actors.values() if actor.displaced]:
            seen_by = [one for one in places.honest() if liar.node in places.sees_through(one)]
            assert (liar.node in refuted) == (len(seen_by) >= quorum(29, 29))


def test_without_the_rule_of_a_fifth_they_would_frame_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain rule of three witnesses does not hold against a fifth of twenty: this is what the sum is for."""
    monkeypatch.setattr("lockbox_node.core.location.quorum", lambda _voters, _of: 3)
    framed = 0
    for seed in range(1, 6):
        places = Places(20, seed, displaced=0.0)
        honest = {actor.node for actor in places.honest()}
        framed += len(honest & places.verdict(None).refuted.keys())
    assert framed
