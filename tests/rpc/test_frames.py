"""Bodies in, pieces out."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from lockbox_node.errors import PeerUnreachable
from lockbox_node.rpc.frames import LARGE_BYTES, RECEIVE_BYTES_MAX, RECEIVE_BYTES_MIN, SLICE_BYTES, Frames, pieces
from protocol.errors import RemoteProtocolError
from protocol.framing import encode_frame
from simulations.streams import stream_pair

sizes = st.one_of(
    st.integers(0, 300), st.integers(LARGE_BYTES - 2, LARGE_BYTES + 2), st.integers(SLICE_BYTES, 3 * SLICE_BYTES)
)


@given(st.lists(sizes, max_size=12))
def test_pieces_are_the_frames_in_order_and_never_larger_than_two_slices(lengths: list[int]) -> None:
    frames = [bytes([number]) * length for number, length in enumerate(lengths)]
    out = list(pieces(frames))
    assert b"".join(out) == b"".join(frames)
    assert all(len(piece) <= 2 * SLICE_BYTES for piece in out)


def test_small_frames_become_one_piece_and_large_ones_are_not_copied() -> None:
    assert list(pieces([b"a", b"b", b"c"])) == [b"abc"]
    large = bytes(LARGE_BYTES)
    out = list(pieces([b"a", large, b"b"]))
    assert [len(piece) for piece in out] == [1, LARGE_BYTES, 1]
    assert isinstance(out[1], memoryview)
    assert out[1].obj is large


async def test_the_first_body_comes_alone_and_the_others_are_kept() -> None:
    ours, theirs = stream_pair(b"", b"")
    frames = Frames(ours)
    await theirs.send_all(
        b"".join(encode_frame(body) for body in (b"one", b"two", b"three")) + encode_frame(b"four")[:3]
    )
    assert await frames.receive_first() == b"one"
    assert await frames.receive() == [b"two", b"three"]
    await theirs.send_all(encode_frame(b"four")[3:])
    assert await frames.receive() == [b"four"]
    await theirs.aclose()
    assert await frames.receive() is None


async def test_a_first_body_in_many_parts_is_waited_for() -> None:
    ours, theirs = stream_pair(b"", b"")
    got: list[bytes | memoryview] = []

    async def receive() -> None:
        got.append(await Frames(ours).receive_first())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        for byte in encode_frame(b"slow"):
            await trio.testing.wait_all_tasks_blocked()
            await theirs.send_all(bytes([byte]))
    assert got == [b"slow"]


async def test_an_end_before_the_first_body_is_no_error_of_protocol() -> None:
    ours, theirs = stream_pair(b"", b"")
    await theirs.aclose()
    with pytest.raises(PeerUnreachable):
        await Frames(ours).receive_first()


async def test_an_end_inside_a_frame_is() -> None:
    ours, theirs = stream_pair(b"", b"")
    await theirs.send_all(b"\0\0")
    await theirs.aclose()
    with pytest.raises(RemoteProtocolError):
        await Frames(ours).receive_first()


async def test_a_small_buffer_is_enough_until_much_comes_at_once() -> None:
    ours, theirs = stream_pair(b"", b"", capacity=4 * RECEIVE_BYTES_MAX)
    frames = Frames(ours)
    body = bytes(range(256)) * (RECEIVE_BYTES_MAX // 128)
    reads = []
    await theirs.send_all(encode_frame(body))
    while not (bodies := await frames.receive()):
        reads.append(len(frames._buffer))
    assert bodies == [body]
    assert reads[:3] == [4 * RECEIVE_BYTES_MIN, RECEIVE_BYTES_MAX, RECEIVE_BYTES_MAX]
    idle = Frames(ours)
    await theirs.send_all(encode_frame(bytes(100)))
    assert await idle.receive() == [bytes(100)]
    assert len(idle._buffer) == RECEIVE_BYTES_MIN
