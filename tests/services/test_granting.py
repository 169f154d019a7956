"""One verifier: whom it grants, how often, what it remembers over a restart, what it may tell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import trio

from lockbox_node.core.admission import Downgrade
from lockbox_node.core.grants import Around
from lockbox_node.core.placement import Candidate
from lockbox_node.errors import LockboxError
from lockbox_node.rpc.hello import Peer
from lockbox_node.services.granting import Granting
from protocol.certificates import Role, verify_grant
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.ids import distance
from protocol.messages import NUMBERS, AskGrant, GetSlot, Prove, Signed
from simulations.identities import Papers
from simulations.journal import MemoryJournal
from tests.fakes.granting import around, network, verifier, wish
from tests.fakes.holder_bench import CLIENT, GUEST
from tests.fakes.stripes import NOW_UNIX_S, AssetSigner, FixedClock, bytes_of, node_of

if TYPE_CHECKING:
    from protocol.messages import Message

SIGNER = AssetSigner("asset")


@dataclass
class Verifier:
    """The service of one node."""

    clock: FixedClock = field(default_factory=FixedClock)
    journal: MemoryJournal = field(default_factory=MemoryJournal)

    def __post_init__(self) -> None:
        self.identity = verifier(0)
        self.around = around(self.identity.id, [verifier(number) for number in range(1, 4)])
        self.restart()

    def restart(self) -> None:
        """Its next life."""
        self.journal = self.journal.start()
        papers = Papers(self.identity)
        self.service = Granting(papers, network().root, lambda: self.around, self.clock, self.journal)
        [route] = self.service.routes()
        self.handler = route.handler

    def ask(self, request: Signed, peer: Peer = CLIENT) -> Signed | ErrorCode:
        """The grant, or the code of the refusal."""
        answers: list[Message | LockboxError] = []
        try:
            self.handler(AskGrant(request), peer, answers.append)  # type: ignore[call-arg]
        except (LockboxError, RemoteProtocolError) as refusal:
            return refusal.code
        [grant] = answers
        assert isinstance(grant, Signed)
        return grant

    def granted(self, count: int, signer: AssetSigner = SIGNER, peer: Peer = CLIENT) -> int:
        """How many of `count` new requests are granted."""
        asked = [wish(signer, peer.id, time_unix_s=self.clock.now) for _ in range(count)]
        return sum(isinstance(self.ask(one, peer), Signed) for one in asked)


@pytest.fixture
async def one() -> Verifier:
    return Verifier()


async def test_a_grant_says_what_was_asked_and_who_says_it(one: Verifier) -> None:
    request = wish(SIGNER, CLIENT.id)
    signed = one.ask(request)
    assert isinstance(signed, Signed)
    grant, signer = verify_grant(network().root, signed)
    assert (grant.address, grant.requester) == (SIGNER.address, CLIENT.id)
    assert grant.expires_unix_s == NOW_UNIX_S + 120
    assert signer.id == one.identity.id


async def test_a_nonce_is_granted_once_and_a_restart_remembers_it(one: Verifier) -> None:
    request = wish(SIGNER, CLIENT.id)
    assert isinstance(one.ask(request), Signed)
    assert one.ask(request) is ErrorCode.GRANT_REPLAYED
    one.restart()
    assert one.ask(request) is ErrorCode.GRANT_REPLAYED


async def test_the_same_nonce_raced_fifty_times_is_granted_once(one: Verifier) -> None:
    request = wish(SIGNER, CLIENT.id)
    said = [one.ask(request) for _ in range(50)]
    assert sum(isinstance(answer, Signed) for answer in said) == 1
    assert one.service.counts == {"granted": 1, "GRANT_REPLAYED": 49}


async def test_each_wrong_request_has_its_own_code_and_is_counted(one: Verifier) -> None:
    cases = [
        (wish(SIGNER, GUEST.id), ErrorCode.GRANT_FOREIGN),
        (wish(SIGNER, CLIENT.id, operation=NUMBERS[GetSlot]), ErrorCode.GRANT_OPERATION),
        (wish(SIGNER, CLIENT.id, operation=NUMBERS[Prove]), ErrorCode.GRANT_OPERATION),
        (wish(SIGNER, CLIENT.id, time_unix_s=NOW_UNIX_S - 301), ErrorCode.GRANT_EXPIRED),
        (wish(SIGNER, CLIENT.id, time_unix_s=NOW_UNIX_S + 61), ErrorCode.GRANT_EARLY),
        (SIGNER.access(8, CLIENT.id), ErrorCode.PROOF_INVALID),
        (
            Signed(wish(SIGNER, CLIENT.id).body, wish(AssetSigner("other"), CLIENT.id).signature),
            ErrorCode.PROOF_INVALID,
        ),
    ]
    for request, code in cases:
        assert one.ask(request) is code
    assert one.service.counts["GRANT_OPERATION"] == 2
    assert one.service.counts["granted"] == 0
    assert one.journal.kept() == []


async def test_the_revoked_get_none(one: Verifier) -> None:
    one.around = around(one.identity.id, [verifier(1)], frozenset({CLIENT.id}))
    assert one.ask(wish(SIGNER, CLIENT.id)) is ErrorCode.REVOKED
    assert isinstance(one.ask(wish(SIGNER, GUEST.id), GUEST), Signed)


async def test_a_node_that_is_far_from_the_address_does_not_verify(one: Verifier) -> None:
    members = [Candidate(node_of(number), "here", f"operator {number}") for number in range(2000)]

    def near(target: bytes, count: int) -> list[Candidate]:
        return sorted(members, key=lambda node: distance(node.node, target))[:count]

    one.around = Around(one.identity.id, len(members), near, lambda _node: True, frozenset())
    said = {one.ask(wish(AssetSigner(number), CLIENT.id)) for number in range(20)}
    assert ErrorCode.GRANT_FAR in said


@pytest.mark.parametrize("callers", [100, 1000])
async def test_of_many_callers_of_one_identity_five_are_granted_in_any_window(
    one: Verifier, callers: int, autojump_clock: trio.testing.MockClock
) -> None:
    assert one.granted(callers) == 5
    await trio.sleep(59.9)
    one.clock.now += 59.9
    assert one.granted(callers) == 0
    await trio.sleep(0.2)
    one.clock.now += 0.2
    assert one.granted(callers) == 5


async def test_n_identities_are_granted_five_each(one: Verifier) -> None:
    peers = [Peer(bytes_of("peer", n), Role.CLIENT, "", "h", Downgrade.NONE, None, b"", 0.0) for n in range(20)]
    assert sum(one.granted(50, peer=peer) for peer in peers) == 5 * len(peers)


async def test_each_asset_has_its_own_rate(one: Verifier) -> None:
    assert [one.granted(9, AssetSigner(number)) for number in range(4)] == [5] * 4


@pytest.mark.parametrize(
    "hosts",
    [
        ("a", "a", "b"),
        ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
        ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"),
    ],
)
async def test_guests_of_one_host_share_a_rate_and_others_do_not(one: Verifier, hosts: tuple[str, str, str]) -> None:
    guests = [Peer(GUEST.id, Role.GUEST, "", host, Downgrade.NONE, None, b"", 0.0) for host in hosts]
    assert [one.granted(5, peer=guest) for guest in guests] == [5, 0, 5]


async def test_a_restart_keeps_the_rate(one: Verifier, autojump_clock: trio.testing.MockClock) -> None:
    assert one.granted(9) == 5
    await trio.sleep(30)
    one.clock.now += 30
    one.restart()
    assert one.granted(9) == 0
    await trio.sleep(30.1)
    one.clock.now += 30.1
    assert one.granted(9) == 5


async def test_the_refusal_says_when_to_come_again(one: Verifier, autojump_clock: trio.testing.MockClock) -> None:
    one.granted(5)
    await trio.sleep(20)
    with pytest.raises(LockboxError) as refused:
        one.service._granted(wish(SIGNER, CLIENT.id), CLIENT)
    assert refused.value.code is ErrorCode.RATE_LIMITED
    assert refused.value.retry_after_s == pytest.approx(40)


async def test_a_refused_attempt_does_not_count(one: Verifier) -> None:
    for _ in range(20):
        one.ask(wish(SIGNER, GUEST.id))
        one.ask(wish(SIGNER, CLIENT.id, time_unix_s=NOW_UNIX_S - 301))
    assert one.granted(9) == 5


async def test_a_loss_of_power_lets_no_nonce_through_twice(one: Verifier) -> None:
    used = wish(SIGNER, CLIENT.id)
    assert isinstance(one.ask(used), Signed)
    one.journal.lose_power()
    one.restart()
    assert one.ask(used) is ErrorCode.BUSY
    one.clock.now += 62
    assert one.ask(used) is ErrorCode.BUSY
    assert isinstance(one.ask(wish(SIGNER, CLIENT.id, time_unix_s=one.clock.now)), Signed)
