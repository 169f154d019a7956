"""Grants on the wire: what is signed opens, and nothing that differs by a byte does."""

from __future__ import annotations

import msgspec
import pytest

from protocol.certificates import Role, verify_grant
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.grants import Grant, GrantRequest
from protocol.messages import Signed
from protocol.records import open_grant_request, sign
from tests.protocol import samples


def flipped(signed: Signed) -> list[Signed]:
    """Every byte of body and signature with one bit turned."""
    spoilt = [
        Signed(signed.body[:at] + bytes([signed.body[at] ^ 1]) + signed.body[at + 1 :], signed.signature)
        for at in range(len(signed.body))
    ]
    spoilt += [
        Signed(signed.body, signed.signature[:at] + bytes([signed.signature[at] ^ 1]) + signed.signature[at + 1 :])
        for at in range(len(signed.signature))
    ]
    return spoilt


def cut(signed: Signed) -> list[Signed]:
    """The body cut short at every place, and with a byte too many."""
    return [Signed(signed.body[:length], signed.signature) for length in range(1, len(signed.body))] + [
        Signed(signed.body + b"\0", signed.signature)
    ]


def test_a_request_opens_as_it_was_signed() -> None:
    assert open_grant_request(samples.signed_wish()) == samples.grant_request()


def test_a_grant_opens_with_the_node_that_signed_it() -> None:
    grant, signer = verify_grant(samples.network(), samples.signed_grant())
    assert grant == samples.grant()
    assert (signer.role, signer.id) == (Role.NODE, samples.node_record().node)


def test_no_request_with_another_byte_opens() -> None:
    for spoilt in [*flipped(samples.signed_wish()), *cut(samples.signed_wish())]:
        with pytest.raises(RemoteProtocolError):
            open_grant_request(spoilt)


def test_no_grant_with_another_byte_opens() -> None:
    root = samples.network()
    for spoilt in [*flipped(samples.signed_grant()), *cut(samples.signed_grant())]:
        with pytest.raises(RemoteProtocolError):
            verify_grant(root, spoilt)


def test_a_request_is_no_grant_and_no_access_claim() -> None:
    wish = samples.signed_wish()
    with pytest.raises(RemoteProtocolError):
        open_grant_request(samples.signed_claim())
    as_grant = sign(samples.grant(), samples.ed("asset"))
    assert as_grant.signature != wish.signature
    with pytest.raises(RemoteProtocolError):
        verify_grant(samples.network(), as_grant)  # signed by the asset's key instead of the leaf's


def test_a_client_grants_nothing_whatever_it_signs() -> None:
    made_up = msgspec.structs.replace(samples.grant(), chain=[samples.role_leaf(Role.CLIENT)])
    with pytest.raises(RemoteProtocolError) as refused:
        verify_grant(samples.network(), sign(made_up, samples.ed(str(Role.CLIENT))))
    assert refused.value.code is ErrorCode.NOT_A_MEMBER


def test_both_name_their_fields_in_the_order_of_the_specification() -> None:
    assert GrantRequest.__struct_fields__ == ("public_key", "operation", "requester", "nonce", "time_unix_s")
    assert Grant.__struct_fields__ == ("address", "requester", "operation", "nonce", "expires_unix_s", "chain")
