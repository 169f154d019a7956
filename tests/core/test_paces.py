"""What one holder serves to one requester of one address within a minute, and what it remembers of it."""

from __future__ import annotations

import pytest

from lockbox_node.core import paces
from lockbox_node.core.paces import Paces, unlocks_max
from lockbox_node.core.spent import SERVED_HERE, Use
from lockbox_node.core.tiers import BASIC, ELITE, STANDARD, TIERS, Tier
from tests.fakes.stripes import bytes_of

ADDRESS, OTHER = bytes_of("address"), bytes_of("other")
ME, YOU = b"me", b"you"


def use(pair: object = "pair", owner: bytes = b"c" * 8) -> Use:
    return Use(SERVED_HERE, 0, 0.0, b"", bytes_of(pair)[:16], owner)


def proofs(
    one: Paces, count: int, who: bytes = ME, at: float = 0.0, *, claimed: bool = True, guest: bool = False
) -> int:
    """How many of `count` proofs are given."""
    waits = [one.proof(ADDRESS, who, at, claimed=claimed, guest=guest) for _ in range(count)]
    return waits.count(0.0)


@pytest.mark.parametrize("tier", TIERS, ids=[tier.name for tier in TIERS])
def test_a_holder_serves_as_often_as_honest_verifiers_let_anybody(tier: Tier) -> None:
    one = Paces()
    waits = [one.shards(use(), tier, float(second)) for second in range(20)]
    assert waits.count(0.0) == unlocks_max(tier) == (6 if tier is ELITE else 7)
    assert waits[unlocks_max(tier)] == pytest.approx(60 - unlocks_max(tier))
    assert one.shards(use("another"), tier, 20.0) == 0
    assert one.shards(use(), tier, 60.0) == 0


@pytest.mark.parametrize("tier", [BASIC, ELITE])
def test_what_an_earlier_life_served_counts_whatever_its_tier(tier: Tier) -> None:
    one = Paces()
    for second in range(4):
        one.recall(use(), float(second))
    assert [one.shards(use(), tier, 10.0) for _ in range(9)].count(0.0) == unlocks_max(tier) - 4


def test_proofs_for_a_claim_and_for_siblings_have_their_bounds() -> None:
    one = Paces()
    assert proofs(one, 99) == 30
    assert proofs(one, 99, YOU) == 30
    assert proofs(one, 99, claimed=False) == 60
    assert proofs(one, 9, at=59.9) == 0
    assert proofs(one, 99, at=60.0) == 30
    assert one.proof(OTHER, ME, 60.0, claimed=True, guest=False) == 0


def test_a_refusal_says_when_to_come_again() -> None:
    one = Paces()
    proofs(one, 30)
    wait_s = one.proof(ADDRESS, ME, 12.0, claimed=True, guest=False)
    assert wait_s == 48
    assert one.proof(ADDRESS, ME, 12.0 + wait_s, claimed=True, guest=False) == 0


def test_guests_crowd_out_guests_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paces, "PROVED_MAX", 8)
    one = Paces()
    for number in range(20):
        proofs(one, 1, b"guest %d" % number, guest=True)
    assert proofs(one, 1, b"guest 20", guest=True) == 0
    assert proofs(one, 1) == 1


def test_shards_and_proofs_are_counted_apart() -> None:
    one = Paces()
    assert proofs(one, 99) == 30
    assert one.shards(use(), STANDARD, 0.0) == 0
