"""What a certificate proves: honest ones hold, every way to bend one is found, liars count as one vote each."""

from __future__ import annotations

import pytest

from lockbox_node.core.audit import Verdict
from lockbox_node.core.certified import Examined, Failing, examined
from lockbox_node.core.possession import asked
from lockbox_node.core.tiers import ELITE, STANDARD, TIERS, Tier
from lockbox_node.errors import CertificateInvalid, ExitCode
from protocol.possession import Place
from simulations.identities import NOW_UNIX_S, FakeNetwork
from tests.fakes.granting import network, verifier
from tests.fakes.possession import Paper, statement_by, stripe_of
from tests.fakes.stripes import bytes_of, node_of

ROOT = network().root


def proven(paper: Paper) -> Examined:
    return examined(ROOT, paper.file())


def refused(file: bytes, why: str) -> None:
    with pytest.raises(CertificateInvalid, match=why) as caught:
        examined(ROOT, file)
    assert caught.value.exit_code is ExitCode.REFUSED


@pytest.mark.parametrize("tier", TIERS, ids=[tier.name for tier in TIERS])
def test_a_certificate_of_honest_verifiers_proves_every_index(tier: Tier) -> None:
    found = proven(Paper(tier))
    assert found.whole
    assert (found.margin, len(found.witnesses)) == (tier.n - tier.k, tier.verifiers)
    assert [one.held_by for one in found.stripes[0].votes] == [tier.verifiers] * tier.n
    assert found.times_unix_s == (NOW_UNIX_S + 1, NOW_UNIX_S + 1)


def test_every_byte_of_a_certificate_is_covered() -> None:
    file = Paper().file()
    for at in range(len(file)):
        spoilt = file[:at] + bytes([file[at] ^ 0x20]) + file[at + 1 :]
        refused(spoilt, ".")
    refused(file[:-1], "cut short")
    refused(file + b"\n", "cut short")


@pytest.mark.parametrize("verdict", [Verdict.MISSING, Verdict.CORRUPT, Verdict.SILENT])
def test_an_index_that_no_quorum_saw_held_is_not(verdict: Verdict) -> None:
    paper = Paper(STANDARD)
    said = [statement_by(verifier(number), paper.audit(), {3: verdict}) for number in range(3)]
    found = proven(paper.stated(*said))
    assert not found.whole
    assert (found.stripes[0].held, found.margin) == (9, 4)
    assert (found.stripes[0].votes[3].held_by, found.stripes[0].votes[3].verifiers) == (0, 3)
    assert found.stripes[0].votes[3].failing == (Failing(node_of(3), verdict, 3),)
    assert not any(votes.failing for votes in found.stripes[0].votes if votes.index != 3)


def test_two_nodes_of_one_operator_have_one_voice() -> None:
    paper = Paper(STANDARD)
    audit = paper.audit()
    gone = dict.fromkeys(range(STANDARD.n), Verdict.MISSING)
    evil = [statement_by(network().node(number, operator="evil"), audit) for number in (970, 971)]
    honest = [statement_by(verifier(number), audit, gone) for number in range(3)]
    found = proven(paper.stated(*evil, *honest))
    assert (found.whole, found.stripes[0].held) == (False, 0)
    assert (found.stripes[0].votes[0].held_by, found.stripes[0].votes[0].verifiers) == (1, 4)


def test_one_liar_neither_takes_an_index_away_nor_gives_one() -> None:
    paper = Paper(STANDARD)
    audit = paper.audit()
    everything = dict.fromkeys(range(STANDARD.n), Verdict.MISSING)
    slander = [statement_by(verifier(0), audit, everything), *(statement_by(verifier(n), audit) for n in (1, 2))]
    assert proven(paper.stated(*slander)).whole
    boast = [
        statement_by(verifier(0), audit),
        *(statement_by(verifier(n), audit, {3: Verdict.MISSING}) for n in (1, 2)),
    ]
    found = proven(paper.stated(*boast))
    assert (found.whole, found.stripes[0].votes[3].held_by) == (False, 1)


def test_two_that_collude_are_a_quorum_of_standard_but_not_of_elite() -> None:
    for tier, fooled in ((STANDARD, True), (ELITE, False)):
        paper = Paper(tier)
        audit = paper.audit()
        truth = [statement_by(verifier(n), audit, {3: Verdict.MISSING}) for n in range(2, tier.verifiers)]
        lies = [statement_by(verifier(n), audit) for n in range(2)]
        assert proven(paper.stated(*lies, *truth)).whole is fooled


