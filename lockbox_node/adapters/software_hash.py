"""What this installation measures as: one SHA-256 over every installed file of our two packages.

    leaf(file)    = SHA-256(0x00 || u32 length of path || path || SHA-256(content))
    software hash = SHA-256(0x01 || "lockbox software" || leaves in the order of their paths)

Paths are relative to the directory that holds the packages, with `/`, in UTF-8, sorted by their bytes. `__pycache__`
is left out: it is made here, from the files that are counted. It is a claim: the network compares it with the signed
release list, and a liar is caught by what it serves, not by this number.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path

PACKAGES = ("lockbox_node", "protocol")
LEAF, ROOT = b"\x00", b"\x01"


def installed_files() -> list[tuple[str, Path]]:
    """(path relative to the installation, file) of every file that is measured, in the order of measuring."""
    return sorted((item for name in PACKAGES for item in files_of(name, _home(name))), key=_order)


def software_hash() -> bytes:
    """The 32-byte hash of what is installed now. Reads every file: call it once, at the start."""
    return hash_of(installed_files())


def files_of(prefix: str, home: Path) -> list[tuple[str, Path]]:
    """(prefix/relative path, file) of the regular files below `home`, without `__pycache__`."""
    found: list[tuple[str, Path]] = []
    for folder, folders, files in os.walk(home):
        folders[:] = [name for name in folders if name != "__pycache__"]
        below = Path(folder).relative_to(home)
        found += [((Path(prefix) / below / name).as_posix(), Path(folder, name)) for name in files]
    return found


def hash_of(files: list[tuple[str, Path]]) -> bytes:
    """The software hash of these files, as the module says."""
    total = hashlib.sha256(ROOT + b"lockbox software")
    for relative, file in sorted(files, key=_order):
        path = os.fsencode(relative)
        content = hashlib.sha256(file.read_bytes()).digest()
        total.update(hashlib.sha256(LEAF + len(path).to_bytes(4, "big") + path + content).digest())
    return total.digest()


def _order(item: tuple[str, Path]) -> bytes:
    return os.fsencode(item[0])


def _home(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
