"""The first words on a connection: Hello both ways.

The dialler says Hello as call 0; the acceptor answers with its own, or with a refusal that says why, and closes. Both
judge by the same rules (core.admission). Each exchange runs under the caller's deadline. Frames that arrive behind
the Hello stay in `Frames` for the connection. Source: SPEC.md, Hello.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog
import trio
from msgspec import structs

from lockbox_node.core.admission import Downgrade, Verdict, judge_hello
from lockbox_node.core.documents import NO_RULES, Rules
from lockbox_node.core.origins import origin_of
from lockbox_node.errors import LockboxError, PeerUnreachable
from lockbox_node.rpc.refusals import error_of, refusal_of
from protocol.certificates import NetworkRoot, Role
from protocol.codec import decode_envelope, decode_reply, decode_request, encode_call, encode_refusal, encode_reply
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.messages import NUMBERS, Hello, Refusal, Signed

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.ports import PeerStream
    from lockbox_node.rpc.frames import Frames

HELLO_CALL = 0
HELLO_BYTES_MAX = 64 * 1024  # of a frame before the peer has said who it is
HELLO_NUMBER = NUMBERS[Hello]
REFUSAL_TIMEOUT_S = 2.0  # for a refusal that nobody may read

log = structlog.get_logger(__name__)


class LocalIdentity(Protocol):
    """Who we are. `hello` is made anew each time, since leaf, record and clock move on."""

    @property
    def id(self) -> bytes:
        """Our node id, or client id."""
        ...

    @property
    def role(self) -> Role:
        """Our role."""
        ...

    @property
    def root(self) -> NetworkRoot:
        """The root of our network."""
        ...

    def hello(self) -> Hello:
        """What we say now; its chain starts with the leaf that TLS shows now, its clock is our wall clock."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, by its certificates and its Hello."""

    id: bytes
    role: Role
    operator: str
    host: str
    reads_only: Downgrade
    record: Signed | None
    software: bytes
    clock_offset_s: float
    clock_lead_s: float = 0.0  # its wall clock minus trio's clock: our own wall clock has no part in it
    dialled_at: str = ""  # "host:port" where we met it; empty when it dialled us

    @property
    def rate_key(self) -> bytes:
        """What its limits are counted by: its id, and for guests, who share one, where it comes from as well."""
        return self.id + origin_of(self.host) if self.role is Role.GUEST else self.id

    @property
    def log_name(self) -> str:
        """What a log line may call it: 8 hex digits of a node's id, nothing of anybody else's."""
        return self.id.hex()[:8] if self.role is Role.NODE else self.role.value


class SameNode(RemoteProtocolError):
    """A peer with our own id: we ourselves at an address of ours, or another copy of this node. `record` = its own."""

    def __init__(self, record: Signed | None) -> None:
        super().__init__("this is the node itself", ErrorCode.CONFLICT)
        self.record = record


async def hello_out(frames: Frames, local: LocalIdentity, rules: Callable[[], Rules] = lambda: NO_RULES) -> Peer:
    """Say Hello as the dialler; the peer is judged by the `rules` that hold when it has answered.

    RequestRefused (with the peer's code), SameNode, PeerUnreachable, RemoteProtocolError.
    """
    mine = local.hello()
    said_at = trio.current_time()
    await frames.stream.send_all(encode_call(HELLO_CALL, mine))
    envelope = decode_envelope(await frames.receive_first())
    if envelope.call != HELLO_CALL:
        raise RemoteProtocolError("the first answer is not that to Hello")
    theirs = decode_reply(envelope, Hello)
    if isinstance(theirs, Refusal):
        if theirs.code == ErrorCode.CONFLICT:
            raise SameNode(theirs.proof)
        raise error_of(theirs)
    assert isinstance(theirs, Hello)
    # Our wall clock now: what it was in our own Hello, and the time since.
    return _judged(frames, local, theirs, mine.clock_unix_ms / 1000 + trio.current_time() - said_at, rules())


async def hello_in(frames: Frames, local: LocalIdentity, rules: Rules = NO_RULES) -> Peer:
    """Answer the Hello of a peer that dialled. A peer that is refused is told why; RemoteProtocolError then too."""
    mine = local.hello()
    try:
        peer = _judged(frames, local, _asked(await frames.receive_first()), mine.clock_unix_ms / 1000, rules)
        if peer.id == local.id:
            raise SameNode(peer.record)
    except RemoteProtocolError as error:
        refused = error
    else:
        frames.lift_limit()
        await frames.stream.send_all(encode_reply(HELLO_CALL, mine, HELLO_NUMBER))
        return peer
    # Of two copies of one node each must hear of the other.
    await refuse_hello(frames.stream, refused, mine.record if isinstance(refused, SameNode) else None)
    raise refused


def _asked(body: bytes | memoryview) -> Hello:
    envelope = decode_envelope(body)
    request = decode_request(envelope)
    if envelope.call != HELLO_CALL or not isinstance(request, Hello):
        raise RemoteProtocolError("the first call is not Hello")
    return request


async def refuse_hello(
    stream: PeerStream, error: LockboxError | RemoteProtocolError, proof: Signed | None = None
) -> None:
    """Tell a peer why it may not in, if it reads; never raises for its sake."""
    frame = encode_refusal(HELLO_CALL, HELLO_NUMBER, structs.replace(refusal_of(error), proof=proof))
    with suppress(PeerUnreachable), trio.move_on_after(REFUSAL_TIMEOUT_S):
        await stream.send_all(frame)


def _judged(frames: Frames, local: LocalIdentity, hello: Hello, now_unix_s: float, rules: Rules) -> Peer:
    verdict = judge_hello(hello, frames.stream.peer_leaf, local.root, now_unix_s, rules)
    identity = verdict.identity
    peer = Peer(
        identity.id,
        identity.role,
        identity.operator,
        frames.stream.peer_host,
        verdict.reads_only,
        hello.record,
        hello.software,
        verdict.clock_offset_s,
        hello.clock_unix_ms / 1000 - trio.current_time(),
    )
    _report(peer, verdict)
    return peer


def _report(peer: Peer, verdict: Verdict) -> None:
    if peer.role is Role.NODE and (verdict.clock_warned or peer.reads_only):
        offset_s = round(peer.clock_offset_s, 1)
        log.warning("peer_doubtful", peer=peer.log_name, clock_offset_s=offset_s, reads_only=peer.reads_only.value)
