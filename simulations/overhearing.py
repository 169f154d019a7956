"""What log lines say that none may say: invariant 4, for a network whose secrets are known.

Two ways to tell. A field whose name or type says that it carries an asset or a client is refused by the log itself, and
is a leak here. And any word of hex digits, in whatever field or error text, is compared with what the assets and the
clients of the run are called: eight digits are enough, as node ids are shown.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lockbox_node.observe.logging import Refusal, short_id

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_DIGITS = 8
_HEX = re.compile(r"[0-9a-f]{8,}")


class Overheard:
    """Every log line of a run, as far as it matters."""

    def __init__(self) -> None:
        self._refused: dict[str, None] = {}
        self._said: dict[str, str] = {}  # the first digits of a word -> the event that said it first

    def hear(self, line: Mapping[str, object]) -> None:
        """One line: its fields, with `event` among them."""
        event = str(line["event"])
        kept = Refusal(strict=False)(None, "info", dict(line))
        for name in kept.get("refused", ()):
            self._refused[f"the log line {event} carries {name}"] = None
        for value in line.values():
            for word in _HEX.findall(str(value).lower()):
                self._said.setdefault(word[:_DIGITS], event)

    def leaks(self, secrets: Collection[str]) -> tuple[str, ...]:
        """What was said so far; `secrets` = the names (`name_of`) of assets and clients."""
        named = sorted(self._said.keys() & secrets)
        return (*self._refused, *(f"the log line {self._said[word]} names an asset or a client" for word in named))


def name_of(secret: bytes) -> str:
    """As a log line would show an id."""
    return short_id(secret)
