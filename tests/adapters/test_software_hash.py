"""What an installation measures as."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from lockbox_node.adapters.software_hash import files_of, hash_of, installed_files, software_hash

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    home = tmp_path / "package"
    (home / "inner" / "__pycache__").mkdir(parents=True)
    (home / "a.py").write_bytes(b"alpha")
    (home / "inner" / "b.py").write_bytes(b"beta")
    (home / "inner" / "__pycache__" / "b.cpython-311.pyc").write_bytes(b"cache")
    return home


def test_the_hash_is_the_documented_one(tree: Path) -> None:
    def leaf(path: bytes, content: bytes) -> bytes:
        framed = b"\0" + len(path).to_bytes(4, "big") + path + hashlib.sha256(content).digest()
        return hashlib.sha256(framed).digest()

    leaves = leaf(b"package/a.py", b"alpha") + leaf(b"package/inner/b.py", b"beta")
    assert hash_of(files_of("package", tree)) == hashlib.sha256(b"\x01lockbox software" + leaves).digest()


def test_compiled_files_are_left_out(tree: Path) -> None:
    assert sorted(name for name, _ in files_of("package", tree)) == ["package/a.py", "package/inner/b.py"]


@pytest.mark.parametrize("change", ["content", "name", "added", "removed"])
def test_every_change_of_a_file_changes_the_hash(tree: Path, change: str) -> None:
    before = hash_of(files_of("package", tree))
    if change == "content":
        (tree / "a.py").write_bytes(b"alphb")
    elif change == "name":
        (tree / "a.py").rename(tree / "c.py")
    elif change == "added":
        (tree / "new.py").write_bytes(b"")
    else:
        (tree / "a.py").unlink()
    assert hash_of(files_of("package", tree)) != before


def test_the_order_of_the_directory_does_not_matter(tree: Path) -> None:
    files = files_of("package", tree)
    assert hash_of(files) == hash_of(files[::-1])


def test_bytes_cannot_move_between_path_and_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"bc")
    two.write_bytes(b"c")
    assert hash_of([("a", one)]) != hash_of([("ab", two)])


def test_this_installation_is_measured_whole_and_alike_twice() -> None:
    names = [name for name, _ in installed_files()]
    assert "protocol/ids.py" in names
    assert "lockbox_node/adapters/software_hash.py" in names
    assert not [name for name in names if "__pycache__" in name]
    assert len(software_hash()) == 32
    assert software_hash() == hash_of(installed_files())
