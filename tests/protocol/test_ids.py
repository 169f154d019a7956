"""Ids and the metric between them."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import RemoteProtocolError
from protocol.ids import (
    address_of,
    bucket_index,
    checked,
    client_id_of,
    distance,
    network_id_of,
    node_id_of,
)

ids = st.binary(min_size=32, max_size=32)


def test_an_id_has_32_bytes() -> None:
    assert checked(bytes(32)) == bytes(32)
    for wrong in (b"", bytes(31), bytes(33)):
        with pytest.raises(RemoteProtocolError):
            checked(wrong)


def test_ids_of_one_key_differ_by_meaning() -> None:
    key = bytes(32)
    assert node_id_of(key, bytes(16)) == hashlib.sha256(b"lockbox node" + key + bytes(16)).digest()
    assert client_id_of(key) == hashlib.sha256(b"lockbox client" + key).digest()
    assert network_id_of(key) == hashlib.sha256(key).digest()
    assert address_of(key) == hashlib.sha256(key).digest()
    assert len({node_id_of(key, bytes(16)), client_id_of(key), network_id_of(key)}) == 3


def test_another_salt_is_another_node() -> None:
    assert node_id_of(b"key", bytes(16)) != node_id_of(b"key", bytes(15) + b"\x01")


def test_bucket_index_is_the_bit_length_of_the_distance() -> None:
    own = bytes(32)
    assert bucket_index(own, own) == 0
    assert bucket_index(own, bytes(31) + b"\x01") == 1
    assert bucket_index(own, b"\x80" + bytes(31)) == 256


@given(ids, ids, ids)
def test_distance_is_a_metric_with_one_point_at_each_distance(a: bytes, b: bytes, c: bytes) -> None:
    assert distance(a, b) == distance(b, a)
    assert (distance(a, b) == 0) == (a == b)
    assert distance(a, c) <= distance(a, b) + distance(b, c)
    assert distance(a, b) ^ distance(b, c) == distance(a, c)
    assert 0 <= distance(a, b) < 2**256
