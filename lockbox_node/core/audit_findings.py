"""Which holders failed an audit, of which part, since when, and when each is asked again.

Who says itself that it lost a part, or shows wrong bytes, is found at once; who shows nothing only when it did so
several times. A finding ends when the holder shows the part: a false alarm costs at most one copy too many. It makes
the part count as missing (services.healing) and, where the holder denies it, costs standing (core.audit_standing).
Bounded, and for each node too, so that one that lost everything does not crowd out what others did.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from lockbox_node.core.audit import Verdict

if TYPE_CHECKING:
    from lockbox_node.core.audit_pace import AuditParams
    from protocol.ids import NodeId

NODE_SHARE = 4  # one node takes at most this part of the room

Slot = tuple[bytes, bytes]
"""Address and descriptor hash."""
Key = tuple[bytes, bytes, "NodeId"]


class Turn(Enum):
    """What an audit changed."""

    NONE = "none"
    FOUND = "found"
    ENDED = "ended"
    OVERFLOW = "overflow"  # no room to remember it


@dataclass(slots=True)
class Finding:
    """A holder that failed, `times` in a row; it counts once it is `found`."""

    verdict: Verdict
    since: float
    ask_at: float
    times: int = 0
    found: bool = False


class Findings:
    """All of one judge."""

    def __init__(self, params: AuditParams) -> None:
        self._params = params
        self._findings: dict[Key, Finding] = {}
        self._found: dict[Slot, frozenset[NodeId]] = {}
        self._of_node: dict[NodeId, int] = {}

    def __len__(self) -> int:
        """Those that count."""
        return sum(len(nodes) for nodes in self._found.values())

    @property
    def waiting(self) -> int:
        """All that are asked again, those too that do not count yet."""
        return len(self._findings)

    def at(self, address: bytes, descriptor_hash: bytes) -> frozenset[NodeId]:
        """The holders of a slot identity that failed."""
        return self._found.get((address, descriptor_hash), frozenset())

    def obey(self, params: AuditParams) -> None:
        """Go by these from now on."""
        self._params = params

    def take(self, key: Key, verdict: Verdict, now: float) -> Turn:
        """Take in what an audit saw."""
        finding = self._findings.get(key)
        if verdict is Verdict.HELD:
            return Turn.NONE if finding is None else self.forget(key)
        if finding is None:
            if not self._has_room(key[2]):
                return Turn.OVERFLOW
            finding = self._findings[key] = Finding(verdict, now, now)
            self._of_node[key[2]] = self._of_node.get(key[2], 0) + 1
        finding.times += 1
        finding.verdict = verdict
        finding.ask_at = now + self._params.retry_after_s(finding.times)
        if finding.found or (verdict is Verdict.SILENT and finding.times < self._params.silent_max):
            return Turn.NONE
        finding.found = True
        self._found[key[:2]] = self.at(*key[:2]) | {key[2]}
        return Turn.FOUND

    def forget(self, key: Key) -> Turn:
        """The holder showed the part, or it is none now."""
        finding = self._findings.pop(key, None)
        if finding is None:
            return Turn.NONE
        self._of_node[key[2]] -= 1
        if not self._of_node[key[2]]:
            del self._of_node[key[2]]
        if not finding.found:
            return Turn.NONE
        left = self.at(*key[:2]) - {key[2]}
        if left:
            self._found[key[:2]] = left
        else:
            del self._found[key[:2]]
        return Turn.ENDED

    def due(self, now: float, most: int) -> list[Key]:
        """Up to `most` that are to be asked again now, the longest waiting first, one of each node: each once."""
        due: dict[NodeId, Key] = {}
        for key in sorted(self._findings, key=lambda key: (self._findings[key].ask_at, key)):
            if self._findings[key].ask_at > now or len(due) >= most:
                break
            due.setdefault(key[2], key)
        for key in due.values():
            self._findings[key].ask_at = now + self._params.again_s  # unless an answer comes before
        return list(due.values())

    def next_at(self) -> float:
        """When the next one is due; infinite when none is."""
        return min((finding.ask_at for finding in self._findings.values()), default=float("inf"))

    def _has_room(self, node: NodeId) -> bool:
        most = self._params.findings_max
        return len(self._findings) < most and self._of_node.get(node, 0) < max(1, most // NODE_SHARE)
