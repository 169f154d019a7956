"""Statements of possession on the wire: what is signed opens, nothing that differs by a byte does, limits fit."""

from __future__ import annotations

from itertools import count

import msgspec
import pytest

from protocol.certificates import CLOCKS_APART_S, Role, verify_statement
from protocol.codec import encode_reply
from protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from protocol.messages import NUMBERS, Signed
from protocol.possession import PLACES_MAX, AskAudit, Finding, Place
from protocol.records import open_audit_request, sign
from tests.protocol import possession_samples, samples
from tests.protocol.test_grants import cut, flipped

DESCRIPTOR, CHAIN = samples.signed_descriptor(), samples.node_chain()
REQUEST = possession_samples.ask_audit(DESCRIPTOR, samples.signed_claim(11)).request
STATEMENT = possession_samples.signed_statement(DESCRIPTOR, CHAIN)


def test_a_request_opens_as_it_was_signed() -> None:
    assert open_audit_request(REQUEST) == possession_samples.audit_request(DESCRIPTOR)


def test_a_statement_opens_with_the_node_that_signed_it() -> None:
    statement, signer = verify_statement(samples.network(), STATEMENT)
    assert statement == possession_samples.statement(DESCRIPTOR, CHAIN)
    assert (signer.role, signer.id) == (Role.NODE, samples.node_record().node)


def test_no_request_with_another_byte_opens() -> None:
    for spoilt in [*flipped(REQUEST), *cut(REQUEST)]:
        with pytest.raises(RemoteProtocolError):
            open_audit_request(spoilt)


def test_no_statement_with_another_byte_opens() -> None:
    for spoilt in [*flipped(STATEMENT), *cut(STATEMENT)]:
        with pytest.raises(RemoteProtocolError):
            verify_statement(samples.network(), spoilt)


def test_a_client_states_nothing_whatever_it_signs() -> None:
    made_up = possession_samples.statement(DESCRIPTOR, [samples.role_leaf(Role.CLIENT)])
    with pytest.raises(RemoteProtocolError) as refused:
        verify_statement(samples.network(), sign(made_up, samples.ed(str(Role.CLIENT))))
    assert refused.value.code is ErrorCode.NOT_A_MEMBER


@pytest.mark.parametrize(
    "time_unix_s", [samples.TERMS.not_before_unix_s - CLOCKS_APART_S - 1, samples.TERMS.not_after_unix_s + 1]
)
def test_a_statement_from_a_time_at_which_its_chain_was_not_valid_is_refused(time_unix_s: int) -> None:
    late = possession_samples.signed_statement(DESCRIPTOR, CHAIN, time_unix_s=time_unix_s)
    with pytest.raises(RemoteProtocolError, match="not valid"):
        verify_statement(samples.network(), late)


def test_the_fullest_statement_fits_in_what_carries_it() -> None:
    text, numbers = "\N{GRINNING FACE}" * 64, count()
    findings = [
        Finding(255, next(numbers).to_bytes(32, "big"), 3, 2**32 - 1, 2**32 - 1, text, text, 3, 2)
        for _ in range(PLACES_MAX)
    ]
    full = possession_samples.statement(DESCRIPTOR, [bytes(4096)] * 2, region=text, findings=findings)
    signed = sign(full, samples.ed("node leaf"))
    frame = encode_reply(1, signed, NUMBERS[AskAudit])
    assert msgspec.msgpack.decode(frame[4:])[3] == [signed.body, signed.signature]
    msgspec.convert([signed.body, signed.signature], Signed)


def test_more_places_than_the_limit_cannot_be_asked_for() -> None:
    many = [Place(0, index.to_bytes(32, "big")) for index in range(PLACES_MAX + 1)]
    for places in (many, []):
        with pytest.raises(LocalProtocolError):
            sign(possession_samples.audit_request(DESCRIPTOR, places=places), samples.ed("asset"))
