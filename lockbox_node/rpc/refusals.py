"""Errors to refusals and back: what a LockboxError looks like on the wire.

Texts are cut to the limits of the wire. A code that we do not know (a later version's) reads as INTERNAL and keeps its
words. Source: SPEC.md, Errors.
"""

from __future__ import annotations

from lockbox_node.errors import LockboxError, RequestRefused
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.messages import Refusal, Signed

TEXT_MAX = 512
RETRY_MS_MAX = 2**32 - 1


def refusal_of(error: LockboxError | RemoteProtocolError) -> Refusal:
    """What the peer is told."""
    if isinstance(error, RemoteProtocolError):
        return Refusal(error.code, str(error)[:TEXT_MAX])
    proof = error.proof if isinstance(error, RequestRefused) and isinstance(error.proof, Signed) else None
    retry_after_ms = min(int(error.retry_after_s * 1000 + 0.999), RETRY_MS_MAX)
    return Refusal(error.code, error.message[:TEXT_MAX], error.hint[:TEXT_MAX], error.retryable, retry_after_ms, proof)


def error_of(refusal: Refusal) -> RequestRefused:
    """What the asker gets."""
    known = refusal.code in ErrorCode.__members__
    code = ErrorCode(refusal.code) if known else ErrorCode.INTERNAL
    message = refusal.message if known else f"{refusal.code}: {refusal.message}"
    error = RequestRefused(message, refusal.hint, code)
    error.retryable = refusal.retryable
    error.retry_after_s = refusal.retry_after_ms / 1000
    error.proof = refusal.proof
    return error


def busy(why: str) -> LockboxError:
    """A limit of ours is reached for the moment."""
    return LockboxError(why, "try again in a moment", ErrorCode.BUSY)
