"""Frames in and out, however the stream is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from protocol.framing import FRAME_BYTES_MAX, FrameDecoder, encode_frame


def test_a_frame_is_its_length_and_its_body() -> None:
    assert encode_frame(b"") == bytes(4)
    assert encode_frame(b"abc") == b"\x00\x00\x00\x03abc"
    assert encode_frame(memoryview(bytearray(b"abc"))) == b"\x00\x00\x00\x03abc"


def test_whole_frames_come_out_in_order_and_the_rest_waits() -> None:
    decoder = FrameDecoder()
    assert decoder.feed(encode_frame(b"one") + encode_frame(b"") + b"\x00\x00\x00\x05fi") == [b"one", b""]
    assert decoder.inside_frame
    assert decoder.feed(b"ve!" + encode_frame(b"six")) == [b"five!", b"six"]
    assert not decoder.inside_frame


def test_a_stream_may_come_byte_by_byte() -> None:
    decoder = FrameDecoder()
    bodies = [body for byte in encode_frame(b"slow") + encode_frame(b"") for body in decoder.feed(bytes([byte]))]
    assert bodies == [b"slow", b""]
    assert decoder.feed(b"") == []


def test_bodies_do_not_change_with_the_readers_buffer() -> None:
    decoder = FrameDecoder()
    buffer = bytearray(encode_frame(b"first") + encode_frame(b"second")[:7])
    bodies = decoder.feed(memoryview(buffer))
    buffer[:] = b"\xff" * len(buffer)
    bodies += decoder.feed(encode_frame(b"second")[7:] + encode_frame(b"third"))
    assert bodies == [b"first", b"second", b"third"]


def test_the_largest_frame_passes() -> None:
    frame = encode_frame(bytes(FRAME_BYTES_MAX))
    view, decoder = memoryview(frame), FrameDecoder()
    bodies = [body for at in range(0, len(frame), 2**18) for body in decoder.feed(view[at : at + 2**18])]
    assert [len(body) for body in bodies] == [FRAME_BYTES_MAX]


def test_we_send_no_frame_above_the_limit() -> None:
    with pytest.raises(LocalProtocolError):
        encode_frame(bytes(FRAME_BYTES_MAX + 1))


@pytest.mark.parametrize("chunks", [[5], [1, 1, 1, 1], [2, 3]], ids=str)
@pytest.mark.parametrize("before", [b"", encode_frame(b"good")], ids=["first", "behind a good one"])
def test_a_claim_above_the_limit_is_refused_at_its_header(chunks: list[int], before: bytes) -> None:
    decoder = FrameDecoder()
    assert decoder.feed(before) == ([b"good"] if before else [])
    header = (FRAME_BYTES_MAX + 1).to_bytes(4, "big") + b"x"
    for size in chunks[:-1]:
        assert decoder.feed(header[:size]) == []
        header = header[size:]
    with pytest.raises(RemoteProtocolError) as caught:
        decoder.feed(header[: chunks[-1]])
    assert caught.value.code is ErrorCode.TOO_LARGE


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(1, 64)))
def test_any_cut_of_a_stream_gives_the_same_bodies(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(encode_frame, bodies))
    decoder, found, at = FrameDecoder(), list[bytes](), 0
    for size in [*cuts, len(stream)]:
        found += map(bytes, decoder.feed(stream[at : at + size]))
        at += size
    assert found == bodies
    assert not decoder.inside_frame


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_garbage_gives_bodies_or_the_remote_error(chunks: list[bytes]) -> None:
    decoder = FrameDecoder()
    try:
        for chunk in chunks:
            assert all(len(body) <= FRAME_BYTES_MAX for body in decoder.feed(chunk))
    except RemoteProtocolError:
        assert any(byte for chunk in chunks for byte in chunk)  # a stream of zeros is a stream of empty frames
