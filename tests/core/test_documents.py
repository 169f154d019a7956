"""Which documents count: the newest of each kind, whatever order they come in; and what follows from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockbox_node.core.documents import NO_RULES, Library, Rules, is_newer
from lockbox_node.core.regions import BUILT_IN
from protocol.documents import (
    Kind,
    Place,
    Policy,
    Regions,
    Release,
    Releases,
    Revocation,
    Revocations,
    Setting,
    sign_document,
)
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.messages import DocumentVersion, SignedDocument
from tests.protocol import samples

KEY = samples.p256("root")
NODE, CLIENT = samples.digest("node"), samples.digest("client")


def revocations(version: int, *ids: bytes, reason: str = "key lost") -> SignedDocument:
    return sign_document(Revocations(version, 0, [Revocation(one, 0, reason) for one in sorted(ids)]), KEY)


def policy(version: int, **settings: str) -> SignedDocument:
    return sign_document(Policy(version, 0, [Setting(*one) for one in sorted(settings.items())]), KEY)


def regions(version: int, *places: Place) -> SignedDocument:
    return sign_document(Regions(version, 0, list(places)), KEY)


@pytest.fixture
def library() -> Library:
    return Library(samples.network())


def refused(library: Library, signed: SignedDocument) -> ErrorCode:
    before = library.versions()
    with pytest.raises(RemoteProtocolError) as caught:
        library.take(signed)
    assert library.versions() == before
    return caught.value.code


def test_an_empty_library_lets_everybody_in_with_any_software(library: Library) -> None:
    assert library.rules == NO_RULES
    assert not NO_RULES.refuses(b"", 0)
    assert (library.all(), library.versions(), library.newer_than([])) == ([], [], [])


def test_the_first_document_and_every_newer_one_count(library: Library) -> None:
    assert library.take(revocations(1, NODE))
    assert library.rules.revoked == {NODE: "key lost"}
    assert library.take(revocations(5, NODE, CLIENT))
    assert set(library.rules.revoked) == {NODE, CLIENT}
    assert library.take(revocations(6))
    assert library.rules.revoked == {}


def test_a_rollback_is_refused(library: Library) -> None:
    library.take(revocations(5, NODE))
    assert refused(library, revocations(4)) is ErrorCode.STALE
    assert set(library.rules.revoked) == {NODE}


def test_what_stands_is_no_news_and_its_signature_is_not_looked_at_again(library: Library) -> None:
    signed = revocations(5, NODE)
    library.take(signed)
    assert not library.take(signed)
    assert not library.take(SignedDocument(signed.kind, signed.body, bytes(64)))
    assert library.all() == [signed]


def test_another_signer_and_a_cut_body_are_refused(library: Library) -> None:
    good = revocations(2)
    library.take(revocations(1))
    forged = sign_document(Revocations(9, 0, []), samples.p256("node"))
    assert refused(library, forged) is ErrorCode.PROOF_INVALID
    assert refused(library, SignedDocument(good.kind, good.body[:-1], good.signature)) is ErrorCode.PROOF_INVALID
    assert refused(library, SignedDocument(77, good.body, good.signature)) is ErrorCode.UNSUPPORTED


def test_two_documents_of_one_version_end_as_one_in_any_order() -> None:
    lower, higher = sorted([revocations(3, NODE), revocations(3, CLIENT)], key=lambda one: samples.hashed(one.body))
    one, other = Library(samples.network()), Library(samples.network())
    one.take(higher)
    assert refused(one, lower) is ErrorCode.STALE
    assert other.take(lower)
    assert other.take(higher)
    assert one.all() == other.all() == [higher]


def test_kinds_do_not_touch_one_another(library: Library) -> None:
    library.take(revocations(9, NODE))
    library.take(policy(1, healing="off", guard="5"))
    software = samples.digest("software")
    library.take(sign_document(Releases(2, 0, [Release(software, "1", 0)]), KEY))
    assert library.rules == Rules({NODE: "key lost"}, {software: 0}, (("guard", "5"), ("healing", "off")))
    assert [version.kind for version in library.versions()] == [Kind.REVOCATIONS, Kind.RELEASES, Kind.POLICY]


def test_who_is_behind_is_offered_what_is_newer_and_nothing_else(library: Library) -> None:
    library.take(revocations(5))
    library.take(policy(2))
    mine = library.versions()
    assert library.newer_than(mine) == []
    assert library.newer_than([]) == library.all()
    assert library.newer_than(mine[1:]) == library.all()[:1]
    ahead = DocumentVersion(Kind.REVOCATIONS, 6, bytes(32))
    assert library.newer_than([ahead]) == library.all()[1:]


def test_it_lacks_what_others_have_newer_but_no_kind_that_it_does_not_know(library: Library) -> None:
    library.take(revocations(5))
    mine = library.versions()
    assert not library.lacks(mine)
    assert not library.lacks([DocumentVersion(Kind.REVOCATIONS, 4, b"\xff" * 32)])
    assert library.lacks([DocumentVersion(Kind.REVOCATIONS, 6, bytes(32))])
    assert library.lacks([DocumentVersion(Kind.POLICY, 1, bytes(32))])
    assert not library.lacks([DocumentVersion(200, 9, bytes(32))])


@given(st.permutations([1, 2, 3, 4, 5]))
def test_whatever_the_order_the_newest_stands(order: list[int]) -> None:
    library = Library(samples.network())
    for version in order:
        signed = revocations(version)
        if is_newer(DocumentVersion(1, version, bytes(32)), DocumentVersion(1, _stands(library), b"\xff" * 32)):
            assert library.take(signed)
        else:
            assert refused(library, signed) is ErrorCode.STALE
    assert _stands(library) == 5


def _stands(library: Library) -> int:
    return max((version.version for version in library.versions()), default=0)


def test_software_is_refused_when_it_is_not_listed_or_its_time_is_over() -> None:
    rules = Rules(releases={b"a": 0, b"b": 100})
    assert [rules.refuses(software, 100.0) for software in (b"a", b"b", b"c")] == [False, True, True]
    assert not rules.refuses(b"b", 99.0)


def test_the_regions_are_those_of_the_newest_document_and_the_built_in_ones_before(library: Library) -> None:
    assert library.rules.regions is BUILT_IN
    library.take(regions(5, Place("lisbon", 38_720_000, -9_140_000), Place("porto", 41_150_000, -8_610_000)))
    table = library.rules.regions
    assert list(table.regions) == ["lisbon", "porto"]
    assert table.named("porto").latitude == 41.15
    assert table.near["porto"] == {"lisbon"}
    library.take(revocations(9, NODE))
    assert library.rules.regions is table, "it is made once, whatever else is learned"
    assert refused(library, regions(4, Place("lisbon", 0, 0))) is ErrorCode.STALE
    library.take(regions(6, Place("lisbon", 0, 0)))
    assert list(library.rules.regions.regions) == ["lisbon"]
