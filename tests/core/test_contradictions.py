"""Certificates side by side: chains are found, and nobody honest is accused."""

from __future__ import annotations

import pytest

from lockbox_node.core.audit import Verdict
from lockbox_node.core.certified import Examined, examined
from lockbox_node.core.contradictions import contradictions, predecessors
from lockbox_node.core.possession import Witness, witnessed
from lockbox_node.errors import CertificateInvalid
from protocol.possession_file import file_digest
from tests.fakes.granting import network, verifier
from tests.fakes.possession import Paper, statement_by
from tests.fakes.stripes import bytes_of

ROOT = network().root
PAPER = Paper()
LATER = Paper(certificate=bytes_of("later"))
LYING = {0: Verdict.MISSING}


def said(paper: Paper, by: int = 0, seen: dict[int, Verdict] | None = None, /, **changes: object) -> Witness:
    audit = paper.audit()
    return witnessed(ROOT, audit, statement_by(verifier(by), audit, seen, **changes))


def test_different_things_at_different_times_are_no_contradiction() -> None:
    first = said(PAPER)
    honest = [
        first,
        first,
        said(PAPER, 1),  # another node with the same number in its life
        said(LATER, 0, LYING, number=2, previous=first.digest),
        said(LATER, 1, life=2),
    ]
    assert contradictions(honest) == []


@pytest.mark.parametrize(
    ("paper", "changes", "shared"),
    [
        (LATER, {"number": 1}, "number 1 of its life 1"),
        (PAPER, {"number": 7, "life": 3}, "the same request"),
        (LATER, {"number": 7, "previous": bytes_of("head")}, "the same statement before it"),
    ],
)
def test_two_statements_that_share_what_they_cannot_are_a_proof(
    paper: Paper, changes: dict[str, object], shared: str
) -> None:
    one = said(PAPER, previous=bytes_of("head"))
    other = said(paper, 0, LYING, **changes)
    [found] = contradictions([one, said(PAPER, 1), other])
    assert (found.node, found.shared) == (verifier(0).id, shared)
    assert {found.one.digest, found.other.digest} == {one.digest, other.digest}


def chain(*papers: Paper) -> list[Examined]:
    return [examined(ROOT, paper.file()) for paper in papers]


def test_a_certificate_follows_the_one_that_it_names() -> None:
    after = Paper(certificate=bytes_of("later"), previous=file_digest(PAPER.file()), time_unix_s=PAPER.time_unix_s + 60)
    one, other = chain(PAPER, after)
    assert predecessors([other, one]) == [one, None]
    assert predecessors([other]) == [None]


def test_none_follows_a_stranger_or_a_younger_one() -> None:
    digest = file_digest(PAPER.file())
    foreign = Paper(seed="another", certificate=bytes_of("later"), previous=digest)
    with pytest.raises(CertificateInvalid, match="another asset"):
        predecessors(chain(PAPER, foreign))
    early = Paper(certificate=bytes_of("later"), previous=digest, time_unix_s=PAPER.time_unix_s - 3600)
    with pytest.raises(CertificateInvalid, match="younger"):
        predecessors(chain(PAPER, early))
