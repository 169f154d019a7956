"""What was seen is refused until it is stale, through clocks that jump, full tables and lost ends."""

from __future__ import annotations

import dataclasses

import pytest

from lockbox_node.core.spent import GRANTED_HERE, RECORD_BYTES, SERVED_HERE, Spent, Use, unpacked, use_of
from lockbox_node.errors import LockboxError
from protocol.errors import ErrorCode
from protocol.grants import GrantRequest
from tests.fakes.stripes import bytes_of

NOW = 1_800_000_000.0


def use(number: int = 0, *, age_s: float = 0.0, requester: object = "me", rate_key: bytes = b"") -> Use:
    request = GrantRequest(bytes_of("key", number), 8, bytes_of(requester), bytes_of("nonce", number), int(NOW - age_s))
    return use_of(GRANTED_HERE, request, rate_key or bytes_of(requester), NOW)


def refusal(spent: Spent, one: Use, now: float = NOW) -> LockboxError:
    with pytest.raises(LockboxError) as caught:
        spent.require_new(one, now)
    return caught.value


def test_what_was_seen_once_is_refused_until_it_is_stale() -> None:
    spent = Spent()
    spent.require_new(use(), NOW)
    spent.add(use())
    assert refusal(spent, use()).code is ErrorCode.GRANT_REPLAYED
    assert refusal(spent, use(), NOW + 300).code is ErrorCode.GRANT_REPLAYED
    spent.require_new(use(1), NOW)


def test_a_nonce_is_seen_whatever_address_and_host_it_comes_with() -> None:
    one = GrantRequest(bytes_of("key"), 8, bytes_of("guest"), bytes_of("nonce"), int(NOW))
    other = GrantRequest(bytes_of("other"), 8, bytes_of("guest"), bytes_of("nonce"), int(NOW))
    spent = Spent()
    spent.add(use_of(SERVED_HERE, one, b"guest at home", NOW))
    assert refusal(spent, use_of(SERVED_HERE, other, b"guest elsewhere", NOW)).code is ErrorCode.GRANT_REPLAYED


def test_requests_of_others_may_have_the_same_nonce() -> None:
    spent = Spent()
    spent.add(use(requester="me"))
    spent.require_new(use(requester="you"), NOW)


def test_what_is_stale_is_forgotten_and_a_clock_set_back_lets_nothing_through() -> None:
    spent = Spent()
    for number in range(10):
        spent.add(use(number, age_s=200))
    spent.require_new(use(99), NOW + 101)
    assert len(spent) == 0
    assert refusal(spent, use(3, age_s=200), NOW).code is ErrorCode.BUSY
    spent.require_new(use(98), NOW)


def test_one_requester_cannot_crowd_out_others_and_nothing_is_forgotten_for_room() -> None:
    spent = Spent(keys_max=8, share_max=3)
    for number in range(3):
        spent.add(use(number, requester="greedy"))
    full = refusal(spent, use(3, requester="greedy"))
    assert full.code is ErrorCode.BUSY
    assert 299 <= full.retry_after_s <= 301
    spent.require_new(use(4, requester="modest"), NOW)
    assert refusal(spent, use(0, requester="greedy")).code is ErrorCode.GRANT_REPLAYED


def test_the_whole_is_bounded_under_many_requesters() -> None:
    spent = Spent(keys_max=8, share_max=3)
    for number in range(8):
        spent.require_new(use(number, requester=number), NOW)
        spent.add(use(number, requester=number))
    assert refusal(spent, use(9, requester=9)).code is ErrorCode.BUSY
    spent.require_new(use(9, age_s=-301, requester=9), NOW + 301)


def test_after_a_loss_nothing_that_can_have_been_seen_is_new() -> None:
    spent = Spent()
    spent.distrust(NOW, 60.0)
    for age_s in (250, 0, -60):
        assert refusal(spent, use(1, age_s=age_s)).code is ErrorCode.BUSY
    assert refusal(spent, use(1)).retry_after_s == pytest.approx(61)
    later = dataclasses.replace(use(2), time_unix_s=int(NOW) + 61)
    spent.require_new(later, NOW + 61)


def test_a_loss_with_a_clock_behind_goes_by_what_is_kept() -> None:
    spent = Spent()
    spent.add(use(1))
    spent.distrust(NOW - 10_000, 60.0)
    assert refusal(spent, use(2), NOW - 10_000).code is ErrorCode.BUSY


def test_a_record_is_what_it_was_and_a_torn_one_is_none() -> None:
    one = use(5)
    assert len(one.packed()) == RECORD_BYTES
    assert unpacked(one.packed()) == one
    assert unpacked(one.packed()[:-1]) is None


def test_guests_crowd_out_guests_alone() -> None:
    """Everybody has their papers, and hosts enough."""
    spent = Spent(guests_max=20, guest_share_max=5)

    def by_guest(number: int, host: int) -> Use:
        request = GrantRequest(bytes_of("key"), 8, bytes_of("guest"), bytes_of("nonce", number), int(NOW))
        return use_of(GRANTED_HERE, request, bytes_of("host", host), NOW, guest=True)

    for number in range(20):
        if number % 5 == 0 and number:
            assert refusal(spent, by_guest(99, number // 5 - 1)).code is ErrorCode.BUSY
        spent.require_new(by_guest(number, number // 5), NOW)
        spent.add(by_guest(number, number // 5))
    assert refusal(spent, by_guest(99, 77)).code is ErrorCode.BUSY
    spent.require_new(use(), NOW)
