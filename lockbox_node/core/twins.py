"""Another process that speaks as this very node: which of the two stops, and when that is sure.

Lives of a node are ordered by (epoch, instance). A record of another life proves nothing by itself: it may be of an
earlier life, or of a copy that has ended since. So whoever is outbid, by a higher sequence, outbids in turn; what then
outbids that again was signed by a process that runs now. The lower life stops then, or at once when the other
was met in person, over a connection of its own. The higher one never stops: it outbids until the lower one has heard
of it. Sequences alone rule what others believe, as ever. Source: SPEC.md, Clones; docs/decisions/0005-clones.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockbox_node.core.member_events import Refute, Yield

if TYPE_CHECKING:
    from protocol.records import NodeRecord


def life_of(record: NodeRecord) -> tuple[int, bytes]:
    """What orders the lives of one node: the later one is the higher."""
    return record.epoch, record.instance


class Twins:
    """What was heard of other lives of our node."""

    def __init__(self) -> None:
        self._answered: int | None = None  # the highest sequence by which we outbid a higher life

    def judge(self, own: NodeRecord, met: NodeRecord, *, in_person: bool) -> Refute | Yield | None:
        """What to do about `met`, a genuine record with our node id, when `own` is the newest that we signed.

        `in_person`: a peer that holds our identity showed it as its own, over a connection that it opened or answered.
        """
        superior = life_of(met) > life_of(own)
        if superior and (in_person or (self._answered is not None and met.sequence > self._answered)):
            return Yield(met.epoch)
        if met.sequence < own.sequence or met == own:
            return None  # others keep ours; a process that runs hears of it, and answers
        if superior:
            self._answered = max(self._answered or 0, met.sequence + 1)
        return Refute(met.sequence + 1)
