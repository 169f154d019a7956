"""One event a line, fields not prose: JSON lines, or words on a terminal, always to stderr.

No line names an asset, address, shard, label or client, at any level (invariant 4): a field whose name says that it
would is refused, raw bytes are refused, and any 64 hex digits in a text (an error's message, a traceback) are cut
out. Refusing means: left out and counted in the daemon, an AssertionError in tests. Node ids appear as 8 hex digits.

Import this module before anything else that imports structlog, as it loads structlog without rich: see `_absent`.
"""

from __future__ import annotations

import logging
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from structlog.typing import EventDict, Processor, WrappedLogger


@contextmanager
def _absent(module: str) -> Iterator[None]:
    """Let imports inside find no `module`, unless it is loaded already.

    structlog loads rich and pygments if it can, to draw tracebacks that a daemon never draws: more than half of the
    time that `import structlog` takes. It does without when they are missing.
    """
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # how importlib marks a module as not to be found
    try:
        yield
    finally:
        del sys.modules[module]


with _absent("rich"):
    import structlog

REFUSED_WORDS = frozenset(
    {"asset", "address", "shard", "client", "label", "wallet", "word", "words", "passphrase", "seed", "secret"}
)
_ID_IN_TEXT = re.compile(r"[0-9a-fA-F]{64,}")
_HIDDEN = "[id]"


def short_id(node: bytes) -> str:
    """A node id as logs show it: its first 8 hex digits."""
    return node[:4].hex()


def configure(level: str = "info", stream: TextIO | None = None, *, strict: bool = False) -> None:
    """Send every structlog line to `stream` (stderr if None); `strict` turns a refused field into an AssertionError.

    Lines are words on a terminal, else JSON. `level` is debug, info, warning or error; anything else: KeyError.
    """
    out = stream or sys.stderr
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            Refusal(strict=strict),
            _renderer(out),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=not strict,  # tests configure more than once
    )


def _renderer(out: TextIO) -> Processor:
    if out.isatty():
        return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    return structlog.processors.JSONRenderer(ensure_ascii=False)


class Refusal:
    """The structlog processor that keeps out of the log what names an asset or a client."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """The event without what it may not say; the names (never the values) of what was left out in `refused`."""
        refused = [name for name, value in event.items() if _tells(name, value)]
        assert not (self._strict and refused), f"a log line may not carry {', '.join(sorted(refused))}"
        kept: EventDict = {name: _clean(value) for name, value in event.items() if name not in refused}
        if refused:
            kept["refused"] = sorted(refused)
        return kept


def _tells(name: str, value: object) -> bool:
    return isinstance(value, bytes | bytearray | memoryview) or not REFUSED_WORDS.isdisjoint(name.lower().split("_"))


def _clean(value: Any) -> object:  # noqa: ANN401  # whatever a caller logged
    """`value` as JSON knows it, without long ids in any text."""
    match value:
        case None | bool() | int() | float():
            return value
        case dict():
            return _clean_mapping(value)
        case list() | tuple() | set() | frozenset():
            return [_clean(one) for one in value]
        case _:
            return _ID_IN_TEXT.sub(_HIDDEN, str(value))


def _clean_mapping(values: Mapping[Any, Any]) -> dict[str, object]:
    return {str(_clean(name)): _clean(value) for name, value in values.items() if not _tells(str(name), value)}
