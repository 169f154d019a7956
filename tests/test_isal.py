"""The binding to ISA-L: where it is found, that it is checked, that C is never handed a short buffer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lockbox_node.errors import ConfigError, ExitCode
from lockbox_node.isal import ISAL, Isal, bundled_library, coefficient, load, product, self_test

if TYPE_CHECKING:
    from collections.abc import Sequence


class OtherMatrix(Isal):
    """A library that codes, but by another matrix than ours."""

    def cauchy(self, k: int, n: int) -> list[bytes]:
        rows = super().cauchy(k, n)
        return [*rows[:k], *reversed(rows[k:])]


class Forgetful(Isal):
    """A library whose decoding is wrong."""

    def invert(self, rows: Sequence[bytes]) -> list[bytes]:
        return list(reversed(super().invert(rows)))


def bundled() -> str:
    """The path of the library in this environment."""
    path = bundled_library()
    assert path is not None
    return path


def test_the_library_of_the_wheel_passes_its_self_test() -> None:
    assert self_test(Isal(bundled()))


def test_a_library_with_another_matrix_or_wrong_inverse_fails_the_self_test() -> None:
    assert not self_test(OtherMatrix(bundled()))
    assert not self_test(Forgetful(bundled()))


def test_what_does_not_load_is_passed_over() -> None:
    assert isinstance(load([None, "/nowhere/libisal.so", bundled()]), Isal)


def test_without_a_library_the_configuration_is_at_fault() -> None:
    with pytest.raises(ConfigError) as caught:
        load([None, "/nowhere/libisal.so"])
    assert caught.value.exit_code is ExitCode.CONFIG


def test_a_library_that_fails_the_self_test_is_not_used() -> None:
    with pytest.raises(ConfigError):
        load([bundled()], binding=OtherMatrix)


@pytest.mark.parametrize("package", ["no_such_package", "docs", "json"], ids=["missing", "a mere folder", "another"])
def test_a_package_without_the_library_gives_none(package: str) -> None:
    assert bundled_library(package) is None


def test_buffers_of_unequal_length_never_reach_the_library() -> None:
    tables = ISAL.tables(ISAL.cauchy(2, 3)[2:])
    with pytest.raises(AssertionError):
        ISAL.combine(tables, [bytes(10), bytes(9)], [bytearray(10)])
    with pytest.raises(AssertionError):
        ISAL.combine(tables, [bytes(10), bytes(10)], [bytearray(9)])


def test_a_singular_matrix_is_our_mistake() -> None:
    with pytest.raises(AssertionError):
        ISAL.invert([b"\1\1", b"\1\1"])


def test_the_field_is_a_field() -> None:
    assert product(0x80, 2) == 0x1D
    assert all(product(coefficient(row, 0), row) == 1 for row in range(1, 256))
