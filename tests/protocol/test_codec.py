"""Messages to frames and back; garbage gives a message or RemoteProtocolError, nothing else."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import (
    UnknownRequest,
    decode_envelope,
    decode_reply,
    decode_request,
    encode_call,
    encode_refusal,
    encode_reply,
)
from protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from protocol.framing import FrameDecoder
from protocol.messages import (
    NUMBERS,
    TYPES,
    Delete,
    Done,
    Gossip,
    Hello,
    Message,
    Nodes,
    Ping,
    Pong,
    Refusal,
    SyncMembers,
)
from tests.protocol import samples
from tests.protocol.make_vectors import BAD_BODIES

REQUESTS, REPLIES, REFUSALS = samples.requests(), samples.replies(), samples.refusals()


def body_of(frame: bytes) -> bytes:
    """The one body in a frame."""
    (body,) = FrameDecoder().feed(frame)
    return bytes(body)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_comes_back_as_it_was(name: str) -> None:
    envelope = decode_envelope(body_of(encode_call(7, REQUESTS[name])))
    assert (envelope.kind, envelope.call, envelope.type) == (0, 7, NUMBERS[type(REQUESTS[name])])
    assert decode_request(envelope) == REQUESTS[name]


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_comes_back_as_it_was(name: str) -> None:
    request, reply = REPLIES[name]
    envelope = decode_envelope(bytearray(body_of(encode_reply(2**32 - 1, reply, NUMBERS[request]))))
    assert (envelope.kind, envelope.call, envelope.type) == (1, 2**32 - 1, NUMBERS[request])
    assert decode_reply(envelope, request) == reply


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_comes_back_as_it_was(name: str) -> None:
    envelope = decode_envelope(memoryview(body_of(encode_refusal(0, NUMBERS[Ping], REFUSALS[name]))))
    assert envelope.kind == 2
    assert decode_reply(envelope, Ping) == REFUSALS[name]


def test_the_independent_codec_reads_our_frames() -> None:
    assert msgpack.unpackb(encode_call(3, Ping(300))[4:]) == [0, 3, 2, [300]]


def test_an_unknown_request_can_be_answered() -> None:
    envelope = decode_envelope(msgpack.packb([0, 9, 200, {"later": "version"}]))
    with pytest.raises(UnknownRequest) as caught:
        decode_request(envelope)
    assert (caught.value.code, caught.value.number) == (ErrorCode.UNSUPPORTED, 200)
    answer = decode_envelope(body_of(encode_refusal(9, 200, Refusal(ErrorCode.UNSUPPORTED, "not known here"))))
    assert (answer.kind, answer.call, answer.type) == (2, 9, 200)


@pytest.mark.parametrize("why", BAD_BODIES)
def test_bad_bodies_are_refused(why: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decoded(BAD_BODIES[why])


def test_nesting_beyond_the_recursion_limit_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        decode_envelope(b"\x94\x00\x01\x02" + b"\x91" * 200_000 + b"\xc0")


def test_an_answer_is_no_request_and_a_request_no_answer() -> None:
    with pytest.raises(RemoteProtocolError):
        decode_request(decode_envelope(body_of(encode_reply(1, Pong(1, 1), 2))))
    with pytest.raises(RemoteProtocolError):
        decode_reply(decode_envelope(body_of(encode_call(1, Ping(1)))), Ping)
    hello = REPLIES["hello"][1]
    with pytest.raises(RemoteProtocolError, match="where a call was expected"):
        decode_request(decode_envelope(body_of(encode_reply(1, hello, 1))))
    with pytest.raises(RemoteProtocolError, match="does not answer"):
        decode_reply(decode_envelope(msgpack.packb([0, 1, 2, ["BUSY", "a refusal in a call"]])), Ping)


def test_a_reply_to_another_request_is_refused_even_when_its_body_fits() -> None:
    with pytest.raises(RemoteProtocolError):
        decode_reply(decode_envelope(body_of(encode_reply(1, Done(), NUMBERS[Gossip]))), Delete)
    with pytest.raises(RemoteProtocolError):
        decode_reply(decode_envelope(body_of(encode_refusal(1, NUMBERS[Gossip], REFUSALS["short"]))), Delete)


def test_a_reply_that_does_not_decode_is_refused() -> None:
    for kind in (1, 2):
        with pytest.raises(RemoteProtocolError):
            decode_reply(decode_envelope(msgpack.packb([kind, 1, NUMBERS[Ping], [5]])), Ping)


def test_we_send_no_message_above_the_frame_limit() -> None:
    huge = Nodes([samples.signed_record()] * 4000)
    with pytest.raises(LocalProtocolError):
        encode_reply(1, huge, 5)


def test_trailing_fields_with_defaults_may_be_left_out_and_no_others() -> None:
    assert decode_request(decode_envelope(msgpack.packb([0, 1, 3, [[]]]))) == SyncMembers([])
    refusal = decode_reply(decode_envelope(msgpack.packb([2, 1, 2, ["BUSY", "later"]])), Ping)
    assert refusal == Refusal("BUSY", "later")


def decoded(body: bytes | bytearray) -> Message:
    """A body as a connection would decode it, whatever it is."""
    envelope = decode_envelope(body)
    if envelope.kind == 0:
        return decode_request(envelope)
    return decode_reply(envelope, TYPES.get(envelope.type, (Hello, Hello))[0])


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=80) | st.text(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=30,
)


@given(st.binary(max_size=400))
def test_garbage_is_a_message_or_the_remote_error(garbage: bytes) -> None:
    try:
        assert isinstance(decoded(garbage), Message)
    except RemoteProtocolError:
        return


@given(st.integers(0, 2), st.integers(0, 2**32 - 1), st.integers(0, 20), plain)
def test_a_sound_envelope_around_garbage_is_a_message_or_the_remote_error(
    kind: int, call: int, number: int, fields: object
) -> None:
    envelope = decode_envelope(msgpack.packb([kind, call, number, fields]))
    assert (envelope.kind, envelope.call, envelope.type) == (kind, call, number)
    try:
        assert isinstance(decoded(msgpack.packb([kind, call, number, fields])), Message)
    except RemoteProtocolError:
        return


@given(st.sampled_from(sorted(REQUESTS)), st.data())
def test_a_damaged_request_is_a_message_or_the_remote_error(name: str, data: st.DataObject) -> None:
    body = bytearray(encode_call(1, REQUESTS[name])[4:])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, min(len(body), 600) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(decoded(body), Message)
    except RemoteProtocolError:
        return
