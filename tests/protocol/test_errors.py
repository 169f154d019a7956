"""Codes are their own names; a peer's fault carries what we answer."""

from __future__ import annotations

from protocol.errors import ErrorCode, LocalProtocolError, ProtocolError, RemoteProtocolError
from protocol.messages import Refusal


def test_a_code_is_its_name_and_fits_a_refusal() -> None:
    for code in ErrorCode:
        assert code == code.name
        assert len(code) <= 64
        assert Refusal(code, "").code == code.value


def test_a_peers_fault_carries_its_answer() -> None:
    assert RemoteProtocolError("why").code is ErrorCode.PROOF_INVALID
    assert RemoteProtocolError("why", ErrorCode.TOO_LARGE).code is ErrorCode.TOO_LARGE
    assert str(RemoteProtocolError("why")) == "why"


def test_both_faults_are_protocol_errors_and_neither_is_the_other() -> None:
    assert issubclass(LocalProtocolError, ProtocolError)
    assert issubclass(RemoteProtocolError, ProtocolError)
    assert not issubclass(LocalProtocolError, RemoteProtocolError)
    assert not issubclass(RemoteProtocolError, LocalProtocolError)
