"""What a peer may ask and move, by its role and by the policy, at once and whatever its connections."""

from __future__ import annotations

import pytest

from lockbox_node.core import allowances
from lockbox_node.core.admission import AdmissionParams
from lockbox_node.core.allowances import Allowance, Allowances
from lockbox_node.core.policy import Governed
from protocol.certificates import Role

PARAMS = AdmissionParams(client_rate=100.0, client_burst=100.0, guest_rate=10.0, guest_burst=10.0)


def allowed(one: Allowance, count: int = 1000, now: float = 0.0) -> int:
    """How many of `count` requests at once are."""
    return [one.take(now) for _ in range(count)].count(0.0)


def test_connections_of_one_peer_share_an_allowance() -> None:
    all_of_them = Allowances(PARAMS)
    first, second = (all_of_them.of(b"guest", Role.GUEST, 0.0) for _ in range(2))
    assert [allowed(first, 6), allowed(second)] == [6, 4]
    assert allowed(all_of_them.of(b"other", Role.GUEST, 0.0)) == 10


def test_the_table_is_bounded_and_a_connection_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowances, "PEERS_MAX", 2)
    all_of_them = Allowances()
    first = all_of_them.of(b"1", Role.CLIENT, 0.0)
    second = all_of_them.of(b"2", Role.CLIENT, 0.0)
    assert all_of_them.of(b"1", Role.CLIENT, 0.0) is first
    all_of_them.of(b"3", Role.CLIENT, 0.0)
    assert all_of_them.of(b"1", Role.CLIENT, 0.0) is first
    assert all_of_them.of(b"2", Role.CLIENT, 0.0) is not second
    all_of_them.obey(Governed().under("client-requests", "3"), 0.0)
    assert allowed(second) == 6, "what is connected obeys too"


def test_a_million_peers_take_bounded_room() -> None:
    all_of_them = Allowances()
    for number in range(1_000_000):
        all_of_them.of(number.to_bytes(4, "big"), Role.GUEST, 0.0)
    assert len(all_of_them) == allowances.PEERS_MAX
    assert len(all_of_them._living) <= allowances.PEERS_MAX + 1


@pytest.mark.parametrize(
    ("role", "policy", "wanted"),
    [
        (Role.CLIENT, "5", 10),
        (Role.CLIENT, "500", 1000),
        (Role.GUEST, "5", 10),
        (Role.GUEST, "500", 10),
        (Role.NODE, "5", 1000),
        (Role.OPERATOR, "5", 800),
    ],
)
def test_a_policy_bounds_clients_and_guests_by_no_more_and_leaves_others_alone(
    role: Role, policy: str, wanted: int
) -> None:
    all_of_them = Allowances(PARAMS)
    one = all_of_them.of(b"peer", role, 0.0)
    all_of_them.obey(Governed().under("client-requests", policy), 0.0)
    assert allowed(one) == wanted


def test_bytes_are_unbounded_until_a_policy_says_and_then_made_up_for() -> None:
    all_of_them = Allowances(PARAMS)
    one, node = all_of_them.of(b"peer", Role.CLIENT, 0.0), all_of_them.of(b"node", Role.NODE, 0.0)
    one.charge(10**9)
    assert one.take(0.0) == 0
    all_of_them.obey(Governed().under("client-bytes", "1024"), 0.0)
    for each in (one, node):
        each.charge(5 * 1024)
    assert node.take(0.0) == 0
    assert one.take(0.0) == pytest.approx(3.0)
    assert one.take(3.0) == 0
    all_of_them.obey(Governed(), 3.0)
    one.charge(10**9)
    assert one.take(3.0) == 0


def test_the_same_policy_once_more_gives_nobody_a_new_burst() -> None:
    all_of_them = Allowances(PARAMS)
    one = all_of_them.of(b"peer", Role.CLIENT, 0.0)
    for _ in range(3):
        all_of_them.obey(Governed().under("client-requests", "5"), 0.0)
        allowed(one)
    assert allowed(one) == 0
