"""Which shards of a stripe stand where the rules no longer allow them, and so have to move.

A holder may join again with another region, an operator's nodes may grow, the region table may change: then a set that
was legal when it was placed breaks a cap or the distance rule. The fewest indices whose absence makes the rest legal
count as missing, so that repair brings them to better places; their holders still serve, and let go only when another
holder has the index. What is lost first counts as lost alone: a stripe that is whole but out of place keeps its margin.
All holders see the same table and records, so all name the same indices. Source: DESIGN, Tiers and placement.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lockbox_node.core.placement import Candidate, Placed, keeps_rules, most_legal
from lockbox_node.core.regions import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lockbox_node.core.regions import RegionTable
    from lockbox_node.core.repair import Health
    from lockbox_node.core.tiers import Tier
    from protocol.ids import NodeId

CHOICES_MAX = 64  # further holders of indices that are looked at, where several hold the same


def placed(
    seen: Health,
    tier: Tier,
    address: bytes,
    own: NodeId,
    members: Mapping[NodeId, Placed],
    regions: RegionTable = BUILT_IN,
) -> Health:
    """`seen`, with the indices that have to move among the missing, and of several holders the legal one first.

    `members` are the live ones, ourselves included. `surplus` is set when our own copy breaks the rules and another
    holder has its index.
    """
    live = seen.live
    first = [members[nodes[0]] for nodes in live.values() if nodes[0] in members]
    if len(seen.holders()) == len(live) and keeps_rules(tier, first, regions):
        return seen  # as nearly all are
    where = {node: _candidate(node, members[node]) for node in seen.holders() if node in members}
    options = [
        [(index, where[node]) for node in nodes if node in where]
        for index, nodes in seen.live.items()
        if any(node in where for node in nodes)
    ]
    nearest = dict(choices[0] for choices in options)
    if keeps_rules(tier, nearest.values(), regions):
        chosen, displaced = nearest, tuple[int, ...]()
    else:
        chosen = _fewest_moves(tier, address, options, regions)
        displaced = tuple(sorted(nearest.keys() - chosen.keys()))
    standing = {index: _first(nodes, chosen.get(index)) for index, nodes in seen.live.items() if index not in displaced}
    leaving = {index: (*seen.live[index], *seen.going.get(index, ())) for index in displaced}
    return replace(
        seen,
        live=standing,
        missing=tuple(sorted((*seen.missing, *displaced))),
        going={**seen.going, **leaving},
        displaced=displaced,
        surplus=not seen.missing and not displaced and _is_surplus(tier, address, chosen, options, own, where, regions),
    )


def _first(nodes: tuple[NodeId, ...], chosen: Candidate | None) -> tuple[NodeId, ...]:
    if len(nodes) == 1:
        return nodes
    return tuple(sorted(nodes, key=lambda node: chosen is None or node != chosen.node))


def _fewest_moves(
    tier: Tier, address: bytes, options: list[list[tuple[int, Candidate]]], regions: RegionTable
) -> dict[int, Candidate]:
    """The nearest holder of each index; where that has to move, another that need not, if there is one."""
    choice = dict(choices[0] for choices in options)
    best = set(most_legal(tier, address, choice.values(), regions))
    others = [other for choices in options for other in choices[1:]]
    for index, holder in others[:CHOICES_MAX]:
        trial = {**choice, index: holder}
        kept = set(most_legal(tier, address, trial.values(), regions))
        if len(kept) > len(best):
            choice, best = trial, kept
    return {index: holder for index, holder in choice.items() if holder in best}


def _is_surplus(
    tier: Tier,
    address: bytes,
    chosen: Mapping[int, Candidate],
    options: list[list[tuple[int, Candidate]]],
    own: NodeId,
    where: Mapping[NodeId, Candidate],
    regions: RegionTable,
) -> bool:
    """Whether our own copy stands out of place, whichever holders of the other indices it is seen beside.

    More lines of a table are more choices: what others say, be it true or not, makes no good place a bad one.
    """
    index = next((choices[0][0] for choices in options if any(one.node == own for _, one in choices)), None)
    if index is None or chosen[index].node == own:
        return False
    ours = where[own]
    if ours.region not in regions:
        return True
    near = regions.near[ours.region]
    beside = [
        [(index, ours)] if choices[0][0] == index else [choice for choice in choices if choice[1].region not in near]
        for choices in options
    ]
    return not all(beside) or len(_fewest_moves(tier, address, beside, regions)) < len(beside)


def _candidate(node: NodeId, record: Placed) -> Candidate:
    return Candidate(node, record.region, record.operator)
