"""Who may in, and who may ask what when."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockbox_node.core.admission import (
    ALLOWED,
    AdmissionParams,
    Bucket,
    Downgrade,
    SlidingLog,
    access_claim_judge,
    judge_hello,
    permitted,
    rate_limited,
    refusal_reason,
)
from lockbox_node.core.documents import Rules
from lockbox_node.errors import ConfigError, LockboxError
from protocol.certificates import Role
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.ids import address_of
from protocol.messages import (
    NUMBERS,
    AskGrant,
    Delete,
    GetShards,
    Gossip,
    Hello,
    Message,
    Ping,
    Prove,
    PutStripe,
    Renew,
    SyncMembers,
    TellHolders,
)
from protocol.records import AccessClaim
from simulations.identities import NOW_UNIX_S, FakeIdentity, FakeNetwork

if TYPE_CHECKING:
    from lockbox_node.core.admission import Verdict

DAY_S = 24 * 3600


@pytest.fixture(scope="module")
def network() -> FakeNetwork:
    return FakeNetwork()


def judge(identity: FakeIdentity, now_unix_s: float = NOW_UNIX_S) -> Verdict:
    return judge_hello(identity.hello(), identity.leaf(), identity.root, now_unix_s)


def refused_hello(identity: FakeIdentity, leaf: bytes = b"") -> ErrorCode:
    with pytest.raises(RemoteProtocolError) as caught:
        judge_hello(identity.hello(), leaf or identity.leaf(), identity.root, NOW_UNIX_S)
    return caught.value.code


def test_every_role_is_let_in_as_its_chain_says(network: FakeNetwork) -> None:
    for identity in (network.node(1), network.client(1), network.operator(1), network.guest()):
        verdict = judge(identity)
        assert (verdict.identity.role, verdict.identity.id) == (identity.role, identity.id)
        assert (verdict.version, verdict.reads_only, verdict.clock_offset_s) == (1, Downgrade.NONE, 0.0)
        assert not verdict.clock_warned


def test_a_hello_of_another_network_is_not_a_members(network: FakeNetwork) -> None:
    stranger = dataclasses.replace(network.node(1), network=FakeNetwork(2).root.network_id)
    assert refused_hello(stranger) is ErrorCode.NOT_A_MEMBER


def test_a_chain_of_another_root_is_not_a_members(network: FakeNetwork) -> None:
    stranger = dataclasses.replace(FakeNetwork(2).node(1), root=network.root)
    assert refused_hello(stranger) is ErrorCode.NOT_A_MEMBER


def test_a_leaf_that_tls_did_not_prove_is_refused(network: FakeNetwork) -> None:
    assert refused_hello(network.node(1), network.node(2).leaf()) is ErrorCode.NOT_A_MEMBER


def test_no_common_version_is_unsupported(network: FakeNetwork) -> None:
    assert refused_hello(dataclasses.replace(network.node(1), versions=[2, 9])) is ErrorCode.UNSUPPORTED


def test_later_versions_beside_ours_do_not_matter(network: FakeNetwork) -> None:
    assert judge(dataclasses.replace(network.node(1), versions=[3, 2, 1])).version == 1


def test_the_record_of_another_node_is_refused(network: FakeNetwork) -> None:
    node = dataclasses.replace(network.node(1), record=network.node(2).record)
    assert refused_hello(node) is ErrorCode.PROOF_INVALID


def test_a_record_with_a_changed_byte_is_refused(network: FakeNetwork) -> None:
    node = network.node(1)
    assert node.record is not None
    body = node.record.body.replace(b"eu-central", b"us-central")
    assert refused_hello(dataclasses.replace(node, record=msgspec.structs.replace(node.record, body=body)))


def test_only_nodes_have_records_and_software(network: FakeNetwork) -> None:
    client, node = network.client(1), network.node(1)
    assert refused_hello(dataclasses.replace(client, record=node.record)) is ErrorCode.PROOF_INVALID
    assert refused_hello(dataclasses.replace(client, software=node.software)) is ErrorCode.PROOF_INVALID
    assert refused_hello(dataclasses.replace(node, software=b"")) is ErrorCode.PROOF_INVALID


def test_a_node_may_have_no_record_yet(network: FakeNetwork) -> None:
    assert judge(dataclasses.replace(network.node(1), record=None)).reads_only is Downgrade.NONE


def test_an_expired_certificate_only_reads(network: FakeNetwork) -> None:
    node = network.node(1, days=1)
    later = dataclasses.replace(node, now_unix_s=NOW_UNIX_S + 2 * DAY_S)
    assert judge(node).reads_only is Downgrade.NONE
    assert judge(later, later.now_unix_s).reads_only is Downgrade.CERTIFICATE


def test_a_certificate_of_the_future_only_reads_unless_clocks_explain_it(network: FakeNetwork) -> None:
    node = network.node(1)
    start = NOW_UNIX_S - 40 * DAY_S
    for early_s, expected in ((301, Downgrade.CERTIFICATE), (299, Downgrade.NONE)):
        now = start - early_s
        assert judge(dataclasses.replace(node, now_unix_s=now), now).reads_only is expected


@pytest.mark.parametrize(
    ("offset_s", "warned", "reads_only"),
    [
        (59.0, False, ""),
        (61.0, True, ""),
        (-61.0, True, ""),
        (299.0, True, ""),
        (301.0, True, "clock"),
        (-301.0, True, "clock"),
    ],
)
def test_a_clock_is_warned_above_a_minute_and_only_reads_above_five(
    network: FakeNetwork, offset_s: float, warned: bool, reads_only: str
) -> None:
    verdict = judge(dataclasses.replace(network.client(1), now_unix_s=NOW_UNIX_S + offset_s))
    assert (verdict.clock_warned, verdict.reads_only, verdict.clock_offset_s) == (warned, reads_only, offset_s)


@pytest.mark.parametrize("kind", ["node", "client", "operator", "guest"])
def test_whoever_is_revoked_is_refused_whatever_its_role(network: FakeNetwork, kind: str) -> None:
    identity = network.guest() if kind == "guest" else getattr(network, kind)(1)
    rules = Rules(revoked={identity.id: "key lost"})
    with pytest.raises(RemoteProtocolError) as caught:
        judge_hello(identity.hello(), identity.leaf(), identity.root, NOW_UNIX_S, rules)
    assert caught.value.code is ErrorCode.REVOKED
    other = network.node(2)
    assert judge_hello(other.hello(), other.leaf(), other.root, NOW_UNIX_S, rules).reads_only is Downgrade.NONE


def test_software_that_is_not_released_only_reads(network: FakeNetwork) -> None:
    node, client, ended = network.node(1), network.client(1), int(NOW_UNIX_S)
    for releases, expected in (
        ({}, Downgrade.NONE),
        ({node.software: 0}, Downgrade.NONE),
        ({node.software: ended + 1}, Downgrade.NONE),
        ({node.software: ended}, Downgrade.SOFTWARE),
        ({bytes(32): 0}, Downgrade.SOFTWARE),
    ):
        rules = Rules(releases=releases)
        assert judge_hello(node.hello(), node.leaf(), node.root, NOW_UNIX_S, rules).reads_only is expected
        assert not judge_hello(client.hello(), client.leaf(), client.root, NOW_UNIX_S, rules).reads_only


def test_a_wrong_clock_is_told_before_refused_software(network: FakeNetwork) -> None:
    late = dataclasses.replace(network.node(1), now_unix_s=NOW_UNIX_S - 301)
    verdict = judge_hello(late.hello(), late.leaf(), late.root, NOW_UNIX_S, Rules(releases={bytes(32): 0}))
    assert verdict.reads_only is Downgrade.CLOCK


def test_the_table_names_every_request() -> None:
    assert set(ALLOWED) == set(NUMBERS)


def test_roles_may_ask_what_the_table_says() -> None:
    names = {role: {kind.__name__ for kind in permitted(role, Downgrade.NONE)} for role in Role}
    asking = {"Ping", "SyncMembers", "FindNode", "FindHolders", "GetDocuments"}
    reading = asking | {"GetShards", "GetSlot", "Prove"}
    storing = reading | {"PutStripe", "Delete", "TellHolders", "Renew", "CompareVantages"}
    assert names == {
        Role.OPERATOR: asking | {"TellDocuments"},
        Role.GUEST: reading | {"AskGrant", "AskAudit"},
        Role.CLIENT: storing | {"AskGrant", "AskAudit"},
        Role.NODE: storing | {"Gossip", "CompareHeld", "TellDocuments", "PingFor", "TellVantages"},
    }


@pytest.mark.parametrize("why", [why for why in Downgrade if why])
def test_downgraded_peers_still_read(why: Downgrade) -> None:
    for role in (Role.NODE, Role.CLIENT, Role.GUEST):
        assert {Ping, SyncMembers, GetShards, Prove} <= permitted(role, why)
    assert all(AskGrant in permitted(role, why) for role in (Role.CLIENT, Role.GUEST))


@pytest.mark.parametrize("why", [why for why in Downgrade if why])
def test_a_downgraded_client_stores_nothing_and_a_downgraded_node_hands_over(why: Downgrade) -> None:
    assert not {PutStripe, Delete, TellHolders} & permitted(Role.CLIENT, why)
    assert {PutStripe, TellHolders} <= permitted(Role.NODE, why)
    assert all(Renew in permitted(role, why) for role in (Role.CLIENT, Role.NODE))
    assert not {Gossip, Delete} & permitted(Role.NODE, why)


@pytest.mark.parametrize(
    ("kind", "role", "why", "code"),
    [
        (PutStripe, Role.GUEST, Downgrade.NONE, ErrorCode.ROLE_FORBIDDEN),
        (Gossip, Role.CLIENT, Downgrade.CLOCK, ErrorCode.ROLE_FORBIDDEN),
        (Hello, Role.NODE, Downgrade.NONE, ErrorCode.UNSUPPORTED),
        (PutStripe, Role.CLIENT, Downgrade.CLOCK, ErrorCode.CLOCK_SKEW),
        (PutStripe, Role.CLIENT, Downgrade.CERTIFICATE, ErrorCode.NOT_A_MEMBER),
        (Delete, Role.NODE, Downgrade.SOFTWARE, ErrorCode.INVALID_SOFTWARE_VERSION),
    ],
)
def test_a_refusal_says_why(kind: type[Message], role: Role, why: Downgrade, code: ErrorCode) -> None:
    error = refusal_reason(kind, role, why)
    assert error.code is code
    assert error.message


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = Bucket(rate=10.0, burst=3.0, now=100.0)
    assert [bucket.take(100.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.take(100.0) == pytest.approx(0.1)
    assert bucket.take(100.1) == 0.0
    assert bucket.take(100.1) > 0
    assert [bucket.take(200.0) for _ in range(4)] == [0.0, 0.0, 0.0, pytest.approx(0.1)]


@given(st.lists(st.floats(0.0, 3.0), max_size=60), st.floats(0.5, 50.0), st.floats(1.0, 20.0))
def test_a_bucket_never_gives_more_than_burst_and_rate_allow(steps: list[float], rate: float, burst: float) -> None:
    now, taken = 1e6, 0
    bucket = Bucket(rate, burst, now)
    for step in steps:
        now += step
        taken += bucket.take(now) == 0.0
    assert taken <= burst + (now - 1e6) * rate + 1e-3


@given(st.floats(1.0, 1e4), st.floats(0.0, 1e7))
def test_waiting_as_long_as_told_gives_the_token(rate: float, now: float) -> None:
    bucket = Bucket(rate, 1.0, now)
    assert bucket.take(now) == 0.0
    assert bucket.take(now + bucket.take(now) + 1e-9 * max(now, 1.0)) == 0.0


def test_what_is_charged_beyond_what_is_there_is_made_up_for_first() -> None:
    bucket = Bucket(rate=10.0, burst=20.0, now=0.0)
    bucket.charge(50.0)
    assert bucket.take(0.0, 0.0) == pytest.approx(3.0)
    assert bucket.take(3.0, 0.0) == 0


def test_rates_that_cannot_be_are_named() -> None:
    with pytest.raises(ConfigError, match=r"admission\.guest_rate"):
        AdmissionParams(guest_rate=0.0)


def test_a_rate_refusal_says_when_to_come_again() -> None:
    error = rate_limited(0.25)
    assert (error.code, error.retryable, error.retry_after_s) == (ErrorCode.RATE_LIMITED, True, 0.25)


KEY, ASKER = b"k" * 32, b"a" * 32


def claim(**changes: object) -> AccessClaim:
    values = {"public_key": KEY, "operation": 8, "requester": ASKER, "nonce": bytes(16), "time_unix_s": 1000}
    return AccessClaim(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("now", [940.0, 1000.0, 1300.0])
def test_a_claim_holds_from_a_minute_before_to_five_after(now: float) -> None:
    access_claim_judge(claim(), address_of(KEY), 8, ASKER, now)


@pytest.mark.parametrize(
    ("changes", "now"),
    [
        ({}, 939.9),
        ({}, 1300.1),
        ({"public_key": b"x" * 32}, 1000.0),
        ({"operation": 9}, 1000.0),
        ({"requester": b"b" * 32}, 1000.0),
    ],
)
def test_a_claim_for_anything_else_is_denied(changes: dict[str, object], now: float) -> None:
    with pytest.raises(LockboxError) as caught:
        access_claim_judge(claim(**changes), address_of(KEY), 8, ASKER, now)
    assert caught.value.code is ErrorCode.ACCESS_DENIED


# Sliding log


def log_of(keys_max: int = 100, share_max: int = 50) -> SlidingLog:
    return SlidingLog(5, 60.0, keys_max, share_max)


@given(st.lists(st.floats(0, 20), max_size=60))
def test_no_window_ever_holds_more_than_it_may(gaps: list[float]) -> None:
    log, now = log_of(), 0.0
    admitted: list[float] = []
    for gap in gaps:
        now += gap
        wait_s = log.take(b"key", b"owner", now)
        if wait_s:
            assert 0 < wait_s <= 60
            assert len([at for at in admitted if at > now - 60]) == 5
        else:
            admitted.append(now)
    for at in admitted:
        assert len([other for other in admitted if at <= other < at + 60]) <= 5


def test_who_waits_as_long_as_told_is_admitted() -> None:
    log = log_of()
    for second in range(5):
        assert log.take(b"key", b"owner", float(second)) == 0
    wait_s = log.take(b"key", b"owner", 10.0)
    assert wait_s == 50
    assert log.take(b"key", b"owner", 10.0 + wait_s) == 0
    assert log.take(b"key", b"owner", 10.0 + wait_s) == pytest.approx(1)


def test_keys_do_not_share_a_window() -> None:
    log = log_of()
    assert [log.take(bytes([key]), b"owner", 0.0) for key in range(20) for _ in range(5)] == [0.0] * 100
    assert all(log.take(bytes([key]), b"owner", 1.0) for key in range(20))


def test_a_million_keys_that_an_attacker_chooses_stay_bounded_and_reset_nobody() -> None:
    log = log_of(keys_max=1000, share_max=250)
    for _ in range(5):
        log.take(b"victim", b"honest", 0.0)
    for number in range(1_000_000):
        log.take(number.to_bytes(4, "big"), b"attacker %d" % (number % 7), 1.0)
    assert len(log) <= 1000
    assert log.take(b"victim", b"honest", 2.0) == pytest.approx(58)


def test_one_owner_leaves_room_for_others_and_gets_it_back() -> None:
    log = log_of(keys_max=100, share_max=50)
    taken = [log.take(bytes([key]), b"greedy", 0.0) for key in range(60)]
    assert taken.count(0.0) == 50
    assert log.take(b"other", b"modest", 0.0) == 0
    assert log.take(bytes([59]), b"greedy", 60.0) == 0
    assert len(log) == 1