def test_elite_needs_four_of_five() -> None:
    paper = Paper(ELITE)
    audit = paper.audit()
    four = [statement_by(verifier(n), audit) for n in range(4)]
    assert proven(paper.stated(*four)).whole
    refused(paper.stated(*four[:3]).file(), "3 verifiers of 3 operators, where elite needs 4 of 4")


def test_several_nodes_of_one_index_are_one_index_and_the_worst_round_trip_is_told() -> None:
    paper = Paper()
    twice = sorted(
        [*(Place(index, node_of(index)) for index in range(5)), Place(2, node_of(9))],
        key=lambda place: (place.index, place.node),
    )
    audit = asked(paper.request(places=twice), paper.parts[0].signed)
    paper.evidence[0] = type(paper.evidence[0])(
        paper.request(places=twice),
        paper.parts[0].signed,
        [statement_by(verifier(n), audit) for n in range(3)],
    )
    votes = proven(paper).stripes[0].votes[2]
    assert (votes.held_by, votes.verifiers, votes.round_trip_us) == (3, 3, 12_000)
    assert votes.nodes == tuple(sorted([node_of(2), node_of(9)]))
    assert (votes.regions, votes.locations, votes.software) == (("eu-central-1",), (1,), (1,))


def test_an_index_that_nobody_was_to_show_is_not_held() -> None:
    paper = Paper()
    four = [Place(index, node_of(index)) for index in range(4)]
    audit = asked(paper.request(places=four), paper.parts[0].signed)
    paper.evidence[0] = type(paper.evidence[0])(
        paper.request(places=four), paper.parts[0].signed, [statement_by(verifier(n), audit) for n in range(3)]
    )
    found = proven(paper)
    assert (found.whole, found.stripes[0].held, found.stripes[0].votes[4].verifiers) == (False, 4, 0)


def test_one_verifier_counts_once_and_operators_must_differ() -> None:
    paper = Paper()
    audit = paper.audit()
    one = statement_by(verifier(0), audit)
    refused(paper.stated(one, statement_by(verifier(0), audit, number=2)).file(), "several statements of one verifier")
    sibling = network().node(900, operator=verifier(0).operator)
    refused(paper.stated(one, statement_by(sibling, audit)).file(), "2 verifiers of 1 operators")


def test_strangers_and_other_networks_prove_nothing() -> None:
    paper = Paper()
    audit = paper.audit()
    foreign = FakeNetwork(7)
    refused(Paper().file(network_id=foreign.root.network_id), "of another network")
    with pytest.raises(CertificateInvalid, match="of another network"):
        examined(foreign.root, paper.file())
    refused(paper.stated(statement_by(verifier(0), audit), statement_by(foreign.node(1), audit)).file(), "certificate")


def test_the_seal_is_the_owners() -> None:
    other = Paper(seed="other")
    refused(Paper().file(other.parts[0].signer), "sealed by another key")


def test_the_stripes_of_a_certificate_are_all_there_and_belong_together() -> None:
    assert len(proven(Paper(stripes=3)).stripes) == 3
    short = Paper(stripes=3)
    del short.evidence[1]
    refused(short.file(), "2 stripes are here, where its owner asked about 3")
    swapped = Paper(stripes=2)
    swapped.evidence.reverse()
    refused(swapped.file(), "in the place of stripe 0")
    mixed, older = Paper(stripes=2), Paper(stripes=2, certificate=bytes_of("older"))
    mixed.evidence[1] = older.evidence[1]
    refused(mixed.file(), "stripe 1 is of another certificate")


def test_the_stripes_of_an_asset_are_of_one_tier() -> None:
    mixed = Paper(stripes=2)
    mixed.parts[1] = stripe_of("standard", STANDARD)
    mixed.evidence[1] = mixed.stripe(1)
    refused(mixed.file(), "several tiers")


def test_a_statement_of_another_request_is_found() -> None:
    paper, earlier = Paper(), Paper(certificate=bytes_of("earlier"))
    paper.evidence[0] = type(paper.evidence[0])(
        paper.evidence[0].request, paper.evidence[0].descriptor, earlier.evidence[0].statements
    )
    refused(paper.file(), "answers another request")
