"""`lockbox-testnet`: a real network on one machine, every node its own daemon.

`up` makes an authority, nodes and a client, starts the daemons, says in one JSON line when they are ready, and runs
until SIGINT or SIGTERM; the other verbs talk to it through a socket in its directory and return when what they ask
for is done.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from lockbox_node.cli.output import emit, program, reporting

SOCKET_NAME = "testnet.sock"
_DIRECTORY = click.option(
    "--dir",
    "directory",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the network.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@program("lockbox-testnet")
def main() -> None:
    """Run a real LockBox network on this machine, and hurt it.

    Example: lockbox-testnet up --nodes 24 --dir /tmp/net
    """


@main.command()
@click.option("--nodes", required=True, type=click.IntRange(1, 250), help="How many daemons.")
@_DIRECTORY
@click.option("--regions", default="", help="Names of the region table with commas; default: 7 far apart.")
@click.option("--latency", type=click.Choice(["none", "world"]), default="none", help="Delays between regions.")
@click.option(
    "--client-region", default="", help="Where clients stand with --latency world; default: the first region."
)
@click.option(
    "--liar", "liars", multiple=True, hidden=True, metavar="NODE=REGION", help="Stands there, claims its own."
)
@click.option("--real-times", is_flag=True, help="The tiers' own hold-offs and sweeps instead of short ones.")
@click.option("--policy", multiple=True, metavar="KEY=VALUE", help="What all nodes go by, e.g. healing=off.")
@_JSON
@reporting
def up(
    nodes: int,
    directory: Path,
    regions: str,
    latency: str,
    client_region: str,
    liars: tuple[str, ...],
    real_times: bool,
    policy: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make a network in DIR, start it, and run until Ctrl-C.

    Example: lockbox-testnet up --nodes 24 --dir /tmp/net --json
    """
    import dataclasses

    import trio

    from lockbox_node.cli.delays import Delays
    from lockbox_node.cli.network import Testnet, TestnetPlan
    from lockbox_node.cli.verbs import verbs_of
    from lockbox_node.errors import UsageError

    if latency == "world" and not any(word.startswith("location=") for word in policy):
        policy = (*policy, "location=measured")
    plan = TestnetPlan.of(nodes, directory.absolute(), regions, real_times=real_times, policy=policy)
    if latency == "world":
        plan = dataclasses.replace(plan, delays=Delays.of(client_region, liars, plan.regions))
    elif client_region or liars:
        raise UsageError("all stand in one place without delays", "add --latency world")

    def ready(summary: dict[str, Any]) -> None:
        _progress("")
        if as_json:
            print(json.dumps({"ready": True, **summary}), flush=True)
            return
        click.echo(f"{nodes} nodes are ready in {summary['seconds']:.1f} s; network file {summary['network']}")
        click.echo(f"stop with Ctrl-C; status with: lockbox-testnet status --dir {directory}")
        sys.stdout.flush()

    try:
        trio.run(Testnet(plan, _progress).run, ready, verbs_of, plan.directory / SOCKET_NAME)
    finally:
        _progress("")


