"""The drain as the operator sees it: the verbs of the control socket, and what `status` and metrics say of it.

`drain` begins one, or joins the one under way, and answers where it stands; whoever asked may leave, it goes on. The
receipt is shown with its signed bytes, so that it can be kept and checked without this node.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from lockbox_node.errors import UsageError
from protocol.drains import DrainReceipt
from protocol.records import parse

if TYPE_CHECKING:
    from lockbox_node.node import Node
    from lockbox_node.services.draining import DrainFigures
    from protocol.messages import Signed


class DrainVerbs:
    """Asks the node's drain."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def drain(self, request: dict[str, Any]) -> object:
        """`action`: start or progress; the answer says where the drain stands, `drain` null when there is none."""
        match request.get("action"):
            case "start":
                await self._node.draining.begin()
            case "progress":
                pass
            case _:
                raise UsageError("drain needs action = start or progress")
        return {"drain": drain_said(self._node.draining.figures)}

    async def resume(self, request: dict[str, Any]) -> object:
        """Trust the view of the network, and unless `view_only` take new parts again."""
        view_only = request.get("view_only", False)
        if not isinstance(view_only, bool):
            raise UsageError("resume may have view_only = true")
        self._node.guard.resume()
        ended = False if view_only else await self._node.draining.end()
        draining = self._node.draining.active
        return {"view_trusted": self._node.guard.trusted, "drain_ended": ended, "draining": draining}


def drain_said(figures: DrainFigures | None) -> dict[str, Any] | None:
    """Where a drain stands; null when there is none."""
    if figures is None:
        return None
    return {
        "state": "done" if figures.receipt else "waiting" if figures.waiting else "running",
        "waiting": figures.waiting,
        "parts": figures.parts,
        "bytes": figures.shard_bytes,
        "parts_left": figures.parts_left,
        "bytes_left": figures.bytes_left,
        "bytes_per_s": round(figures.bytes_per_s),
        "left_s": figures.left_s,
        "stuck": dict(figures.stuck),
        "passes_idle": figures.passes_idle,
        "receipt": figures.receipt and receipt_said(figures.receipt),
    }


def receipt_said(signed: Signed) -> dict[str, Any]:
    """A receipt in words, and what was signed."""
    receipt = parse(signed, DrainReceipt)
    return {
        "node": receipt.node.hex(),
        "began": _iso(receipt.began_unix_s),
        "ended": _iso(receipt.ended_unix_s),
        "parts": receipt.parts,
        "bytes": receipt.shard_bytes,
        "left": 0,
        "signed": {"body": signed.body.hex(), "signature": signed.signature.hex()},
    }


def _iso(unix_s: int) -> str:
    return datetime.datetime.fromtimestamp(unix_s, datetime.UTC).isoformat(timespec="seconds")
