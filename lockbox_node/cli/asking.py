"""How a command of `lockbox-node` asks the running daemon: the option that names it, one question, one answer.

Heavy imports happen when something is asked, so that `--help` and `--version` answer at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default="node.toml",
    show_default=True,
    help="The node.toml of the node.",
)


def socket_of(config_path: Path) -> Path:
    """Where the daemon of this node.toml listens. ConfigError."""
    import lockbox_node.observe.logging  # noqa: F401  # first: it loads structlog without rich

    # isort: split
    from lockbox_node.config import load

    return config_path.absolute().parent / load(config_path).node.data_dir / "control.sock"


def ask_node(config_path: Path, verb: str, **arguments: object) -> dict[str, Any]:
    """What the daemon says. PeerUnreachable when none runs; its refusal with its exit code."""
    return _asked(config_path, verb, arguments, soon=True)


def ask_node_long(config_path: Path, verb: str, **arguments: object) -> dict[str, Any]:
    """The same of a verb that goes through all that the node holds: it may take minutes."""
    return _asked(config_path, verb, arguments, soon=False)


def _asked(config_path: Path, verb: str, arguments: dict[str, object], *, soon: bool) -> dict[str, Any]:
    path = socket_of(config_path)

    import trio

    from lockbox_node import control

    async def once() -> dict[str, Any]:
        ask = control.ask_soon if soon else control.ask
        return await ask(path, verb, **arguments)

    return trio.run(once)
