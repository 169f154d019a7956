"""The wallet's list: siblings share an address and are told apart; a name never means two assets."""

from __future__ import annotations

import msgspec
import pytest

from lockbox_node.client.listing import merged, named, order_of
from lockbox_node.client.wallet import AssetEntry, asset_id
from lockbox_node.errors import AssetNotFound, UsageError
from protocol.ids import Address

DAY_S = 86_400


def an_asset(index: int = 1, locked: bytes = b"a", label: str = "", version: int = 1, lease_s: int = 0) -> AssetEntry:
    """`locked` tells the machines apart that used one index."""
    until = 1_900_000_000 + lease_s
    return AssetEntry(index, Address(bytes([index]) * 32), version, 1, 5000, label, 1_800_000_000, until, locked * 32)


ALONE, OTHER = an_asset(), an_asset(locked=b"b")
FIRST, SECOND = (msgspec.structs.replace(asset, sibling=True) for asset in (ALONE, OTHER))


def test_siblings_are_both_kept_and_have_ids_of_their_own() -> None:
    assert merged([ALONE], [OTHER]) == merged([], [ALONE, OTHER]) == [FIRST, SECOND]
    assert len({ALONE.asset_id, FIRST.asset_id, SECOND.asset_id}) == 3
    for asset in (FIRST, SECOND):
        assert asset.asset_id == asset.sibling_id
        assert asset.asset_id.startswith(asset_id(asset.address) + "-")


def test_what_is_known_of_one_sibling_is_replaced_and_the_other_stays() -> None:
    renewed = an_asset(lease_s=DAY_S)
    assert merged([FIRST, SECOND], [renewed]) == [msgspec.structs.replace(renewed, sibling=True), SECOND]


def test_an_asset_that_was_a_sibling_once_keeps_its_id() -> None:
    assert merged([FIRST], [ALONE]) == [FIRST]


def test_another_version_of_an_asset_is_no_sibling_of_it() -> None:
    newer = an_asset(locked=b"c", version=2)
    assert merged([ALONE, an_asset(2)], [newer]) == [an_asset(2), newer]


def test_a_sibling_is_named_by_its_own_id_and_the_common_beginning_names_both() -> None:
    assert named([FIRST, SECOND], FIRST.asset_id) == FIRST
    assert named([FIRST, SECOND], f" {SECOND.asset_id.upper()}") == SECOND
    assert named([FIRST, SECOND], SECOND.asset_id[:-3]) == SECOND
    for both in (asset_id(ALONE.address), ALONE.asset_id[:3]):
        with pytest.raises(UsageError, match="names 2 assets"):
            named([FIRST, SECOND], both)


def test_the_id_that_another_wallet_shows_is_good_where_the_asset_stands_alone() -> None:
    assert named([ALONE, an_asset(2)], FIRST.asset_id) == ALONE
    with pytest.raises(AssetNotFound):
        named([ALONE], SECOND.asset_id)


def test_assets_stand_by_index_and_siblings_by_age() -> None:
    older = msgspec.structs.replace(SECOND, created_unix_s=1)
    assert sorted([an_asset(2), FIRST, older], key=order_of) == [older, FIRST, an_asset(2)]
