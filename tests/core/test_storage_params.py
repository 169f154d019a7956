"""Limits of the store and of the storage service are checked where they are made."""

from __future__ import annotations

import pytest

from lockbox_node.core.storage_params import LeaseParams, StorageParams, StoreParams
from lockbox_node.errors import ConfigError


def test_the_defaults_hold() -> None:
    assert StoreParams().group_requests_max == 256
    assert StorageParams().neighbours == 20
    assert LeaseParams().trash_kept_s == 7 * 24 * 3600


@pytest.mark.parametrize(
    "wrong",
    [
        {"capacity_bytes": -1},
        {"group_requests_max": 0},
        {"group_requests_max": 5000},
        {"read_group_max": 0},
        {"idle_s": 0.0},
        {"free_floor_percent": 91.0},
    ],
)
def test_a_store_limit_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"store\."):
        StoreParams(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"spread_batch_max": 0}, {"spread_batch_max": 257}, {"spread_every_s": 0.0}])
def test_a_storage_limit_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"storage\."):
        StorageParams(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"look_every_s": 0.0}, {"leases_every_s": 0.0}, {"trash_kept_s": -1.0}])
def test_a_lease_limit_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"leases\."):
        LeaseParams(**wrong)
