"""The standing report of a node: what the loss of one region, operator or release would mean for the stripes it holds.

The stripes are read page by page, with a rest after each, so that a store with a million parts holds up nobody; one
report at a time, others wait. A node knows the holders of what it holds itself: the report says of how many stripes it
speaks. Source: CONTRACT, report; core.what_if.
"""

from __future__ import annotations

import datetime
from collections import Counter
from typing import TYPE_CHECKING, Any

import trio

from lockbox_node.core.member_events import Status
from lockbox_node.core.tiers import TIERS, tier_numbered
from lockbox_node.core.what_if import CASES_LISTED_MAX, WORST_LISTED_MAX, Case, Kind, WhatIf, lost_of
from lockbox_node.observe.whereabouts import LEVELS
from lockbox_node.ports import ShardStore, StripeSummary, settled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lockbox_node.core.membership import Membership
    from lockbox_node.core.regions import RegionTable
    from lockbox_node.services.sources import MembersView
    from protocol.ids import NodeId

PAGE = 32
REST_S = 0.002  # after a page, about as long as one takes: requests come first
ADDRESS_DIGITS = 16


class Reporting:
    """Makes the report when it is asked for.

    `trusted` says whether the view of the members is; `level_of` what is known of a member's claim of its place.
    """

    def __init__(
        self,
        store: ShardStore,
        view: MembersView,
        machine: Membership,
        trusted: Callable[[], bool],
        now_unix_s: Callable[[], float],
        level_of: Callable[[NodeId], str],
    ) -> None:
        self._store = store
        self._view = view
        self._machine = machine
        self._trusted = trusted
        self._now_unix_s = now_unix_s
        self._level_of = level_of
        self._turn = trio.Lock()

    async def report(self, _request: dict[str, Any]) -> object:
        """The verb of the control socket."""
        async with self._turn:
            gone = [one.record for one in self._machine.members.values() if one.status is Status.DEAD]
            members = self._view.alive()
            found = WhatIf(self._view.own, members, self._view.failing(), gone, self._view.regions)
            await self._read(found)
        record = members[self._view.own]
        places: dict[str, Counter[str]] = {}  # region -> level -> nodes
        for node, member in members.items():
            places.setdefault(member.region, Counter())[self._level_of(node)] += 1
        return {
            "node": record.node.hex(),
            "region": record.region,
            "operator": record.operator,
            "made": datetime.datetime.fromtimestamp(self._now_unix_s(), datetime.UTC).isoformat(timespec="seconds"),
            "view_trusted": self._trusted(),
            "members": {"alive": len(members), "dead": len(gone)},
            "location": _levels(sum(places.values(), Counter())),
            **_said(found, self._view.regions, places),
        }

    async def _read(self, found: WhatIf) -> None:
        after = b""
        while True:
            start = after
            page: list[StripeSummary] = await settled(lambda answer: self._store.summaries(start, PAGE, answer))  # noqa: B023
            for summary in page:
                if not summary.trashed:
                    found.add(summary, tier_numbered(summary.tier))
            if len(page) < PAGE:
                return
            after = page[-1].address + page[-1].descriptor_hash
            await trio.sleep(REST_S)


def _said(found: WhatIf, regions: RegionTable, places: Mapping[str, Counter[str]]) -> dict[str, Any]:
    cases = {kind: found.cases(kind) for kind in Kind}
    return {
        "stripes": found.stripes,
        "tiers": {tier.name: found.tiers[tier.name] for tier in TIERS if found.tiers[tier.name]},
        "margins": _counted(found.margins),
        "lost": lost_of(found.margins),
        "short": found.short,
        "out_of_placement": found.displaced,
        **{
            f"{kind.value}s": [_case(case, regions, places) for case in cases[kind][:CASES_LISTED_MAX]] for kind in Kind
        },
        "unlisted": {f"{kind.value}s": max(0, len(cases[kind]) - CASES_LISTED_MAX) for kind in Kind},
        "worst": [
            {
                "address": risk.address.hex()[:ADDRESS_DIGITS],
                "tier": risk.tier,
                "margin": risk.margin,
                "after": {"kind": risk.kind.value, "name": risk.name, "margin": risk.after},
            }
            for risk in found.worst
        ],
        "worst_listed_max": WORST_LISTED_MAX,
    }


def _case(case: Case, regions: RegionTable, places: Mapping[str, Counter[str]]) -> dict[str, Any]:
    place = regions.regions.get(case.name) if case.kind is Kind.REGION else None
    where = place and {"city": place.city, "latitude": place.latitude, "longitude": place.longitude}
    return {
        "name": case.name,
        **(where or {}),
        "nodes": case.nodes,
        "gone": case.gone,
        "shards": case.shards,
        "stripes": case.stripes,
        "worst": case.worst,
        "lost": case.lost,
        "margins": _counted(case.margins),
        **({"location": _levels(places.get(case.name, Counter()))} if case.kind is Kind.REGION else {}),
    }


def _levels(nodes: Counter[str]) -> dict[str, int]:
    """Level -> nodes, those that there are."""
    return {level: nodes[level] for level in LEVELS if nodes[level]}


def _counted(margins: Counter[int]) -> dict[str, int]:
    """Margin -> stripes, the least first."""
    return {str(margin): margins[margin] for margin in sorted(margins)}
