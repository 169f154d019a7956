"""A deletion under way, in the wallet: it survives the process and goes with the asset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from lockbox_node.client.burials import Burial, BuriedSibling
from tests.fakes.cluster import Cluster, a_wallet

if TYPE_CHECKING:
    from pathlib import Path

ONE = Burial(bytes([1]) * 32, bytes(32), 3, 1, 1_800_000_000, [bytes([9]) * 32] * 100)
OTHER = Burial(bytes([2]) * 32, bytes(32), 1, 1, 1_800_000_000, [])


def test_a_burial_is_remembered_replaced_and_forgotten(tmp_path: Path) -> None:
    wallet = a_wallet(Cluster(1), tmp_path / "wallet")
    assert wallet.burials() == {}  # made before there were any
    wallet.bury(ONE)
    wallet.bury(OTHER)
    assert wallet.burials() == {ONE.address: ONE, OTHER.address: OTHER}
    left = msgspec.structs.replace(ONE, holders=[bytes([9]) * 32])
    wallet.bury(left)
    assert wallet.burials()[ONE.address] == left
    wallet.unbury(ONE.address)
    wallet.forget(OTHER.address)
    assert wallet.burials() == {}


def test_what_goes_with_it_is_counted_and_a_burial_from_before_has_none(tmp_path: Path) -> None:
    old = msgspec.msgpack.decode(msgspec.msgpack.encode(list(msgspec.structs.astuple(ONE))[:6]), type=Burial)
    assert (old, old.siblings, old.stripes_in_all) == (ONE, (), 3)
    both = msgspec.structs.replace(ONE, siblings=tuple(BuriedSibling(bytes(32), count) for count in (1, 4)))
    assert both.stripes_in_all == 6
    wallet = a_wallet(Cluster(1), tmp_path / "wallet")
    wallet.bury(both)
    assert wallet.burials() == {ONE.address: both}


def test_a_burial_without_room_for_an_id_is_none() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode([bytes(31), bytes(32), 1, 1, 1, []]), type=Burial)
