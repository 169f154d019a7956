"""Which holders failed an audit, of which part, since when, and when each is asked again.

Who says itself that it lost a part, or shows wrong bytes, is found at once; who shows nothing only when it did so
several times. A finding ends when the holder shows the part: a false alarm costs at most one copy too many. It makes
the part count as missing (services.healing) and, where the holder denies it, costs standing (core.audit_standing).
Bounded, and for each node too, so that one that lost everything does not crowd out what others did. Once another holder
has the index a finding is settled: asked about once a period, and no longer in the way of others; as many are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from lockbox_node.core.audit import Verdict
from lockbox_node.core.reconcile import ReconcileParams

if TYPE_CHECKING:
    from lockbox_node.core.audit_pace import AuditParams
    from protocol.ids import NodeId

NODE_SHARE = 4  # one node takes at most this part of the room
BUSY_S = 1.5 * ReconcileParams().restored_wait_s  # so long a restored node may rightly say that it is busy
LATELY_MAX = 64  # wards that are remembered to judge our own way by
DOUBT_SHARE, DOUBT_LEAST = 1 / 3, 3  # of them silent, and at least so many: the fault is rather ours
RETRY_SHARE = 0.5  # of the audits, at most: for those that failed

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
    counts_from: float = -float("inf")  # silence before that says nothing new
    postponed: int = 0  # times that it was not asked, since the members did not hear it
    found: bool = False
    settled: bool = False  # another holder has the index


class Findings:
    """All of one judge."""

    def __init__(self, params: AuditParams) -> None:
        self._params = params
        self._findings: dict[Key, Finding] = {}
        self._found: dict[Slot, frozenset[NodeId]] = {}
        self._of_node: dict[NodeId, int] = {}  # those that are not settled
        self._settled: dict[Key, None] = {}  # the oldest first
        self._lately: dict[NodeId, tuple[float, bool]] = {}  # ward -> when it was asked last, whether it was silent

    def __len__(self) -> int:
        """Those that count."""
        return sum(len(nodes) for nodes in self._found.values())

    @property
    def waiting(self) -> int:
        """All that are asked again, those too that do not count yet."""
        return len(self._findings)

    def at(self, address: bytes, descriptor_hash: bytes) -> frozenset[NodeId]:
        """The holders of a slot identity that failed; where many are silent to us, none of them counts."""
        found = self._found.get((address, descriptor_hash), frozenset())
        if not found or not self.doubtful:
            return found
        said = [node for node in found if self._findings[address, descriptor_hash, node].verdict is not Verdict.SILENT]
        return frozenset(said)

    @property
    def doubtful(self) -> bool:
        """Whether so many of the wards asked in the last period were silent that our own way to them may be cut."""
        silent = sum(silent for _, silent in self._lately.values())
        return silent >= DOUBT_LEAST and silent > DOUBT_SHARE * len(self._lately)

    def obey(self, params: AuditParams) -> None:
        """Go by these from now on."""
        self._params = params

    def take(self, key: Key, verdict: Verdict, now: float, *, busy: bool = False) -> Turn:
        """Take in what an audit saw; `busy`: the ward said so."""
        self._heard(key[2], now, silent=verdict is Verdict.SILENT and not busy)
        finding = self._findings.get(key)
        if verdict is Verdict.HELD:
            return Turn.NONE if finding is None else self.forget(key)
        if finding is None:
            if not self._has_room(key[2]):
                return Turn.OVERFLOW
            finding = self._findings[key] = Finding(verdict, now, now)
            self._count(key[2], 1)
        if verdict is Verdict.SILENT and now < finding.counts_from:
            return Turn.NONE
        finding.times += 1
        finding.verdict = verdict
        finding.ask_at = finding.counts_from = now + self._rest_s(finding)
        if finding.found or (busy and now < finding.since + BUSY_S):
            return Turn.NONE
        if verdict is Verdict.SILENT and finding.times < self._params.silent_max:
            return Turn.NONE
        finding.found = True
        self._found[key[:2]] = self._found.get(key[:2], frozenset()) | {key[2]}
        return Turn.FOUND

    def postpone(self, key: Key, now: float, jitter: float) -> bool:
        """The members do not hear this ward: whether it is asked later instead; too often, and it is asked now.

        `jitter`, 0 to 1: nobody who knows when a ward was due knows when it is asked.
        """
        finding = self._findings.get(key)
        if finding is None:
            if not self._has_room(key[2]):
                return True
            finding = self._findings[key] = Finding(Verdict.SILENT, now, now)
            self._count(key[2], 1)
        if finding.postponed >= self._params.silent_max:
            return False
        finding.postponed += 1
        finding.ask_at = now + self._params.retry_s * (0.5 + jitter)
        return True

    def forget(self, key: Key) -> Turn:
        """The holder showed the part, or it is none now."""
        finding = self._findings.pop(key, None)
        if finding is None:
            return Turn.NONE
        if finding.settled:
            del self._settled[key]
        else:
            self._count(key[2], -1)
        if not finding.found:
            return Turn.NONE
        left = self._found[key[:2]] - {key[2]}
        if left:
            self._found[key[:2]] = left
        else:
            del self._found[key[:2]]
        return Turn.ENDED

    def settle(self, key: Key, now: float) -> bool:
        """Another holder that failed nothing has the index now; whether that was news, so that nobody need be asked."""
        finding = self._findings.get(key)
        if finding is None or not finding.found or finding.settled:
            return False
        self._count(key[2], -1)
        finding.settled = True
        finding.ask_at = now + self._rest_s(finding)
        self._settled[key] = None
        if len(self._settled) > self._params.findings_max:
            self.forget(next(iter(self._settled)))
        return True

    def unsettle(self, key: Key) -> None:
        """That holder is gone, or failed as well: the finding matters again, if there is room."""
        finding = self._findings.get(key)
        if finding is not None and finding.settled and self._has_room(key[2]):
            finding.settled = False
            del self._settled[key]
            self._count(key[2], 1)

    def due(self, now: float, most: int) -> list[Key]:
        """Up to `most` that are to be asked again now, the longest waiting first, one of each node: each once."""
        due: dict[NodeId, Key] = {}
        for key in sorted(self._findings, key=lambda key: (self._findings[key].ask_at, key)):
            if self._findings[key].ask_at > now or len(due) >= most:
                break
            due.setdefault(key[2], key)
        for key in due.values():
            self._findings[key].ask_at = now + max(
                self._params.again_s, self._rest_s(self._findings[key])
            )  # unless an answer comes before
        return list(due.values())

    def next_at(self) -> float:
        """When the next one is due; infinite when none is."""
        return min((finding.ask_at for finding in self._findings.values()), default=float("inf"))

    def _heard(self, node: NodeId, now: float, *, silent: bool) -> None:
        self._lately.pop(node, None)
        self._lately[node] = now, silent
        oldest = next(iter(self._lately))
        while len(self._lately) > LATELY_MAX or self._lately[oldest][0] < now - self._params.period_s:
            del self._lately[oldest]
            oldest = next(iter(self._lately))

    @property
    def _open(self) -> int:
        return len(self._findings) - len(self._settled)

    def _count(self, node: NodeId, step: int) -> None:
        self._of_node[node] = self._of_node.get(node, 0) + step
        if not self._of_node[node]:
            del self._of_node[node]

    def _rest_s(self, finding: Finding) -> float:
        """Until it is asked about again; those that count take half of the questions that the budget allows."""
        if finding.settled:
            return self._params.period_s
        rest_s = self._params.retry_after_s(max(1, finding.times))
        if not finding.found:
            return rest_s
        return max(rest_s, self._open / (RETRY_SHARE * self._params.audits_per_s))

    def _has_room(self, node: NodeId) -> bool:
        most = self._params.findings_max
        return self._open < most and self._of_node.get(node, 0) < max(1, most // NODE_SHARE)