def _progress(words: str) -> None:
    """Overwrite one line on a terminal; nothing elsewhere."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{words}", nl=False, err=True)


def _ask(directory: Path, verb: str, as_json: bool, **arguments: object) -> None:
    import lockbox_node.observe.logging  # noqa: F401  # first: it loads structlog without rich

    # isort: split
    import trio

    from lockbox_node import control

    path = directory.absolute() / SOCKET_NAME

    async def once() -> dict[str, Any]:
        return await control.ask(path, verb, **arguments)

    answer = trio.run(once)
    emit(as_json, answer, answer["text"])


def _node_verb(verb: str, words: str) -> None:
    @main.command(name=verb, help=f"{words}\n\nExample: lockbox-testnet {verb} n01 n02 --dir /tmp/net")
    @click.argument("names", nargs=-1, required=True, metavar="NODE...")
    @_DIRECTORY
    @_JSON
    @reporting
    def _verb(names: tuple[str, ...], directory: Path, as_json: bool) -> None:
        _ask(directory, verb, as_json, nodes=list(names))


for _name, _words in (
    ("kill", "SIGKILL these nodes."),
    ("restart", "Start these nodes again. Those that run are killed first; returns when all are ready."),
    ("stop", "SIGSTOP these nodes. They hold their connections and say nothing."),
    ("cont", "SIGCONT these nodes."),
):
    _node_verb(_name, _words)


@main.command(name="kill-region")
@click.argument("region")
@_DIRECTORY
@_JSON
@reporting
def kill_region(region: str, directory: Path, as_json: bool) -> None:
    """SIGKILL every node of one region.

    Example: lockbox-testnet kill-region eu-west-1 --dir /tmp/net
    """
    _ask(directory, "kill-region", as_json, region=region)


@main.command()
@click.argument("count", type=click.IntRange(1, 200))
@click.option("--region", default="", help="Where; also one that `lockbox-node ca region add` made. Default: in turn.")
@_DIRECTORY
@_JSON
@reporting
def add(count: int, region: str, directory: Path, as_json: bool) -> None:
    """Add COUNT new nodes; returns when they are ready.

    Example: lockbox-testnet add 2 --dir /tmp/net
    """
    _ask(directory, "add", as_json, count=count, region=region)


@main.command()
@click.argument("names", nargs=-1, required=True, metavar="NODE...")
@_DIRECTORY
@_JSON
@reporting
def wipe(names: tuple[str, ...], directory: Path, as_json: bool) -> None:
    """Take all that these nodes store; they keep their identity, and start again if they ran.

    Example: lockbox-testnet wipe n03 --dir /tmp/net
    """
    _ask(directory, "wipe", as_json, nodes=list(names))


@main.command()
@click.argument("names", nargs=-1, required=True, metavar="NODE...")
@click.option("--share", type=click.FloatRange(0, 1), default=1.0, help="Share of the stored shards, 0 to 1.")
@click.option("--seed", type=int, default=1, help="Which ones.")
@_DIRECTORY
@_JSON
@reporting
def corrupt(names: tuple[str, ...], share: float, seed: int, directory: Path, as_json: bool) -> None:
    """Flip a bit in stored shards of these nodes, on their disks.

    Example: lockbox-testnet corrupt n03 --share 0.01 --dir /tmp/net
    """
    _ask(directory, "corrupt", as_json, nodes=list(names), share=share, seed=seed)


@main.command()
@click.argument("settings", nargs=-1, required=True, metavar="KEY=VALUE...")
@_DIRECTORY
@_JSON
@reporting
def policy(settings: tuple[str, ...], directory: Path, as_json: bool) -> None:
    """Change what all nodes go by. There are healing=on|off, hold-off=S, sweep=S, returning=S, guard=S and audit=S.

    Example: lockbox-testnet policy healing=off --dir /tmp/net
    """
    _ask(directory, "policy", as_json, settings=list(settings))


@main.command()
@click.argument("a")
@click.argument("b")
@click.option("--client", type=click.Choice(["A", "B"]), help="The side that clients reach; default: both.")
@_DIRECTORY
@_JSON
@reporting
def partition(a: str, b: str, client: str | None, directory: Path, as_json: bool) -> None:
    """Let the nodes of A and those of B not hear one another. Names with commas; others reach both.

    Connections stall, new ones time out; it stands until it is healed, or another partition replaces it.

    Example: lockbox-testnet partition n01,n02,n03 n04,n05 --client A --dir /tmp/net
    """
    _ask(directory, "partition", as_json, a=a, b=b, client=client)


@main.command()
@_DIRECTORY
@_JSON
@reporting
def heal(directory: Path, as_json: bool) -> None:
    """End the partition. Everybody hears everybody again.

    Example: lockbox-testnet heal --dir /tmp/net
    """
    _ask(directory, "heal", as_json)


@main.command()
@_DIRECTORY
@_JSON
@reporting
def status(directory: Path, as_json: bool) -> None:
    """What every node says of itself.

    Example: lockbox-testnet status --dir /tmp/net
    """
    _ask(directory, "status", as_json)


if __name__ == "__main__":
    main()
