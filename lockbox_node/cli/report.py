"""`lockbox-node report`: what if a region, an operator or a software release vanished now.

The daemon goes through what it holds (`observe.reporting`); this prints it: as tables, as JSON, or as a page with a map
of the world that needs nothing but itself.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lockbox_node.cli.asking import ask_node_long, config_option
from lockbox_node.cli.output import emit, json_option, reporting
from lockbox_node.errors import LockboxError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@click.command()
@config_option
@click.option(
    "--html",
    "html",
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    help="Write a page with a map instead; to the standard output without FILE.",
)
@json_option
@reporting
def report(config_path: Path, html: str | None, as_json: bool) -> None:
    """What if this region, operator or software release vanished now.

    Speaks of the stripes that the node holds a part of: what margin each loss would leave them, worst case first.

    Example: lockbox-node report --config /var/lib/lockbox/node.toml --html report.html
    """
    if html is not None and as_json:
        raise UsageError("--json and --html exclude one another", "give one of them")
    said = ask_node_long(config_path, "report")
    if html is None:
        emit(as_json, said, "\n".join(lines_of(said)))
        return
    from lockbox_node.observe.report_page import page

    if html == "-":
        click.echo(page(said), nl=False)
    else:
        _write(Path(html), page(said))


def _write(path: Path, text: str) -> None:
    """Whole or not at all: whoever reads the file now and then never meets half a page."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise LockboxError(f"cannot write {path}: {error.strerror}", "choose another file") from None


def lines_of(said: Mapping[str, Any]) -> Iterator[str]:
    """The report for a terminal."""
    tiers = ", ".join(f"{count:,} {tier}" for tier, count in said["tiers"].items())
    least = min((int(margin) for margin in said["margins"]), default=None)
    now = "nothing is held here" if least is None else f"the least margin is {least}; {said['lost']:,} lost"
    yield f"node        {said['node'][:8]}  {said['region']} of {said['operator']}, {said['made']}"
    places = ", ".join(f"{count:,} {level}" for level, count in said["location"].items())
    yield f"members     {said['members']['alive']:,} alive, {said['members']['dead']:,} dead; places: {places}"
    yield f"stripes     {said['stripes']:,} known to this node" + (f": {tiers}" if tiers else "")
    yield f"now         {now}; {said['short']:,} short of a shard, {said['out_of_placement']:,} out of placement"
    if not said["view_trusted"]:
        yield "view        doubted: many members vanished at once; what is not seen counts as gone"
    for kind in ("regions", "operators", "releases"):
        yield ""
        yield from _case_lines(said, kind)
    if said["worst"]:
        yield ""
        yield from _worst_lines(said["worst"])


def _case_lines(said: Mapping[str, Any], kind: str) -> Iterator[str]:
    from lockbox_node.observe.report_page import COLUMNS, banded, case_name

    names = [case_name(kind, case["name"]) for case in said[kind]]
    cities = [case.get("city", "") for case in said[kind]]
    shown = [f"{name}  {city}".rstrip() for name, city in zip(names, cities, strict=True)]
    head = f"IF THIS {kind[:-1].upper()} VANISHED"
    width = max(len(head), *map(len, shown)) if shown else len(head)
    yield f"{head:<{width}}  WORST     LOST      0      1      2       3+  STRIPES   SHARDS  NODES   DEAD"
    for name, case in zip(shown, said[kind], strict=True):
        bands = banded(case["margins"])
        worst = "-" if case["worst"] is None else case["worst"]
        lost, none, one, two, more = (bands[column] for column in COLUMNS)
        yield (
            f"{name:<{width}}  {worst:>5} {lost:>8,} {none:>6,} {one:>6,} {two:>6,} {more:>8,} {case['stripes']:>8,} "
            f"{case['shards']:>8,} {case['nodes']:>6,} {case['gone']:>6,}"
        )
    if said["unlisted"][kind]:
        yield f"and {said['unlisted'][kind]:,} more"


def _worst_lines(worst: list[Mapping[str, Any]]) -> Iterator[str]:
    from lockbox_node.observe.report_page import case_name

    yield "WORST OFF         TIER      NOW  LEFT  IF THIS VANISHED"
    for risk in worst:
        after = risk["after"]
        name = case_name(after["kind"], after["name"])
        yield f"{risk['address']}  {risk['tier']:<8} {risk['margin']:>4} {after['margin']:>5}  {after['kind']} {name}"
