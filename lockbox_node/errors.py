"""The error tree: what happened, what to do, which code the wire and which exit code the shell sees.

No message ever holds a secret; a library's text may, so it is not passed on. Exit codes: CONTRACT, Exit codes.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable


class ExitCode(IntEnum):
    """What the commands end with."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    NOT_ENOUGH = 5
    CORRUPT = 6
    UNREACHABLE = 7
    DEGRADED = 8
    CONFIG = 78


_EXIT_OF_CODE = {
    ErrorCode.NOT_FOUND: ExitCode.NOT_FOUND,
    ErrorCode.ACCESS_DENIED: ExitCode.REFUSED,
    ErrorCode.GRANT_INVALID: ExitCode.REFUSED,
    ErrorCode.GRANT_REPLAYED: ExitCode.REFUSED,
    ErrorCode.GRANT_EXPIRED: ExitCode.REFUSED,
    ErrorCode.GRANT_EARLY: ExitCode.REFUSED,
    ErrorCode.GRANT_FOREIGN: ExitCode.REFUSED,
    ErrorCode.GRANT_OPERATION: ExitCode.REFUSED,
    ErrorCode.GRANT_UNKNOWN_SIGNER: ExitCode.REFUSED,
    ErrorCode.GRANT_FAR: ExitCode.REFUSED,
    ErrorCode.GRANT_DUPLICATE: ExitCode.REFUSED,
    ErrorCode.GRANTS_TOO_FEW: ExitCode.REFUSED,
    ErrorCode.TIER_VIOLATION: ExitCode.REFUSED,
    ErrorCode.RATE_LIMITED: ExitCode.REFUSED,
    ErrorCode.BUSY: ExitCode.REFUSED,
    ErrorCode.INVALID_SOFTWARE_VERSION: ExitCode.REFUSED,
    ErrorCode.REVOKED: ExitCode.REFUSED,
    ErrorCode.NOT_A_MEMBER: ExitCode.REFUSED,
    ErrorCode.ROLE_FORBIDDEN: ExitCode.REFUSED,
    ErrorCode.QUOTA_EXCEEDED: ExitCode.REFUSED,
    ErrorCode.CLOCK_SKEW: ExitCode.REFUSED,
    ErrorCode.INSUFFICIENT_REGIONS: ExitCode.NOT_ENOUGH,
    ErrorCode.INSUFFICIENT_NODES: ExitCode.NOT_ENOUGH,
    ErrorCode.INSUFFICIENT_OPERATORS: ExitCode.NOT_ENOUGH,
    ErrorCode.INSUFFICIENT_SHARDS: ExitCode.NOT_ENOUGH,
    ErrorCode.SHARD_CORRUPT: ExitCode.CORRUPT,
    ErrorCode.METADATA_CORRUPT: ExitCode.CORRUPT,
    ErrorCode.NETWORK_PARTITIONED: ExitCode.UNREACHABLE,
    ErrorCode.DESTRUCTION_INCOMPLETE: ExitCode.DEGRADED,
}
_GRAVEST_LAST = (
    ExitCode.DONE,
    ExitCode.DEGRADED,
    ExitCode.USAGE,
    ExitCode.CONFIG,
    ExitCode.REFUSED,
    ExitCode.UNREACHABLE,
    ExitCode.FAILED,
    ExitCode.NOT_FOUND,
    ExitCode.CORRUPT,
    ExitCode.NOT_ENOUGH,
)


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """The code of a command that did several things: that of the one which ended worst."""
    return max(codes, key=_GRAVEST_LAST.index, default=ExitCode.DONE)


class LockboxError(Exception):
    """Anything that we answer for. `message` says what happened, `hint` what to do."""

    code: ErrorCode = ErrorCode.INTERNAL

    def __init__(self, message: str, hint: str = "", code: ErrorCode | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code
        self.retryable = self.code in (ErrorCode.RATE_LIMITED, ErrorCode.BUSY, ErrorCode.NETWORK_PARTITIONED)
        self.retry_after_s = 0.0

    @property
    def exit_code(self) -> ExitCode:
        """The shell's code for this error."""
        return _EXIT_OF_CODE.get(self.code, ExitCode.FAILED)


class UsageError(LockboxError):
    """The command line asks for what cannot be."""

    @property
    def exit_code(self) -> ExitCode:
        """Always 2."""
        return ExitCode.USAGE


class ConfigError(LockboxError):
    """A configuration file, key file, certificate file or data_dir that cannot be used."""

    @property
    def exit_code(self) -> ExitCode:
        """Always 78."""
        return ExitCode.CONFIG


class PeerUnreachable(LockboxError):
    """No connection, a lost connection, or no answer in time."""

    code = ErrorCode.NETWORK_PARTITIONED


class RequestRefused(LockboxError):
    """A peer answered with a refusal; `proof` is the raw signed slot or tombstone it carried, if any."""

    proof: object | None = None


class Superseded(LockboxError):
    """Another process speaks as this node, with a later epoch: this one may not serve."""

    code = ErrorCode.CONFLICT

    @property
    def exit_code(self) -> ExitCode:
        """Always 4: refused."""
        return ExitCode.REFUSED


class AssetNotFound(LockboxError):
    """No asset by that name, here or in the network."""

    code = ErrorCode.NOT_FOUND


class ShardMissing(LockboxError):
    """The store does not have it."""

    code = ErrorCode.SHARD_UNAVAILABLE


class ShardCorrupt(LockboxError):
    """The bytes did not match their id: they were quarantined and not served."""

    code = ErrorCode.SHARD_CORRUPT


class CertificateInvalid(LockboxError):
    """A possession certificate that proves nothing, or whose signers contradict themselves."""

    code = ErrorCode.PROOF_INVALID

    @property
    def exit_code(self) -> ExitCode:
        """Always 4: refused."""
        return ExitCode.REFUSED


class StoreFull(LockboxError):
    """No room; nothing was written."""

    code = ErrorCode.STORE_FULL


class QuotaExceeded(LockboxError):
    """The client's or the node's quota is used up; nothing was written."""

    code = ErrorCode.QUOTA_EXCEEDED


class NotEnoughShards(LockboxError):
    """Fewer than k good shards of a group."""

    code = ErrorCode.INSUFFICIENT_SHARDS


class KeyStoreError(LockboxError):
    """A key that cannot be read or used."""

    @property
    def exit_code(self) -> ExitCode:
        """Always 4: refused."""
        return ExitCode.REFUSED
