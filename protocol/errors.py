"""What can go wrong between two nodes: the error codes of the wire and who is to blame.

`LocalProtocolError` is our own mistake (we tried to send something the contract forbids); `RemoteProtocolError` is
the peer's: it ends that peer's part, never the process. Codes and their meaning: SPEC.md, Errors.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """The codes that a refusal carries on the wire, and that the commands print."""

    SHARD_UNAVAILABLE = "SHARD_UNAVAILABLE"
    SHARD_CORRUPT = "SHARD_CORRUPT"
    ACCESS_DENIED = "ACCESS_DENIED"
    PROOF_INVALID = "PROOF_INVALID"
    GRANT_INVALID = "GRANT_INVALID"
    GRANT_REPLAYED = "GRANT_REPLAYED"
    GRANT_EXPIRED = "GRANT_EXPIRED"
    GRANT_EARLY = "GRANT_EARLY"
    GRANT_FOREIGN = "GRANT_FOREIGN"
    GRANT_OPERATION = "GRANT_OPERATION"
    GRANT_UNKNOWN_SIGNER = "GRANT_UNKNOWN_SIGNER"
    GRANT_FAR = "GRANT_FAR"
    GRANT_DUPLICATE = "GRANT_DUPLICATE"
    GRANTS_TOO_FEW = "GRANTS_TOO_FEW"
    INSUFFICIENT_REGIONS = "INSUFFICIENT_REGIONS"
    INSUFFICIENT_NODES = "INSUFFICIENT_NODES"
    INSUFFICIENT_OPERATORS = "INSUFFICIENT_OPERATORS"
    INSUFFICIENT_SHARDS = "INSUFFICIENT_SHARDS"
    NETWORK_PARTITIONED = "NETWORK_PARTITIONED"
    TIER_VIOLATION = "TIER_VIOLATION"
    NOT_FOUND = "NOT_FOUND"
    METADATA_CORRUPT = "METADATA_CORRUPT"
    RATE_LIMITED = "RATE_LIMITED"
    INVALID_SOFTWARE_VERSION = "INVALID_SOFTWARE_VERSION"
    REVOKED = "REVOKED"
    NOT_A_MEMBER = "NOT_A_MEMBER"
    ROLE_FORBIDDEN = "ROLE_FORBIDDEN"
    STORE_FULL = "STORE_FULL"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    CONFLICT = "CONFLICT"
    STALE = "STALE"
    TOO_LARGE = "TOO_LARGE"
    UNSUPPORTED = "UNSUPPORTED"
    CLOCK_SKEW = "CLOCK_SKEW"
    DESTRUCTION_INCOMPLETE = "DESTRUCTION_INCOMPLETE"
    ROTATION_FAILED = "ROTATION_FAILED"
    INTERVAL_TOO_SHORT = "INTERVAL_TOO_SHORT"
    BUSY = "BUSY"
    INTERNAL = "INTERNAL"


class ProtocolError(Exception):
    """Something broke the contract of SPEC.md."""


class LocalProtocolError(ProtocolError):
    """We built what the contract forbids: a defect of ours."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what the contract forbids. `code` is what we answer before we end the connection."""

    def __init__(self, message: str, code: ErrorCode = ErrorCode.PROOF_INVALID) -> None:
        super().__init__(message)
        self.code = code
