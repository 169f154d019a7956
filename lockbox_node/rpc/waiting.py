"""One task that sleeps until one answer comes: the bridge from callbacks to `await`, without an Event per call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from lockbox_node.errors import LockboxError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockbox_node.ports import Answer
    from protocol.messages import Message


async def answered(post: Callable[[Answer[Message]], int], forget: Callable[[int], None]) -> Message:
    """Await the answer of a `post`: the reply, or its LockboxError raised. A cancel forgets the call."""
    task = trio.lowlevel.current_task()
    box: list[Message | LockboxError] = []
    asleep = False

    def answer(result: Message | LockboxError) -> None:
        box.append(result)
        if asleep:
            trio.lowlevel.reschedule(task)

    def abort(_: object) -> trio.lowlevel.Abort:
        forget(call)
        return trio.lowlevel.Abort.SUCCEEDED

    await trio.lowlevel.checkpoint_if_cancelled()
    call = post(answer)
    if box:
        await trio.lowlevel.cancel_shielded_checkpoint()
    else:
        asleep = True
        await trio.lowlevel.wait_task_rescheduled(abort)
    result = box[0]
    if isinstance(result, LockboxError):
        raise result
    return result
