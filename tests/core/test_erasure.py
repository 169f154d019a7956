"""Erasure coding: any k of n, byte-identical rebuilds, and an independent oracle."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockbox_node.core.erasure import Code, code, cut
from lockbox_node.core.tiers import BASIC, TIERS, Tier
from lockbox_node.errors import NotEnoughShards, ShardCorrupt
from lockbox_node.isal import coefficient, product

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

TIMES = [bytes(product(factor, value) for value in range(256)) for factor in range(256)]


def oracle(k: int, n: int, data: bytes) -> list[bytes]:
    """The n shards from the definition of the code alone."""
    size = max(1, -(-len(data) // k))
    data += bytes(size * k - len(data))
    parts = [data[at : at + size] for at in range(0, size * k, size)]
    parity = []
    for row in range(k, n):
        total = 0
        for column, part in enumerate(parts):
            total ^= int.from_bytes(part.translate(TIMES[coefficient(row, column)]), "little")
        parity.append(total.to_bytes(size, "little"))
    return parts + parity


def some(shards: Sequence[memoryview], indices: Sequence[int]) -> Mapping[int, memoryview]:
    """A choice of shards, in the order of `indices`."""
    return {index: shards[index] for index in indices}


@pytest.mark.parametrize("size", [0, 1, 2, 3, 31, 1055, 4096, 65_553])
@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
def test_shards_are_those_of_the_definition(tier: Tier, size: int, rng: random.Random) -> None:
    data = rng.randbytes(size)
    assert [bytes(shard) for shard in code(tier.k, tier.n).encode(data)] == oracle(tier.k, tier.n, data)


def test_every_choice_of_k_gives_the_data_back_and_rebuilds_the_rest(rng: random.Random) -> None:
    subject, data = code(BASIC.k, BASIC.n), rng.randbytes(1000)
    shards = subject.encode(data)
    for have in itertools.combinations(range(BASIC.n), BASIC.k):
        missing = [index for index in range(BASIC.n) if index not in have]
        assert subject.decode(some(shards, have), 1000) == data
        assert subject.rebuild(some(shards, have), missing) == [shards[index] for index in missing]


@settings(max_examples=60)
@given(st.sampled_from(TIERS), st.binary(max_size=600), st.randoms(use_true_random=False))
def test_any_k_shards_decode_and_rebuild(tier: Tier, data: bytes, rng: random.Random) -> None:
    subject = code(tier.k, tier.n)
    shards = subject.encode(data)
    have = rng.sample(range(tier.n), rng.randint(tier.k, tier.n))
    missing = [index for index in range(tier.n) if index not in have]
    assert subject.decode(some(shards, have), len(data)) == data
    assert subject.rebuild(some(shards, have), missing) == [shards[index] for index in missing]


def test_data_that_divides_is_cut_in_place_and_not_copied() -> None:
    data = bytearray(range(30))
    shards = code(3, 5).encode(data)
    data[0] = 255
    assert shards[0][0] == 255


def test_wrong_shards_beyond_the_first_k_do_not_matter(rng: random.Random) -> None:
    data = rng.randbytes(90)
    shards = code(3, 5).encode(data)
    wrong = memoryview(bytes(30))
    assert code(3, 5).decode({0: shards[0], 1: shards[1], 3: shards[3], 4: wrong}, 90) == data


def test_nothing_missing_is_nothing_rebuilt() -> None:
    shards = code(3, 5).encode(bytes(30))
    assert code(3, 5).rebuild(some(shards, range(5)), []) == []


def test_fewer_than_k_shards_are_not_enough() -> None:
    shards = code(3, 5).encode(bytes(30))
    with pytest.raises(NotEnoughShards):
        code(3, 5).decode(some(shards, [0, 4]), 30)
    with pytest.raises(NotEnoughShards):
        code(3, 5).rebuild(some(shards, [0, 4]), [1])


@pytest.mark.parametrize(
    "shards",
    [
        {0: bytes(10), 1: bytes(10), 2: bytes(9)},
        {0: b"", 1: b"", 2: b""},
        {0: bytes(10), 1: bytes(10), 5: bytes(10)},
        {0: bytes(10), 1: bytes(10), -1: bytes(10)},
    ],
    ids=["unequal", "empty", "index too high", "index negative"],
)
def test_shards_that_cannot_be_of_one_group_are_refused(shards: dict[int, bytes]) -> None:
    with pytest.raises(ShardCorrupt):
        code(3, 5).decode(shards, 10)
    with pytest.raises(ShardCorrupt):
        code(3, 5).rebuild(shards, [3])


@pytest.mark.parametrize("length", [-1, 31])
def test_more_data_than_the_shards_hold_is_refused(length: int) -> None:
    with pytest.raises(ShardCorrupt):
        code(3, 5).decode(some(code(3, 5).encode(bytes(30)), [0, 1, 2]), length)


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 5), (3, 257)])
def test_a_code_that_cannot_be_is_our_mistake(k: int, n: int) -> None:
    with pytest.raises(AssertionError):
        Code(k, n)


@pytest.mark.parametrize(("k", "n"), [(1, 2), (3, 256)])
def test_the_extremes_work(k: int, n: int, rng: random.Random) -> None:
    data = rng.randbytes(100)
    shards = code(k, n).encode(data)
    assert code(k, n).decode(some(shards, range(n - k, n)), 100) == data


def test_a_code_is_made_once() -> None:
    assert code(3, 5) is code(3, 5)


def test_cutting_leaves_a_shorter_rest() -> None:
    assert [bytes(part) for part in cut(b"abcde", 2)] == [b"ab", b"cd", b"e"]
