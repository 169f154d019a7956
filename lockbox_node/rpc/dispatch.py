"""From a peer's request to its handler: may it, is it too often, who answers, and what an error becomes.

One `Dispatcher` serves the connections that came and those that were dialled, since both directions carry requests.
Services add their routes to it before the first peer comes. A handler answers at once or later, without a task; the
rare one that must wait for others is a coroutine and runs in its connection's bounded nursery. A LockboxError or a
RemoteProtocolError is answered as a refusal; anything else is a defect of ours, logged, and ends that connection.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
import trio

from lockbox_node.core import admission
from lockbox_node.core.admission import AdmissionParams, permitted, rate_limited, refusal_reason
from lockbox_node.core.allowances import Allowances
from lockbox_node.core.documents import NO_RULES
from lockbox_node.errors import LockboxError
from lockbox_node.ports import Answer
from lockbox_node.rpc.hello import Peer
from lockbox_node.rpc.refusals import busy, refusal_of
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.messages import Message

if TYPE_CHECKING:
    from lockbox_node.rpc.connection import Connection

# A route's handler takes one type of request; which one is known by the route, not by the type checker.
SyncHandler = Callable[[Any, Peer, Answer[Any]], None]
TaskHandler = Callable[[Any, Peer], Awaitable[Message]]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """Who answers requests of type `request`.

    Either `handler(request, peer, answer)`, which calls `answer` exactly once, now or later, with the reply or a
    LockboxError, and may raise instead before it has; or `async handler(request, peer)`, which returns the reply.
    """

    request: type[Message]
    handler: SyncHandler | TaskHandler


class Dispatcher:
    """The table of routes, the rates per peer, and the counters."""

    def __init__(self, params: AdmissionParams = admission.DEFAULTS) -> None:
        self.allowances = Allowances(params)
        self.rules = NO_RULES  # of the network's documents: what who comes or is dialled from now on is judged by
        self.serving = True  # else everybody is told to come again
        self._sync: dict[type[Message], SyncHandler] = {}
        self._tasks: dict[type[Message], TaskHandler] = {}
        self.served: Counter[str] = Counter()  # request type
        self.refused: Counter[tuple[str, str]] = Counter()  # request type, error code

    def add(self, *routes: Route) -> None:
        """Take routes; one handler per request type."""
        for route in routes:
            assert route.request not in self._sync
            assert route.request not in self._tasks
            if inspect.iscoroutinefunction(route.handler):
                self._tasks[route.request] = route.handler
            else:
                self._sync[route.request] = route.handler  # type: ignore[assignment]

    def session(self, peer: Peer) -> Session:
        """What serves one connection of `peer`."""
        return Session(self, peer, self._sync, self._tasks)


class Session:
    """Serves the calls of one connection: a `connection.Serve`."""

    def __init__(
        self,
        counters: Dispatcher,
        peer: Peer,
        sync: dict[type[Message], SyncHandler],
        tasks: dict[type[Message], TaskHandler],
    ) -> None:
        self._counters, self._peer, self._sync, self._tasks = counters, peer, sync, tasks
        self._permitted = permitted(peer.role, peer.reads_only)
        self._allowance = counters.allowances.of(peer.rate_key, peer.role, trio.current_time())

    def __call__(self, connection: Connection, call: int, number: int, request: Message) -> None:
        """Check, then hand over to the handler."""
        kind = type(request)
        answer = partial(self._answer, connection, call, number, kind.__name__)
        if (objection := self._objection(kind)) is not None:
            return answer(objection)
        self._allowance.charge(connection.bytes_of(call))
        if (handler := self._sync.get(kind)) is not None:
            try:
                handler(request, self._peer, answer)
            except (LockboxError, RemoteProtocolError) as error:
                answer(error)
        elif (task_handler := self._tasks.get(kind)) is not None:
            if not connection.start(partial(self._run, task_handler, request, answer)):
                answer(busy("too many of your requests are being worked on"))
        else:
            answer(LockboxError(f"{kind.__name__} is not served here", code=ErrorCode.UNSUPPORTED))

    def _objection(self, kind: type[Message]) -> LockboxError | None:
        wait_s = self._allowance.take(trio.current_time())
        if wait_s:
            return rate_limited(wait_s)
        if not self._counters.serving:
            return busy("this node is starting")
        if kind not in self._permitted:
            return refusal_reason(kind, self._peer.role, self._peer.reads_only)
        return None

    async def _run(
        self,
        handler: TaskHandler,
        request: Message,
        answer: Callable[[Message | LockboxError | RemoteProtocolError], None],
    ) -> None:
        try:
            reply = await handler(request, self._peer)
        except (LockboxError, RemoteProtocolError) as error:
            answer(error)
        else:
            answer(reply)

    def _answer(
        self,
        connection: Connection,
        call: int,
        number: int,
        name: str,
        result: Message | LockboxError | RemoteProtocolError,
    ) -> None:
        """Send what a handler has to say. It may come from any task: what fails here ends this connection alone."""
        try:
            if isinstance(result, Message):
                self._allowance.charge(connection.reply(call, number, result))
                self._counters.served[name] += 1
            else:
                refusal = refusal_of(result)
                connection.refuse(call, number, refusal)
                self._counters.refused[name, refusal.code] += 1
        except Exception:
            log.exception("answer_failed", peer=self._peer.log_name, request=name)
            connection.abort("an error here")
