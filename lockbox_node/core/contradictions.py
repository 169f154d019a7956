"""Several certificates side by side: which follows which, and who has signed two statements that cannot both be honest.

An honest verifier numbers its statements within a life, answers a request once, and names its last statement about an
address in the next one only. So two different statements of one signer with the same number, request or predecessor are
a proof against it that anybody can check, whoever brings them. Source: SPEC.md, Possession certificates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lockbox_node.errors import CertificateInvalid
from protocol.possession import NOTHING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lockbox_node.core.certified import Examined
    from lockbox_node.core.possession import Witness


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two statements of one node, of which at most one was honest, and what they share."""

    one: Witness
    other: Witness
    shared: str

    @property
    def node(self) -> bytes:
        """Who signed both."""
        return self.one.signer.id


def contradictions(witnesses: Iterable[Witness]) -> list[Contradiction]:
    """The proofs in these statements; of two statements one proof, whatever they share."""
    seen: dict[tuple[object, ...], Witness] = {}
    found: dict[tuple[bytes, bytes], Contradiction] = {}
    for one in witnesses:
        for shared, key in _keys(one):
            other = seen.setdefault((one.signer.id, *key), one)
            if other.digest != one.digest:
                found.setdefault((other.digest, one.digest), Contradiction(other, one, shared))
    return list(found.values())


def _keys(one: Witness) -> Iterator[tuple[str, tuple[object, ...]]]:
    statement = one.statement
    yield f"number {statement.number} of its life {statement.life}", ("number", statement.life, statement.number)
    yield "the same request", ("request", statement.request)
    if statement.previous != NOTHING:
        yield "the same statement before it", ("previous", statement.previous)


def predecessors(certificates: Sequence[Examined]) -> list[Examined | None]:
    """Which of them each follows, if that is among them.

    CertificateInvalid when one follows a certificate of another asset, or one that is younger.
    """
    by_digest = {one.digest: one for one in certificates}
    before = [by_digest.get(one.previous) for one in certificates]
    for one, earlier in zip(certificates, before, strict=True):
        if earlier is None:
            continue
        if earlier.address != one.address:
            raise CertificateInvalid("a certificate that follows one of another asset", "its owner linked them wrongly")
        if earlier.times_unix_s[0] > one.times_unix_s[1]:
            raise CertificateInvalid("a certificate that follows a younger one", "one of its signers' clocks is off")
    return before
