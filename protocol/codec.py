"""Messages to frames and back: strict, and whatever comes in is a message or a RemoteProtocolError, nothing else.

The envelope is decoded first and its body by the request's number, so that a request of a later version is answered
(`UnknownRequest`), not dropped. Bodies go out in one pass, inside their envelope. Source: SPEC.md, Envelope.
"""

from __future__ import annotations

import msgspec

from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.framing import encode_frame
from protocol.messages import NUMBERS, TYPES, UNDECODABLE, Envelope, Message, Refusal

CALL, REPLY, REFUSAL = 0, 1, 2

_encoder = msgspec.msgpack.Encoder()
_envelopes = msgspec.msgpack.Decoder(Envelope)
_refusals = msgspec.msgpack.Decoder(Refusal)
_requests = {number: msgspec.msgpack.Decoder(request) for number, (request, _) in TYPES.items()}
_replies = {number: msgspec.msgpack.Decoder(reply) for number, (_, reply) in TYPES.items()}


class UnknownRequest(RemoteProtocolError):
    """A request number that this version does not know: answer with UNSUPPORTED and go on."""

    def __init__(self, number: int) -> None:
        super().__init__(f"request {number} is not known here", ErrorCode.UNSUPPORTED)
        self.number = number


def encode_call(call: int, request: Message) -> bytes:
    """The whole frame of `request` under the call id `call` (u32). LocalProtocolError above the frame limit."""
    return encode_frame(_encoder.encode((CALL, call, NUMBERS[type(request)], request)))


def encode_reply(call: int, reply: Message, number: int) -> bytes:
    """The whole frame of the reply to a request of type `number`. LocalProtocolError above the frame limit."""
    assert type(reply) is TYPES[number][1]
    return encode_frame(_encoder.encode((REPLY, call, number, reply)))


def encode_refusal(call: int, number: int, refusal: Refusal) -> bytes:
    """The whole frame of a refusal; `number` may be one that we do not know."""
    return encode_frame(_encoder.encode((REFUSAL, call, number, refusal)))


def decode_envelope(body: bytes | bytearray | memoryview) -> Envelope:
    """The envelope of one frame body. Its `body` refers to the same memory: do not change it before it is decoded."""
    try:
        return _envelopes.decode(body)
    except UNDECODABLE as error:
        raise RemoteProtocolError(f"a frame that is no envelope: {error}") from None


def decode_request(envelope: Envelope) -> Message:
    """The request of a call. UnknownRequest when the number is not ours, RemoteProtocolError when it does not fit."""
    if envelope.kind != CALL:
        raise RemoteProtocolError("an answer where a call was expected")
    decoder = _requests.get(envelope.type)
    if decoder is None:
        raise UnknownRequest(envelope.type)
    try:
        return decoder.decode(envelope.body)
    except UNDECODABLE as error:
        raise RemoteProtocolError(f"a {TYPES[envelope.type][0].__name__} that does not decode: {error}") from None


def decode_reply(envelope: Envelope, request: type[Message]) -> Message | Refusal:
    """The answer to a request of type `request` (the request's own class): its reply, or a Refusal.

    RemoteProtocolError when it is a call, answers another type of request, or does not decode.
    """
    number = NUMBERS[request]
    if envelope.kind == CALL or envelope.type != number:
        raise RemoteProtocolError(f"this does not answer a {request.__name__}")
    decoder = _replies[number] if envelope.kind == REPLY else _refusals
    try:
        return decoder.decode(envelope.body)
    except UNDECODABLE as error:
        raise RemoteProtocolError(f"an answer to {request.__name__} that does not decode: {error}") from None
