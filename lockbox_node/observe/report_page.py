"""The standing report as one page of HTML: a map, what each loss would leave, and the stripes that are worst off.

The page needs nothing but itself: no script, no font, no picture from elsewhere, so it can be mailed, kept and opened
anywhere, and a strict Content-Security-Policy holds. Light and dark by the reader's choice. What comes from other nodes
(names of operators) is escaped.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from lockbox_node.observe.world_map import Spot, world_map

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LOW_MAX = 2  # margins up to here are shown as low
COLUMNS = ("lost", "0", "1", "2", "3+")
TITLES = {"regions": "region", "operators": "operator", "releases": "software release"}
RELEASE_DIGITS = 12

_STYLE = """
:root{color-scheme:light dark;--ground:#fbfbf9;--text:#1c1f23;--soft:#5a6068;--line:#d8d8d2;--land:#e2e3dc;
--sea:#f3f6f8;--lost:#b3161b;--thin:#c25400;--low:#8a6d00;--good:#1c7a3d;--none:#666c74}
@media(prefers-color-scheme:dark){:root{--ground:#15181b;--text:#e9eaec;--soft:#a6acb4;--line:#363b41;--land:#33393f;
--sea:#1b2024;--lost:#ff7b76;--thin:#ff9f57;--low:#e3c34a;--good:#63cf87;--none:#8d949c}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:76rem;padding:1.5rem clamp(1rem,3vw,2.5rem) 3rem;background:var(--ground);
color:var(--text);font:1rem/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;line-height:1.2;margin:0 0 .3rem}
h2{font-size:1.15rem;margin:2.2rem 0 .5rem}
p{margin:.3rem 0 .6rem;max-width:75ch}
.soft{color:var(--soft)}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.75rem;margin:1.2rem 0;padding:0}
.facts div{border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem}
.facts dt{color:var(--soft);font-size:.85rem}
.facts dd{margin:0;font-size:1.25rem;font-weight:600;font-variant-numeric:tabular-nums}
.facts small{display:block;font-size:.85rem;font-weight:400;color:var(--soft)}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:.5rem}
.map{display:block;width:100%;min-width:56rem;height:auto;background:var(--sea)}
.land{fill:var(--land)}
.map text{fill:var(--text);font-family:system-ui,sans-serif;font-weight:500;paint-order:stroke;stroke:var(--sea);
stroke-width:9px;stroke-linejoin:round}
.map .none+text{fill:var(--soft);font-weight:400}
.spot{stroke:var(--ground);stroke-width:4px;fill-opacity:.9}
.lead{stroke:var(--soft);stroke-width:3px}
.spot.lost{fill:var(--lost)}.spot.thin{fill:var(--thin)}.spot.low{fill:var(--low)}.spot.good{fill:var(--good)}
.spot.none{fill:none;stroke:var(--none);stroke-width:5px;stroke-dasharray:14 9}
.key{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;margin:.6rem 0;padding:0;list-style:none;font-size:.9rem}
.key li::before{content:"";display:inline-block;width:.75em;height:.75em;border-radius:50%;margin-right:.4em;
background:currentColor}
td.lost,li.lost{color:var(--lost)}td.thin,li.thin{color:var(--thin)}td.low,li.low{color:var(--low)}
td.good,li.good{color:var(--good)}td.none,li.none{color:var(--none)}
td.lost,td.thin{font-weight:700}
.key span{color:var(--text)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;white-space:nowrap}
th,td{padding:.35rem .8rem;text-align:right}
tbody tr>*{border-top:1px solid var(--line)}
thead th{font-weight:600;font-size:.85rem;color:var(--soft)}
th:first-child,.word{text-align:left}
tbody th{font-weight:500}
code{font:.95em ui-monospace,monospace}
.warn{border-left:4px solid var(--thin);padding:.4rem .8rem;margin:.8rem 0}
"""


def margin_kind(worst: int | None) -> str:
    """The class of a margin: lost, thin (nothing may fail any more), low, good; none where nothing is held."""
    if worst is None:
        return "none"
    if worst < 0:
        return "lost"
    return "thin" if worst == 0 else "low" if worst <= LOW_MAX else "good"


def banded(margins: Mapping[str, int]) -> dict[str, int]:
    """Stripes by `COLUMNS`."""
    bands = dict.fromkeys(COLUMNS, 0)
    for margin, count in margins.items():
        bands["lost" if int(margin) < 0 else margin if int(margin) <= LOW_MAX else "3+"] += count
    return bands


def case_name(kind: str, name: str) -> str:
    """A release by the first digits of its hash; of a name that others chose only what can be printed."""
    shown = name[:RELEASE_DIGITS] if kind.startswith("release") else name
    return "".join(letter if letter.isprintable() else "?" for letter in shown)


def margin_words(worst: int | None, lost: int) -> str:
    """What a case would leave its worst stripe, in two or three words."""
    if worst is None:
        return "holds nothing"
    return f"{lost:,} lost" if lost else f"margin {worst}"


def page(said: Mapping[str, Any]) -> str:
    """The whole page, from what the report verb answers."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>What if it vanished: {escape(said['node'][:8])}</title><style>{_STYLE}</style></head><body><main>"
        f"{_head(said)}{_facts(said)}{_map_section(said)}"
        f"{''.join(_case_table(said, kind) for kind in TITLES)}{_worst_table(said)}</main></body></html>\n"
    )


