"""Documents on the disk: what was saved is loaded; what is damaged, cut, too large or misplaced is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lockbox_node.adapters.document_files import FILE_BYTES_MAX, file_of, load_documents, load_rules, save_documents
from lockbox_node.core.documents import NO_RULES
from lockbox_node.errors import ConfigError
from protocol.documents import Kind, sign_document
from tests.protocol import samples

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real

ALL = [samples.signed_document(name) for name in samples.documents()]


def test_what_was_saved_is_loaded_by_kind(tmp_path: Path) -> None:
    assert load_documents(tmp_path / "network") == []
    save_documents(tmp_path / "network", reversed(ALL))
    assert load_documents(tmp_path / "network") == ALL
    assert sorted(path.name for path in (tmp_path / "network").iterdir()) == [
        "policy.doc", "regions.doc", "releases.doc", "revocations.doc",
    ]  # fmt: skip


def test_what_stands_is_not_written_again(tmp_path: Path) -> None:
    save_documents(tmp_path, ALL)
    before = file_of(tmp_path, Kind.POLICY).stat().st_ino
    save_documents(tmp_path, ALL)
    assert file_of(tmp_path, Kind.POLICY).stat().st_ino == before


@pytest.mark.parametrize("content", [b"", b"\xc1", bytes(FILE_BYTES_MAX + 1), b"\x93\x01\xc4\x01x"], ids=len)
def test_a_bad_file_is_as_good_as_none_and_hides_no_other(tmp_path: Path, content: bytes) -> None:
    save_documents(tmp_path, ALL)
    file_of(tmp_path, Kind.REVOCATIONS).write_bytes(content)
    assert load_documents(tmp_path) == ALL[1:]


def test_a_file_cut_anywhere_is_left_out(tmp_path: Path) -> None:
    save_documents(tmp_path, ALL[:1])
    path = file_of(tmp_path, Kind.REVOCATIONS)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert load_documents(tmp_path) == []


def test_a_document_under_the_name_of_another_kind_is_left_out(tmp_path: Path) -> None:
    save_documents(tmp_path, ALL)
    file_of(tmp_path, Kind.POLICY).write_bytes(file_of(tmp_path, Kind.RELEASES).read_bytes())
    assert load_documents(tmp_path) == ALL[:3]


def test_where_nothing_can_be_written_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "network").write_bytes(b"a file")
    with pytest.raises(ConfigError, match="cannot be written"):
        save_documents(tmp_path / "network", ALL)


def test_what_documents_say_is_read_and_one_of_another_authority_is_refused(tmp_path: Path) -> None:
    save_documents(tmp_path, ALL)
    assert list(load_rules(tmp_path, samples.network()).regions.regions) == ["eu-helsinki", "sa-east-1"]
    assert load_rules(tmp_path / "nothing", samples.network()) == NO_RULES
    forged = sign_document(samples.documents()["regions"], samples.p256("node"))
    save_documents(tmp_path, [forged])
    with pytest.raises(ConfigError, match="holds a bad document"):
        load_rules(tmp_path, samples.network())
