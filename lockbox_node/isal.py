"""The binding to ISA-L, Intel's erasure code library, loaded once at import.

The library comes inside the pyeclib wheel (`pyeclib.libs/libisal-pyeclib.so.2`, a private path: the wheel is pinned);
without it the distribution's libisal2 serves. Whatever was found must produce the shards that the definition of the
code asks for, byte by byte (SPEC.md, Erasure), else it is not used. The only module of the pure floors that may look
at the file system. C calls run without the GIL.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, NewType

import cffi  # type: ignore[import-untyped]

from lockbox_node.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Buf = bytes | bytearray | memoryview
Tables = NewType("Tables", object)
"""ISA-L's expanded multiplication tables of a coding matrix."""

_SYSTEM_LIBRARY = "libisal.so.2"
_TABLE_BYTES = 32  # per coefficient

_ffi = cffi.FFI()
_ffi.cdef(
    """
    void gf_gen_cauchy1_matrix(unsigned char *a, int n, int k);
    int gf_invert_matrix(unsigned char *in, unsigned char *out, int k);
    void ec_init_tables(int k, int rows, unsigned char *a, unsigned char *tables);
    void ec_encode_data(int len, int k, int rows, unsigned char *tables,
                        unsigned char **data, unsigned char **coding);
    """
)


class Isal:
    """Four functions of the library at `name` (a path, or a name for the dynamic loader). OSError when not there."""

    def __init__(self, name: str) -> None:
        self._c: Any = _ffi.dlopen(name)

    def cauchy(self, k: int, n: int) -> list[bytes]:
        """The n rows (k bytes each) of the systematic Cauchy matrix: the first k are the identity."""
        matrix = _ffi.new("unsigned char[]", n * k)
        self._c.gf_gen_cauchy1_matrix(matrix, n, k)
        flat = bytes(_ffi.buffer(matrix))
        return [flat[at : at + k] for at in range(0, n * k, k)]

    def invert(self, rows: Sequence[bytes]) -> list[bytes]:
        """The inverse of a square matrix. Every choice of k rows of a Cauchy matrix has one."""
        k = len(rows)
        square = _ffi.new("unsigned char[]", b"".join(rows))  # a copy: the library destroys its input
        inverse = _ffi.new("unsigned char[]", k * k)
        assert self._c.gf_invert_matrix(square, inverse, k) == 0, "a singular matrix: not a Cauchy code"
        flat = bytes(_ffi.buffer(inverse))
        return [flat[at : at + k] for at in range(0, k * k, k)]

    def tables(self, rows: Sequence[bytes]) -> Tables:
        """Prepare `rows` (k coefficients each) for `combine`."""
        k = len(rows[0])
        tables = _ffi.new("unsigned char[]", _TABLE_BYTES * k * len(rows))
        self._c.ec_init_tables(k, len(rows), _ffi.from_buffer(b"".join(rows)), tables)
        return Tables(tables)

    def combine(self, tables: Tables, sources: Sequence[Buf], targets: Sequence[bytearray | memoryview]) -> None:
        """Overwrite each target with its row's combination of the k sources; all buffers are of one length."""
        size = len(sources[0])
        # C reads and writes past the end of a shorter buffer.
        assert all(len(part) == size for part in (*sources, *targets)), "parts of unequal length"
        held = [_ffi.from_buffer("unsigned char[]", part) for part in (*sources, *targets)]
        pointers = _ffi.new("unsigned char *[]", held)
        self._c.ec_encode_data(size, len(sources), len(targets), tables, pointers, pointers + len(sources))


def product(a: int, b: int) -> int:
    """a times b in GF(2^8) with polynomial 0x11d, from the definition: what the library is checked against."""
    total = 0
    while b:
        if b & 1:
            total ^= a
        a = (a << 1) ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return total


def coefficient(row: int, column: int) -> int:
    """Row `row` >= k of the code, column `column` < k: the inverse of (row XOR column), which is its 254th power."""
    inverse = 1
    for _ in range(254):
        inverse = product(inverse, row ^ column)
    return inverse


def self_test(library: Isal) -> bool:
    """Whether `library` codes a small example as the definition says, and gets it back from parity."""
    k, n, size = 3, 6, 70  # an odd size: vector kernels and their tail
    parts = [bytes((at * 7 + part * 31) & 0xFF for at in range(size)) for part in range(k)]
    expected = [bytearray(size) for _ in range(n - k)]
    for row, target in enumerate(expected, start=k):
        for column, part in enumerate(parts):
            factor = coefficient(row, column)
            times = bytes(product(factor, value) for value in range(256))
            target[:] = bytes(a ^ b for a, b in zip(target, part.translate(times), strict=True))
    rows = library.cauchy(k, n)
    parity = [bytearray(size) for _ in range(n - k)]
    library.combine(library.tables(rows[k:]), parts, parity)
    back = [bytearray(size) for _ in range(k)]
    library.combine(library.tables(library.invert(rows[k:])), parity, back)
    return parity == expected and [bytes(part) for part in back] == parts


def bundled_library(package: str = "pyeclib") -> str | None:
    """The path of the library inside the pyeclib wheel; None when `package` is not there or brings none."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent.parent / "pyeclib.libs" / "libisal-pyeclib.so.2"
    return str(path) if path.exists() else None


def load(names: Iterable[str | None], binding: type[Isal] = Isal) -> Isal:
    """The first library of `names` that loads and passes the self test; ConfigError when none does."""
    for name in names:
        if name is None:
            continue
        try:
            library = binding(name)
        except OSError:
            continue
        if self_test(library):
            return library
    raise ConfigError(
        "no usable ISA-L library was found",
        "install the dependencies from requirements.lock, or the package libisal2",
    )


ISAL = load((bundled_library(), _SYSTEM_LIBRARY))
