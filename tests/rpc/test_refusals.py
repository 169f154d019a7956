"""Errors on the wire and back."""

from __future__ import annotations

import pytest

from lockbox_node.errors import LockboxError, RequestRefused, StoreFull
from lockbox_node.rpc.refusals import RETRY_MS_MAX, busy, error_of, refusal_of
from protocol.codec import decode_envelope, decode_reply, encode_refusal
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.messages import Ping, Refusal, Signed


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_code_survives_the_way(code: ErrorCode) -> None:
    error = LockboxError("what", "do this", code)
    error.retry_after_s = 0.25
    back = error_of(refusal_of(error))
    assert (back.code, back.message, back.hint) == (code, "what", "do this")
    assert (back.retryable, back.retry_after_s) == (error.retryable, 0.25)


def test_the_proof_of_a_conflict_goes_along() -> None:
    error = RequestRefused("newer", code=ErrorCode.STALE)
    error.proof = Signed(b"x", bytes(64))
    assert error_of(refusal_of(error)).proof == error.proof


def test_a_broken_contract_keeps_its_code() -> None:
    refusal = refusal_of(RemoteProtocolError("a bad signature", ErrorCode.TOO_LARGE))
    assert (refusal.code, refusal.message) == ("TOO_LARGE", "a bad signature")


def test_texts_and_times_are_cut_to_the_limits_of_the_wire() -> None:
    error = StoreFull("m" * 5000, "h" * 5000)
    error.retry_after_s = 1e9
    refusal = refusal_of(error)
    frame = encode_refusal(1, 2, refusal)
    assert decode_reply(decode_envelope(frame[4:]), Ping) == refusal
    assert refusal.retry_after_ms == RETRY_MS_MAX


def test_a_code_of_a_later_version_reads_as_internal_and_keeps_its_words() -> None:
    error = error_of(Refusal("ON_HOLIDAY", "back soon"))
    assert (error.code, error.message) == (ErrorCode.INTERNAL, "ON_HOLIDAY: back soon")


def test_busy_may_be_tried_again() -> None:
    assert busy("full").retryable
