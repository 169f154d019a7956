"""Every error code leads to the exit code of the contract."""

from __future__ import annotations

import pytest

from lockbox_node.errors import (
    AssetNotFound,
    CertificateInvalid,
    ConfigError,
    ExitCode,
    KeyStoreError,
    LockboxError,
    NotEnoughShards,
    PeerUnreachable,
    QuotaExceeded,
    ShardCorrupt,
    StoreFull,
    Superseded,
    UsageError,
    worst,
)
from protocol.errors import ErrorCode


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (UsageError("x"), 2),
        (AssetNotFound("x"), 3),
        (KeyStoreError("x"), 4),
        (QuotaExceeded("x"), 4),
        (LockboxError("x", code=ErrorCode.RATE_LIMITED), 4),
        (LockboxError("x", code=ErrorCode.NOT_A_MEMBER), 4),
        (Superseded("x"), 4),
        (CertificateInvalid("x"), 4),
        (NotEnoughShards("x"), 5),
        (LockboxError("x", code=ErrorCode.INSUFFICIENT_REGIONS), 5),
        (ShardCorrupt("x"), 6),
        (PeerUnreachable("x"), 7),
        (ConfigError("x"), 78),
        (LockboxError("x", code=ErrorCode.DESTRUCTION_INCOMPLETE), 8),
        (StoreFull("x"), 1),
        (LockboxError("x"), 1),
    ],
)
def test_each_error_ends_the_command_as_the_contract_says(error: LockboxError, exit_code: int) -> None:
    assert error.exit_code == exit_code


def test_the_worst_of_several_codes_is_what_endangers_most() -> None:
    assert worst([]) is ExitCode.DONE
    assert worst([ExitCode.DEGRADED, ExitCode.DONE]) is ExitCode.DEGRADED
    assert worst([ExitCode.NOT_FOUND, ExitCode.NOT_ENOUGH, ExitCode.UNREACHABLE]) is ExitCode.NOT_ENOUGH
    assert all(worst([code]) is code for code in ExitCode)


def test_every_wire_code_has_an_exit_code() -> None:
    assert all(isinstance(LockboxError("x", code=code).exit_code, ExitCode) for code in ErrorCode)


def test_only_what_may_pass_by_itself_is_retryable() -> None:
    retryable = {code for code in ErrorCode if LockboxError("x", code=code).retryable}
    assert retryable == {ErrorCode.RATE_LIMITED, ErrorCode.BUSY, ErrorCode.NETWORK_PARTITIONED}
