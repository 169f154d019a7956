"""Drain receipts: what a node signs opens, and nothing that differs by a byte, in its signer or in its time does."""

from __future__ import annotations

import msgspec
import pytest

from protocol.certificates import Role, verify_drain
from protocol.drains import DrainReceipt
from protocol.errors import RemoteProtocolError
from protocol.records import sign
from tests.protocol import samples
from tests.protocol.test_grants import cut, flipped


def test_a_receipt_opens_as_it_was_signed() -> None:
    assert verify_drain(samples.network(), samples.signed_drain()) == samples.drain_receipt()


def test_no_receipt_with_another_byte_opens() -> None:
    root = samples.network()
    for spoilt in [*flipped(samples.signed_drain()), *cut(samples.signed_drain())]:
        with pytest.raises(RemoteProtocolError):
            verify_drain(root, spoilt)


@pytest.mark.parametrize(
    "changes",
    [
        {"node": samples.digest("holder 0")},
        {"ended_unix_s": 10**12},
        {"ended_unix_s": 1, "began_unix_s": 0},
        {"began_unix_s": samples.NOW_UNIX_S + 1},
        {"chain": [samples.role_leaf(Role.CLIENT)]},
    ],
    ids=["of another node", "after its chain", "before its chain", "ends before it begins", "of a client"],
)
def test_a_receipt_that_its_chain_does_not_bear_out_counts_for_nothing(changes: dict[str, object]) -> None:
    made_up = msgspec.structs.replace(samples.drain_receipt(), **changes)
    with pytest.raises(RemoteProtocolError):
        verify_drain(samples.network(), sign(made_up, samples.ed("node leaf")))


def test_the_order_of_its_fields_is_the_wire_format() -> None:
    assert DrainReceipt.__struct_fields__ == (
        "node",
        "began_unix_s",
        "ended_unix_s",
        "parts",
        "shard_bytes",
        "chain",
    )
