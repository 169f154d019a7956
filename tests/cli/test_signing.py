"""The authority's documents on its disk: each change is the next version, an old copy signs no version twice."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from lockbox_node.cli.authority import create_authority, open_authority
from lockbox_node.cli.signing import FOLDER, Signing
from lockbox_node.core.regions import BUILT_IN
from lockbox_node.errors import ConfigError, UsageError
from protocol.documents import Regions, open_document

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real

A, B = b"a" * 32, b"b" * 32


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    create_authority(tmp_path / "ca", "test")
    return tmp_path / "ca"


def signing(ca: Path) -> Signing:
    return Signing(ca, *open_authority(ca))


def test_a_new_network_has_one_document_of_every_kind_and_the_regions_that_are_known(ca: Path) -> None:
    made, (root, _) = signing(ca), open_authority(ca)
    assert list(made.versions()) == ["revocations", "releases", "regions", "policy"]
    assert (made.revoked(), made.settings()) == ({}, {})
    regions = open_document(made.signed()[2], root.certificate)
    assert isinstance(regions, Regions)
    assert {place.name: (place.latitude / 1e6, place.longitude / 1e6) for place in regions.entries} == {
        name: (region.latitude, region.longitude) for name, region in BUILT_IN.regions.items()
    }


def test_every_change_is_a_higher_version_and_stands_after_a_new_look(ca: Path) -> None:
    versions = [signing(ca).versions()["revocations"]]
    for peer in (B, A):
        assert signing(ca).revoke(peer, "test")
        versions.append(signing(ca).versions()["revocations"])
    assert not signing(ca).revoke(A, "again")
    assert signing(ca).versions()["revocations"] == versions[-1]
    assert versions == sorted(set(versions))
    assert signing(ca).revoked() == {A: "test", B: "test"}


def test_policies_are_merged_and_an_empty_value_takes_one_away(ca: Path) -> None:
    assert signing(ca).set_policy(["hold-off=5", "healing=off"]) == {"healing": "off", "hold-off": "5"}
    assert signing(ca).set_policy(["healing=", "guard=7"]) == {"guard": "7", "hold-off": "5"}
    before = signing(ca).versions()
    for wrong in ("guard", "guard=soon", "colour=red", "hold-off=" + "9" * 65):
        with pytest.raises(UsageError):
            signing(ca).set_policy(["hold-off=1", wrong])
    assert signing(ca).versions() == before


def test_a_release_may_get_another_end(ca: Path) -> None:
    signing(ca).release(A, "1", 0)
    signing(ca).release(B, "2", 0)
    assert [(one.software, one.until_unix_s) for one in signing(ca).release(A, "1", 99)] == [(A, 99), (B, 0)]


def test_an_old_copy_takes_what_is_newer_and_nothing_older(ca: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(ca, old)
    signing(ca).revoke(A, "test")
    assert signing(ca).take(signing(old).signed()) == []
    assert signing(old).take(signing(ca).signed()) == ["revocations"]
    assert signing(old).revoked() == {A: "test"}
    assert signing(old).take(signing(ca).signed()) == []


def test_a_document_of_another_network_is_not_taken_for_ours(ca: Path, tmp_path: Path) -> None:
    create_authority(tmp_path / "other", "other")
    shutil.copytree(tmp_path / "other" / FOLDER, ca / FOLDER, dirs_exist_ok=True)
    with pytest.raises(ConfigError, match="bad document"):
        signing(ca)


@pytest.mark.parametrize("reason", ["", "x" * 65])
def test_a_reason_has_a_length(ca: Path, reason: str) -> None:
    with pytest.raises(UsageError, match="--reason"):
        signing(ca).revoke(A, reason)
