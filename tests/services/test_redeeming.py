"""What a holder serves for which grants, once; each refusal with its own code, counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from lockbox_node.core.paces import PROOFS_MAX, SIBLING_PROOFS_MAX
from lockbox_node.errors import LockboxError
from lockbox_node.services.redeeming import Redeeming
from protocol.errors import ErrorCode
from protocol.messages import NUMBERS, GetShards, GetSlot, Proof, Prove, Shards, Signed
from tests.fakes.granting import around, grant, grants, network, verifier, wish
from tests.fakes.holder_bench import CLIENT, GUEST, HOLDER, OWN, VERIFIERS, Bench, get_of, put_of
from tests.fakes.stripes import NOW_UNIX_S, AssetSigner, Stripe, bytes_of, make_stripe

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.core.grants import Around
    from lockbox_node.rpc.hello import Peer

ELITE = (3, 8, 20)
CANDIDATES = 79  # with the holder itself all who are near enough to grant


@pytest.fixture
def stripe() -> Stripe:
    return make_stripe(1)


@pytest.fixture
def bench(stripe: Stripe) -> Bench:
    bench = Bench()
    bench.ask(put_of(stripe))
    return bench


def get(stripe: Stripe, request: Signed, granted: list[Signed]) -> GetShards:
    return GetShards(stripe.signer.address, stripe.parts[0].descriptor_hash, request, granted)


def restarted(bench: Bench) -> None:
    """The next life of the holder, over what its journal kept."""
    bench.journal = bench.journal.start()
    bench.redeeming = bench.redeems()
    bench.storage._redeeming = bench.redeeming


def test_a_grant_is_used_once(bench: Bench, stripe: Stripe) -> None:
    request = get_of(stripe)
    assert isinstance(bench.ask(request), Shards)
    assert bench.refused(request) is ErrorCode.GRANT_REPLAYED
    assert bench.redeeming.counts == {"served": 1, "GRANT_REPLAYED": 1}


def test_of_fifty_uses_at_once_one_is_served(bench: Bench, stripe: Stripe) -> None:
    answers: list[object] = []
    request = get_of(stripe)
    for _ in range(50):
        bench.handlers[GetShards](request, CLIENT, answers.append)  # type: ignore[call-arg]
    assert sum(isinstance(answer, Shards) for answer in answers) == 1
    assert bench.redeeming.counts["GRANT_REPLAYED"] == 49


def test_other_grants_for_a_used_request_serve_it_no_second_time(bench: Bench, stripe: Stripe) -> None:
    request = wish(stripe.signer, CLIENT.id)
    assert isinstance(bench.ask(get(stripe, request, [grant(verifier(at), request) for at in (0, 1)])), Shards)
    others = [grant(verifier(at), request) for at in (2, 3)]
    assert bench.refused(get(stripe, request, others)) is ErrorCode.GRANT_REPLAYED


def served_of(bench: Bench, stripe: Stripe, count: int, quorum: int = 2) -> int:
    """How many of `count` new requests are served, each with grants of other verifiers than the one before it."""
    answers: list[object] = []
    for turn in range(count):
        request = wish(stripe.signer, CLIENT.id, time_unix_s=bench.clock.now)
        signers = [verifier((turn + at) % (bench.around.live - 1)) for at in range(quorum)]
        granted = [grant(signer, request, now_unix_s=bench.clock.now) for signer in signers]
        bench.handlers[GetShards](get(stripe, request, granted), CLIENT, answers.append)  # type: ignore[call-arg]
    refusals = [answer for answer in answers if isinstance(answer, LockboxError)]
    assert all(refusal.code is ErrorCode.RATE_LIMITED for refusal in refusals)
    assert all(0 < refusal.retry_after_s <= 60 for refusal in refusals)
    return len(answers) - len(refusals)


@pytest.mark.parametrize(("tier", "quorum", "bound"), [((1, 5, 10), 2, 7), (ELITE, 4, 6)], ids=["standard", "elite"])
def test_grants_of_every_candidate_get_no_more_than_honest_verifiers_would_let_through(
    bench: Bench, tier: tuple[int, int, int], quorum: int, bound: int
) -> None:
    """An attacker with the asset key and the grants of all candidates, who come in turns."""
    one = make_stripe(2, tier=tier)
    bench.ask(put_of(one))
    bench.around = around(OWN, [verifier(number) for number in range(CANDIDATES)])
    assert served_of(bench, one, 100, quorum) == bound
    bench.now, bench.clock.now = 59.9, NOW_UNIX_S + 59.9
    assert served_of(bench, one, 5, quorum) == 0
    bench.now, bench.clock.now = 60.0, NOW_UNIX_S + 60.0
    assert served_of(bench, one, 20, quorum) == bound


def test_a_restart_keeps_how_often_was_served(bench: Bench, stripe: Stripe) -> None:
    assert served_of(bench, stripe, 4) == 4
    bench.now, bench.clock.now = 5.0, NOW_UNIX_S + 30.0  # the clock of a process begins anew
    restarted(bench)
    assert served_of(bench, stripe, 9) == 3
    bench.now, bench.clock.now = 35.0, NOW_UNIX_S + 60.0
    assert served_of(bench, stripe, 9) == 4


def test_who_is_refused_for_its_pace_may_use_the_same_request_later(bench: Bench, stripe: Stripe) -> None:
    assert served_of(bench, stripe, 7) == 7
    request = wish(stripe.signer, CLIENT.id)
    assert bench.refused(get(stripe, request, grants(request))) is ErrorCode.RATE_LIMITED
    bench.now = 60.0
    assert isinstance(bench.ask(get(stripe, request, grants(request))), Shards)


def test_proofs_for_the_asset_keys_claim_and_for_siblings_have_a_pace(bench: Bench, stripe: Stripe) -> None:
    claim = stripe.signer.access(NUMBERS[Prove], CLIENT.id)
    request = Prove(stripe.signer.address, stripe.parts[0].descriptor_hash, bytes(32), claim)
    for _ in range(PROOFS_MAX):
        assert isinstance(bench.ask(request), Proof)
    with pytest.raises(LockboxError) as refused:
        bench.ask(request)
    assert (refused.value.code, refused.value.retry_after_s) == (ErrorCode.RATE_LIMITED, 60)
    assert bench.redeeming.counts == {"RATE_LIMITED": 1}
    bare = msgspec.structs.replace(request, access=None)
    for _ in range(SIBLING_PROOFS_MAX):
        assert isinstance(bench.ask(bare, HOLDER), Proof)
    assert bench.refused(bare, HOLDER) is ErrorCode.RATE_LIMITED
    bench.now = 60.0
    assert isinstance(bench.ask(request), Proof)


def test_a_restart_forgets_no_use(bench: Bench, stripe: Stripe) -> None:
    request = get_of(stripe)
    bench.ask(request)
    restarted(bench)
    assert bench.refused(request) is ErrorCode.GRANT_REPLAYED
    assert isinstance(bench.ask(get_of(stripe)), Shards)


def test_after_a_loss_of_power_nothing_that_may_have_been_used_is_served(bench: Bench, stripe: Stripe) -> None:
    used = get_of(stripe)
    bench.ask(used)
    bench.journal.lose_power()
    restarted(bench)
    assert bench.refused(used) is ErrorCode.BUSY
    assert bench.refused(get_of(stripe)) is ErrorCode.BUSY
    bench.clock.now += 61
    later = wish(stripe.signer, CLIENT.id, time_unix_s=bench.clock.now)
    assert isinstance(bench.ask(get(stripe, later, grants(later, now_unix_s=bench.clock.now))), Shards)


def test_too_few_grants_use_nothing_up(bench: Bench, stripe: Stripe) -> None:
    request = wish(stripe.signer, CLIENT.id)
    for few in ([], grants(request, 1)):
        assert bench.refused(get(stripe, request, few)) is ErrorCode.GRANTS_TOO_FEW
    assert isinstance(bench.ask(get(stripe, request, grants(request))), Shards)


def test_elite_asks_four(bench: Bench) -> None:
    elite = make_stripe(2, tier=ELITE)
    bench.ask(put_of(elite))
    request = wish(elite.signer, CLIENT.id)
    assert bench.refused(get(elite, request, grants(request, 3))) is ErrorCode.GRANTS_TOO_FEW
    assert isinstance(bench.ask(get(elite, request, grants(request, 4))), Shards)


def test_a_lost_region_lowers_what_is_asked(bench: Bench) -> None:
    elite = make_stripe(2, tier=ELITE)
    bench.ask(put_of(elite))
    bench.around = around(OWN, [verifier(0)])
    request = wish(elite.signer, CLIENT.id)
    assert bench.refused(get(elite, request, [])) is ErrorCode.GRANTS_TOO_FEW
    assert isinstance(bench.ask(get(elite, request, grants(request, 1))), Shards)


WISHES: dict[str, tuple[Callable[[AssetSigner], Signed], ErrorCode]] = {
    "another asset's key": (lambda _signer: wish(AssetSigner("other"), CLIENT.id), ErrorCode.ACCESS_DENIED),
    "another requester's": (lambda signer: wish(signer, GUEST.id), ErrorCode.GRANT_FOREIGN),
    "another operation": (
        lambda signer: wish(signer, CLIENT.id, operation=NUMBERS[GetSlot]),
        ErrorCode.GRANT_OPERATION,
    ),
    "expired": (lambda signer: wish(signer, CLIENT.id, time_unix_s=NOW_UNIX_S - 301), ErrorCode.GRANT_EXPIRED),
    "from the future": (lambda signer: wish(signer, CLIENT.id, time_unix_s=NOW_UNIX_S + 61), ErrorCode.GRANT_EARLY),
    "a mere claim": (lambda signer: signer.access(NUMBERS[GetShards], CLIENT.id), ErrorCode.PROOF_INVALID),
}


@pytest.mark.parametrize("name", list(WISHES))
def test_each_wrong_request_is_refused_with_its_own_code_and_counted(bench: Bench, stripe: Stripe, name: str) -> None:
    make, wanted = WISHES[name]
    request = make(stripe.signer)
    granted = grants(wish(stripe.signer, CLIENT.id))
    assert bench.refused(get(stripe, request, granted)) is wanted
    assert bench.redeeming.counts == {wanted.value: 1}


def test_each_wrong_grant_is_refused_with_its_own_code_and_counted(bench: Bench, stripe: Stripe) -> None:
    request = wish(stripe.signer, CLIENT.id)
    good = grant(verifier(0), request)
    bad = {
        ErrorCode.GRANT_FOREIGN: grant(verifier(1), request, requester=GUEST.id),
        ErrorCode.GRANT_OPERATION: grant(verifier(1), request, operation=9),
        ErrorCode.GRANT_INVALID: grant(verifier(1), request, nonce=bytes(32)),
        ErrorCode.GRANT_EXPIRED: grant(verifier(1), request, expires_unix_s=NOW_UNIX_S - 61),
        ErrorCode.GRANT_EARLY: grant(verifier(1), request, expires_unix_s=NOW_UNIX_S + 10**6),
        ErrorCode.GRANT_UNKNOWN_SIGNER: grant(network().node(999), request),
        ErrorCode.GRANT_DUPLICATE: good,
        ErrorCode.PROOF_INVALID: Signed(b"\x96", bytes(64)),
    }
    for code, one in bad.items():
        assert bench.refused(get(stripe, request, [good, one])) is code
    assert bench.redeeming.counts == {code.value: 1 for code in bad}
    bench.around = around(OWN, [verifier(0), verifier(1)], frozenset({verifier(1).id}))
    assert bench.refused(get(stripe, request, grants(request))) is ErrorCode.REVOKED


def test_a_request_spoilt_anywhere_is_refused(bench: Bench, stripe: Stripe) -> None:
    request = wish(stripe.signer, CLIENT.id)
    granted = grants(request)
    for at in range(len(request.body)):
        spoilt = Signed(request.body[:at] + bytes([request.body[at] ^ 1]) + request.body[at + 1 :], request.signature)
        assert bench.refused(get(stripe, spoilt, granted)) is ErrorCode.PROOF_INVALID
    assert isinstance(bench.ask(get(stripe, request, granted)), Shards)


@pytest.mark.parametrize("peer", [CLIENT, GUEST])
def test_who_shows_nothing_gets_nothing(bench: Bench, stripe: Stripe, peer: Peer) -> None:
    bare = GetShards(stripe.signer.address, stripe.parts[0].descriptor_hash, None, [])
    assert bench.refused(bare, peer) is ErrorCode.ACCESS_DENIED


def test_grants_of_others_are_no_use_to_one_who_lacks_the_asset_key(bench: Bench, stripe: Stripe) -> None:
    """An attacker with a good client certificate, who knows the address and even saw its owner's grants."""
    seen = get_of(stripe, GUEST)
    own_key = AssetSigner("the attacker's own")
    own = wish(own_key, CLIENT.id)
    tries = [
        seen,
        msgspec.structs.replace(seen, access=None),
        msgspec.structs.replace(seen, access=own),
        get(stripe, own, grants(own)),
        get(stripe, Signed(seen.access.body, own.signature), seen.grants),  # type: ignore[union-attr]
    ]
    assert all(bench.refused(one) in (ErrorCode.GRANT_FOREIGN, ErrorCode.ACCESS_DENIED, ErrorCode.PROOF_INVALID)
               for one in tries)  # fmt: skip
    assert bench.redeeming.counts["served"] == 0