def _head(said: Mapping[str, Any]) -> str:
    tiers = ", ".join(f"{count:,} {tier.capitalize()}" for tier, count in said["tiers"].items())
    doubt = (
        ""
        if said["view_trusted"]
        else '<p class="warn">This node doubts its view of the network: many members vanished at once. '
        "What it does not see counts as gone.</p>"
    )
    return (
        "<h1>What if it vanished now</h1>"
        f'<p class="soft">Node <code>{escape(said["node"][:8])}</code> in {escape(said["region"])} of '
        f"{escape(said['operator'])}, {escape(said['made'][:16].replace('T', ' '))} UTC. It speaks of the "
        f"{said['stripes']:,} stripes that it holds a part of{': ' + tiers if tiers else ''}.</p>"
        '<p class="soft">The margin of a stripe is how many of its shards may still be lost; below 0 it is lost.</p>'
        f"{doubt}"
    )


def _facts(said: Mapping[str, Any]) -> str:
    worst_now = min((int(margin) for margin in said["margins"]), default=None)
    region = next(iter(said["regions"]), None)
    worst_region = (
        "none" if region is None or region["worst"] is None else margin_words(region["worst"], region["lost"])
    )
    facts = [
        ("Members", f"{said['members']['alive']:,} alive", f"{said['members']['dead']:,} dead"),
        (
            "Places",
            f"{said['location'].get('refuted', 0):,} refuted",
            f"{said['location'].get('measured', 0):,} measured",
        ),
        ("Least margin now", "none" if worst_now is None else str(worst_now), f"{said['lost']:,} stripes lost"),
        (
            "Worst region",
            worst_region,
            "" if region is None else region.get("city") or case_name("regions", region["name"]),
        ),
        ("Short of a shard", f"{said['short']:,}", "stripes, repaired after the hold-off"),
        ("Out of placement", f"{said['out_of_placement']:,}", "stripes, whole but to be moved"),
    ]
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
        for name, value, more in facts
    )
    return f'<dl class="facts">{cells}</dl>'


def _map_section(said: Mapping[str, Any]) -> str:
    most = max((region["shards"] for region in said["regions"]), default=0)
    spots = [_spot(region, most) for region in said["regions"] if "latitude" in region]
    keys = [
        ("lost", "stripes would be lost"),
        ("thin", "margin 0"),
        ("low", f"margin 1 to {LOW_MAX}"),
        ("good", "margin 3 or more"),
        ("none", "holds nothing here"),
    ]
    legend = "".join(f'<li class="{kind}"><span>{words}</span></li>' for kind, words in keys)
    return (
        "<h2>If a region vanished</h2><p>Each circle is a region, its area the shards that it holds. The number is the "
        "margin that the worst-off stripe would be left with.</p>"
        f'<ul class="key">{legend}</ul>'
        f"{_scrolled('World map', world_map(spots, 'World map; the table of regions says the same in words'))}"
    )


