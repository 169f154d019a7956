"""What a running node says of itself: to its operator's socket, to its probes, to Prometheus.

Only reads what the services expose, and passes on the operator's word (pause, resume). The identity's dates come in as
a small protocol, since the adapters are not ours to know. Shape of `status`: CONTRACT.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import trio

from lockbox_node.core.member_events import Status
from lockbox_node.core.state_root import state_root
from lockbox_node.errors import LockboxError, UsageError
from lockbox_node.observe.audits import audit_verb, audit_work, audits_said
from lockbox_node.observe.backups import last_backup
from lockbox_node.observe.drains import DrainVerbs, drain_said
from lockbox_node.observe.metrics import Metrics, Observed, StoreWork, UpkeepWork
from lockbox_node.observe.repairs import repair_work, repairs_said
from lockbox_node.observe.reporting import Reporting
from lockbox_node.observe.web import Pages
from lockbox_node.observe.whereabouts import level_word, location_said, location_work
from lockbox_node.services.announcing import NodeState
from protocol.documents import Kind
from protocol.ids import ID_BYTES, NodeId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lockbox_node.node import Node
    from lockbox_node.services.scrubbing import Scrubber

AWAIT_TIMEOUT_S = 60.0
AWAIT_PER_NODE_S = 2.0  # more, of those awaited: all of a test network share one machine

Verb = Callable[[dict[str, Any]], Awaitable[object]]


class Dated(Protocol):
    """When our certificates expire."""

    @property
    def leaf_not_after_unix_s(self) -> float:
        """Of the operational leaf."""
        ...

    @property
    def identity_not_after_unix_s(self) -> float:
        """Of the identity certificate."""
        ...


class Watch:
    """One node, looked at from outside."""

    def __init__(self, node: Node, identity: Dated, now_unix_s: Callable[[], float]) -> None:
        self._node = node
        self._identity = identity
        self._now_unix_s = now_unix_s
        self._started = trio.current_time()
        self._version = _version()
        self._drains = DrainVerbs(node)
        self._metrics = Metrics(self._observed())
        view, trusted = node.discovery, lambda: node.guard.trusted
        self._reporting = Reporting(node.store, view, node.machine, trusted, now_unix_s, self._level_of)

    def verbs(self) -> Mapping[str, Verb]:
        """Answers of the control socket."""
        return {
            "status": self._status,
            "members": self._members,
            "healing": self._healing,
            "drain": self._drains.drain,
            "resume": self._drains.resume,
            "scrub": self._scrub,
            "audit": partial(audit_verb, self._node.rounds),
            "report": self._reporting.report,
            "await-members": self._await_members,
            "await-documents": self._await_documents,
        }

    def pages(self) -> Pages:
        """What /health, /ready and /metrics say."""
        return Pages(self._not_ready, self._metrics.render)

    def _not_ready(self) -> list[str]:
        reasons = []
        if self._node.membership.introducing.unreachable:
            reasons.append(self._node.membership.introducing.unreachable)
        elif not self._node.joined:
            reasons.append("no other node was reached yet")
        elif self._node.config.node.bootstrap and not self._node.machine.alive():
            reasons.append("every other node that is known is gone")
        if self._node.store.broken:
            reasons.append(f"the store is read-only: {self._node.store.broken}")
        if self._node.rejoining.unconfirmed():
            reasons.append("the node was restored and is asking its siblings what it missed")
        if self._node.announcer.state is not NodeState.ACTIVE:
            reasons.append(f"the node is {self._node.announcer.state.name.lower()}")
        if self._node.documents.revoked_here:
            reasons.append("the network's authority has revoked the node")
        for name, left_s in self._certificates_left_s().items():
            if left_s < 0:
                reasons.append(f"the {name} certificate has expired")
        return reasons

    def _counts(self) -> dict[str, int]:
        members = self._node.machine.members.values()
        counts = {status: sum(member.status is status for member in members) for status in Status}
        return {
            "alive": counts[Status.ALIVE] + 1,  # ourselves
            "suspect": counts[Status.SUSPECT],
            "dead": counts[Status.DEAD],
        }

    async def _status(self, _request: dict[str, Any]) -> object:
        node, figures = self._node, self._node.store.figures()
        record = node.announcer.record
        found = node.rejoining.reconciler.restored
        return {
            "id": record.node.hex(),
            "region": record.region,
            "operator": record.operator,
            "state": NodeState(record.state).name.lower(),
            "ready": not self._not_ready(),
            "not_ready": self._not_ready(),
            "version": self._version,
            "software": record.software.hex(),
            "members": self._counts(),
            "connections": len(node.pool.connections()),
            "stripes": figures.stripes,
            "shards": figures.shards,
            "corrupt": figures.corrupt,
            "pointers": figures.pointers,
            "trash": figures.trash_stripes,
            "bytes": {
                "logical": figures.logical_bytes,
                "disk": figures.disk_bytes,
                "trash": figures.trash_bytes,
                "reserved": figures.reserved_bytes,
            },
            **scrub_said(node.upkeep.scrub),
            "audits": audits_said(node.rounds),
            "clock": {"trusted": node.upkeep.leases.trusted, "why": node.upkeep.leases.reason},
            "repairs": repairs_said(node.healing, node.membership.detection.durations, view_trusted=node.guard.trusted),
            "copies": dict(zip(("trimmed", "spare"), self._copies(), strict=True)),
            "drain": drain_said(node.draining.figures),
            "certificates": {
                "identity_until": _iso(self._identity.identity_not_after_unix_s),
                "operational_until": _iso(self._identity.leaf_not_after_unix_s),
            },
            "location": location_said(node.measuring, node.discovery),
            "documents": self._documents(),
            "revoked": node.documents.revoked_here,
            "restored": found and asdict(found),
            "state_root": self._state_root(),
            "siblings": asdict(node.rejoining.reconciler.siblings),
            "digest_mismatches": node.rejoining.reconciler.digest_mismatches,
            "last_backup": last_backup(node.store.notes),
            "uptime_s": round(trio.current_time() - self._started, 1),
        }

    async def _members(self, _request: dict[str, Any]) -> object:
        rows = [(member.record, member.status.name.lower()) for member in self._node.machine.members.values()]
        rows.append((self._node.announcer.record, "alive"))
        judgement, standings, now = self._node.measuring.judgement, self._node.rounds.standings, trio.current_time()
        return {
            "members": [
                {
                    "id": record.node.hex(),
                    "status": status,
                    "region": record.region,
                    "location": level_word(judgement, NodeId(record.node)),
                    "faults": round(standings.faults(NodeId(record.node), now), 3),
                    "operator": record.operator,
                    "addresses": list(record.addresses),
                    "state": NodeState(record.state).name.lower(),
                    "software": record.software.hex(),
                }
                for record, status in sorted(rows, key=lambda row: row[0].node)
            ]
        }

    async def _healing(self, request: dict[str, Any]) -> object:
        if not isinstance(request.get("enabled"), bool):
            raise UsageError("healing needs enabled = true or false")
        if request["enabled"]:
            self._node.healing.resume()
        else:
            self._node.healing.pause()
        return {"enabled": self._node.healing.enabled}

    async def _scrub(self, request: dict[str, Any]) -> object:
        """`action`: start, pause, resume or progress; the answer says where the scrub stands then."""
        scrub = self._node.upkeep.scrub
        match request.get("action"):
            case "start":
                await scrub.start_now()
            case "pause":
                await scrub.pause()
            case "resume":
                await scrub.resume()
            case "progress":
                pass
            case _:
                raise UsageError("scrub needs action = start, pause, resume or progress")
        return {**scrub_said(scrub), "healing": self._node.healing.enabled}

    def _level_of(self, node: NodeId) -> str:
        return level_word(self._node.measuring.judgement, node)

    async def _await_members(self, request: dict[str, Any]) -> object:
        """Return when `nodes` (full ids, hex) are all alive in our view and serve; we are always among them."""
        wanted = _ids(request.get("nodes"))
        limit_s = AWAIT_TIMEOUT_S + AWAIT_PER_NODE_S * len(wanted)
        with trio.move_on_after(limit_s):
            await trio.lowlevel.checkpoint()
            while self._missing(wanted):
                await self._node.membership.changed.wait()
        missing = self._missing(wanted)
        if missing:
            raise LockboxError(
                f"{missing} of {len(wanted)} nodes are not alive and serving here after {limit_s:.0f} s",
                "look at `members` and at their logs",
            )
        return {"alive": len(wanted)}

    def _documents(self) -> dict[str, int]:
        """Kind -> version of what is in force here."""
        return {Kind(one.kind).name.lower(): one.version for one in self._node.documents.versions()}

    def _state_root(self) -> str:
        members = self._node.machine.members
        alive = [members[node].record for node in self._node.machine.alive()]
        return state_root([*alive, self._node.announcer.record], self._node.documents.versions()).hex()

    async def _await_documents(self, request: dict[str, Any]) -> object:
        """Return when every one of `documents` (kind -> version), or a newer one, is in force here."""
        wanted = request.get("documents")
        if not isinstance(wanted, dict) or not all(isinstance(version, int) for version in wanted.values()):
            raise UsageError("await-documents needs documents = kind -> version")
        with trio.move_on_after(AWAIT_TIMEOUT_S):
            await trio.lowlevel.checkpoint()
            while any(self._documents().get(kind, 0) < version for kind, version in wanted.items()):
                await self._node.documents.changed.wait()
            return {"documents": self._documents()}
        raise LockboxError(
            f"the documents did not come within {AWAIT_TIMEOUT_S:.0f} s", "look at the node's log and connections"
        )

    def _missing(self, wanted: set[NodeId]) -> int:
        alive = self._node.discovery.alive()
        serving = (NodeState.ACTIVE, NodeState.DRAINING)
        return sum(node not in alive or alive[node].state not in serving for node in wanted)

    def _copies(self) -> tuple[int, int]:
        trimming = self._node.rejoining.trimming
        return (0, 0) if trimming is None else (trimming.trimmed, trimming.spare)

    def _store_work(self) -> StoreWork:
        counts = self._node.storage.counts
        return StoreWork(counts["puts"], counts["gets"], counts["corrupt"])

    def _upkeep_work(self) -> UpkeepWork:
        leases, scrub = self._node.upkeep.leases, self._node.upkeep.scrub
        last = scrub.state.last
        return UpkeepWork(
            leases.trusted,
            leases.expired,
            leases.emptied,
            scrub.state.progress,
            scrub.parts,
            scrub.corrupt,
            last.finished_unix_s if last else 0.0,
        )

    def _observed(self) -> Observed:
        node = self._node
        return Observed(
            uptime_s=lambda: trio.current_time() - self._started,
            members=self._counts,
            connections=lambda: len(node.pool.connections()),
            dial_backs=lambda: node.pool.dial_backs.counts,
            store=node.store.figures,
            store_work=self._store_work,
            requests=self._requests,
            grants=lambda: _lowered(node.granting.counts),
            grant_uses=lambda: _lowered(node.granting.redeeming.counts),
            statements=lambda: _lowered(node.auditing.counts),
            repairs=lambda: repair_work(node.healing, node.membership.detection.durations),
            copies=self._copies,
            drain=lambda: node.draining.figures,
            upkeep=self._upkeep_work,
            certificates_left_s=self._certificates_left_s,
            location=lambda: location_work(node.measuring),
            audits=lambda: audit_work(node.rounds),
        )

    def _requests(self) -> dict[tuple[str, str], int]:
        dispatcher = self._node.dispatcher
        counts: Counter[tuple[str, str]] = Counter()
        for kind, served in dispatcher.served.items():
            counts[_snake(kind), "served"] += served
        for (kind, _), refused in dispatcher.refused.items():
            counts[_snake(kind), "refused"] += refused
        return counts

    def _certificates_left_s(self) -> dict[str, float]:
        now = self._now_unix_s()
        return {
            "identity": self._identity.identity_not_after_unix_s - now,
            "operational": self._identity.leaf_not_after_unix_s - now,
        }


def scrub_said(scrub: Scrubber) -> dict[str, object]:
    """Where the scrub stands (times in seconds of uptime), and the last one that ended, or null."""
    state, last = scrub.state, scrub.state.last
    return {
        "scrub": {
            "state": scrub.word,
            "number": state.number,
            "progress": round(state.progress, 6),
            "parts": state.parts,
            "bytes": state.checked_bytes,
            "corrupt": state.corrupt,
            "due_in_s": round(scrub.due_in_s),
        },
        "last_scrub": last
        and {
            "number": last.number,
            "finished": _iso(last.finished_unix_s),
            "parts": last.parts,
            "bytes": last.checked_bytes,
            "corrupt": last.corrupt,
        },
    }


def _ids(wanted: object) -> set[NodeId]:
    """Node ids from hex. UsageError."""
    refused = UsageError("await-members needs nodes = a list of full node ids in hex")
    if not isinstance(wanted, list) or not all(isinstance(one, str) for one in wanted):
        raise refused
    try:
        ids = {NodeId(bytes.fromhex(one)) for one in wanted}
    except ValueError:
        raise refused from None
    if any(len(node) != ID_BYTES for node in ids):
        raise refused
    return ids


def _version() -> str:
    try:
        return importlib.metadata.version("lockbox-node")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "not installed"


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _lowered(counts: Mapping[str, int]) -> dict[str, int]:
    return {name.lower(): count for name, count in counts.items()}


def _iso(unix_s: float) -> str:
    return datetime.datetime.fromtimestamp(unix_s, datetime.UTC).isoformat(timespec="seconds")