def test_a_sibling_that_rebuilds_needs_no_grant_and_uses_none(bench: Bench, stripe: Stripe) -> None:
    for _ in range(3):
        assert isinstance(bench.ask(get_of(stripe, None), HOLDER), Shards)
    assert not bench.redeeming.counts


def test_no_verdict_is_kept_across_requesters(bench: Bench, stripe: Stripe) -> None:
    request = get_of(stripe)
    bench.ask(request)
    assert bench.refused(request, GUEST) is ErrorCode.GRANT_FOREIGN


def test_a_node_that_shows_a_request_is_judged_like_a_client(bench: Bench, stripe: Stripe) -> None:
    request = wish(stripe.signer, HOLDER.id)
    assert bench.refused(get(stripe, request, []), HOLDER) is ErrorCode.GRANTS_TOO_FEW


def test_what_is_looked_at_is_the_present(bench: Bench, stripe: Stripe) -> None:
    """The members are asked for at each request."""
    calls: list[Around] = []

    def now() -> Around:
        calls.append(bench.around)
        return bench.around

    bench.storage._redeeming = Redeeming(network().root, now, bench.clock, bench.journal, lambda: 0.0)
    bench.ask(get_of(stripe))
    bench.ask(get_of(stripe))
    assert len(calls) == 2


def test_a_holder_that_knows_nobody_still_asks_the_asset_keys_word(bench: Bench, stripe: Stripe) -> None:
    bench.around = around(OWN, [])
    foreign = wish(AssetSigner("other"), CLIENT.id)
    assert bench.refused(get(stripe, foreign, [])) is ErrorCode.ACCESS_DENIED
    with pytest.raises(LockboxError):
        bench.ask(get(stripe, wish(stripe.signer, bytes_of("somebody")), []))
    assert VERIFIERS >= 4  # the others of this file need so many