def _spot(region: Mapping[str, Any], most: int) -> Spot:
    worst, lost = region["worst"], region["lost"]
    gone = region["nodes"] == 0
    short = "gone" if gone else "empty" if worst is None else f"{lost:,} lost" if lost else str(worst)
    nodes = f"{region['nodes']} nodes" + (f", {region['gone']} dead" if region["gone"] else "")
    title = f"{region['city']} ({region['name']}): {nodes}, {region['shards']} shards; {margin_words(worst, lost)}"
    weight = region["shards"] / most if most else 0.0
    city = region["city"]
    return Spot(region["latitude"], region["longitude"], weight, margin_kind(worst), f"{city}: {short}", title)


def _case_table(said: Mapping[str, Any], kind: str) -> str:
    cases: Sequence[Mapping[str, Any]] = said[kind]
    unlisted = said["unlisted"][kind]
    more = f" {unlisted:,} more are not listed." if unlisted else ""
    rows = "".join(_case_row(kind, case) for case in cases)
    heads = "".join(f'<th scope="col"{_aligned(head)}>{escape(head)}</th>' for head in _heads(kind))
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return (
        f"<h2>By {TITLES[kind]}</h2><p>If this {TITLES[kind]} vanished, worst case first: the margin left to the "
        "worst-off stripe, and how many of the stripes that it touches would be lost, or left with 0, 1, 2, 3 or "
        f"more.{more}</p>{_scrolled(f'Table by {TITLES[kind]}', table)}"
    )


def _aligned(head: str) -> str:
    return ' class="word"' if head == "City" else ""


def _heads(kind: str) -> list[str]:
    city = ["City"] if kind == "regions" else []
    return [TITLES[kind].capitalize(), *city, "Worst", "Lost", *COLUMNS[1:], "Stripes", "Shards", "Nodes", "Dead"]


def _case_row(kind: str, case: Mapping[str, Any]) -> str:
    worst = case["worst"]
    bands = banded(case["margins"])
    name = escape(case_name(kind, case["name"]))
    city = f'<td class="word">{escape(case.get("city", ""))}</td>' if kind == "regions" else ""
    marked = f'<td class="{margin_kind(worst)}">{"none" if worst is None else worst}</td>'
    counts = "".join(f"<td{_marked(column, bands[column])}>{bands[column]:,}</td>" for column in COLUMNS)
    numbers = "".join(f"<td>{case[field]:,}</td>" for field in ("stripes", "shards", "nodes", "gone"))
    return f'<tr><th scope="row">{name}</th>{city}{marked}{counts}{numbers}</tr>'


def _marked(column: str, count: int) -> str:
    kind = {"lost": "lost", "0": "thin"}.get(column)
    return f' class="{kind}"' if kind and count else ""


def _worst_table(said: Mapping[str, Any]) -> str:
    if not said["worst"]:
        return "<h2>Worst off</h2><p>This node holds nothing yet.</p>"
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(risk["address"])}</code></th><td class="word">{escape(risk["tier"])}</td>'
        f"<td>{risk['margin']}</td>"
        f'<td class="{margin_kind(risk["after"]["margin"])}">{risk["after"]["margin"]}</td>'
        f'<td class="word">{escape(risk["after"]["kind"])} '
        f"{escape(case_name(risk['after']['kind'], risk['after']['name']))}</td></tr>"
        for risk in said["worst"]
    )
    heads = (
        '<th scope="col">Address</th><th scope="col" class="word">Tier</th><th scope="col">Margin now</th>'
        '<th scope="col">Left</th><th scope="col" class="word">If this vanished</th>'
    )
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return (
        f"<h2>Worst off</h2><p>At most {said['worst_listed_max']} stripes, by the start of their address, and the "
        "region or operator whose loss would leave each the least.</p>"
        f"{_scrolled('Table of the worst stripes', table)}"
    )


def _scrolled(label: str, content: str) -> str:
    """Wide content scrolls in itself, by keyboard too; the page does not."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">{content}</div>'
