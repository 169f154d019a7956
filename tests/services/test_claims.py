"""Who may ask about an address."""

from __future__ import annotations

import pytest

from lockbox_node.errors import LockboxError
from lockbox_node.services.claims import is_claimed
from protocol.errors import ErrorCode
from protocol.messages import NUMBERS, GetShards
from tests.fakes.holder_bench import CLIENT, GUEST, HOLDER
from tests.fakes.stripes import NOW_UNIX_S, make_stripe

SIGNER = make_stripe(1).signer


def test_a_claim_of_the_asset_key_gives_leave() -> None:
    for peer in (CLIENT, GUEST, HOLDER):
        access = SIGNER.access(NUMBERS[GetShards], peer.id)
        assert is_claimed(access, SIGNER.address, GetShards, peer, NOW_UNIX_S)


def test_a_node_may_ask_without_one_others_may_not() -> None:
    assert not is_claimed(None, SIGNER.address, GetShards, HOLDER, NOW_UNIX_S)
    for peer in (CLIENT, GUEST):
        with pytest.raises(LockboxError) as refused:
            is_claimed(None, SIGNER.address, GetShards, peer, NOW_UNIX_S)
        assert refused.value.code is ErrorCode.ACCESS_DENIED


def test_a_claim_of_another_time_gives_none() -> None:
    access = SIGNER.access(NUMBERS[GetShards], CLIENT.id)
    with pytest.raises(LockboxError):
        is_claimed(access, SIGNER.address, GetShards, CLIENT, NOW_UNIX_S + 301)
