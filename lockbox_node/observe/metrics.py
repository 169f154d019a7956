"""What a node shows to Prometheus: names `lockbox_*`, units in the names, no label that names an asset or a client.

The services count; this module only reads what they expose (`Observed`) when somebody scrapes, so that counting costs
nothing here and no number stands in two places. Labels come from closed sets (states, request types, outcomes) and
are checked. `prometheus_client` takes a tenth of a second to load: it is loaded by the first scrape, not at the start.
Source: CONTRACT, HTTP of a node; the naming rules of Prometheus (base units, `_total` for counters).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from lockbox_node.observe.repairs import repair_families

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client.core import Metric
    from prometheus_client.registry import CollectorRegistry

    from lockbox_node.observe.audits import AuditWork
    from lockbox_node.observe.repairs import RepairWork
    from lockbox_node.observe.whereabouts import LocationWork
    from lockbox_node.ports import StoreFigures
    from lockbox_node.services.draining import DrainFigures

K = TypeVar("K")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LABEL_VALUES_MAX = 64
_LABEL_VALUE = re.compile(r"[a-z][a-z_]{0,31}")


@dataclass(frozen=True, slots=True)
class StoreWork:
    """What the store did since the start."""

    puts: int
    gets: int
    corrupt_found: int


@dataclass(frozen=True, slots=True)
class UpkeepWork:
    """What leases and the scrub did since the start, and where they stand."""

    clock_trusted: bool
    expired: int
    emptied: int
    scrub_progress: float  # 0 to 1
    scrub_parts: int
    scrub_corrupt: int
    scrub_finished_unix_s: float  # 0 = never


@dataclass(frozen=True, slots=True)
class Observed:
    """What the services expose: functions that return the present value, cheap, synchronous, never raising."""

    uptime_s: Callable[[], float]
    members: Callable[[], Mapping[str, int]]  # state -> members
    connections: Callable[[], int]
    dial_backs: Callable[[], Mapping[str, int]]  # reached, unreachable, busy -> newcomers
    store: Callable[[], StoreFigures]
    store_work: Callable[[], StoreWork]
    requests: Callable[[], Mapping[tuple[str, str], int]]  # (request type, "served" | "refused") -> count
    grants: Callable[[], Mapping[str, int]]  # as a verifier: "granted", or the code of the refusal -> count
    grant_uses: Callable[[], Mapping[str, int]]  # as a holder: "served", or the code of the refusal -> count
    statements: Callable[[], Mapping[str, int]]  # as a verifier: "stated", verdicts, refusals -> count
    repairs: Callable[[], RepairWork]
    drain: Callable[[], DrainFigures | None]  # None = the node is not being drained
    copies: Callable[[], tuple[int, int]]  # copies too many: that were dropped since the start, that stay for now
    upkeep: Callable[[], UpkeepWork]
    certificates_left_s: Callable[[], Mapping[str, float]]  # "identity", "operational" -> seconds until expiry
    location: Callable[[], LocationWork]
    audits: Callable[[], AuditWork]


class Metrics:
    """The registry of one node: ours, never the process-wide default."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._registry: CollectorRegistry | None = None

    def render(self) -> bytes:
        """The present values in the text format of `CONTENT_TYPE`."""
        from prometheus_client import generate_latest

        if self._registry is None:
            self._registry = _registry_of(self._observed)
        return generate_latest(self._registry)


class _Collector:
    """Turns `Observed` into metric families at each scrape."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def collect(self) -> Iterator[Metric]:
        yield from _node_families(self._observed)
        yield from _store_families(self._observed)
        yield from _work_families(self._observed)
        yield from _copy_families(*self._observed.copies())
        yield from _drain_families(self._observed.drain())
        yield from _upkeep_families(self._observed.upkeep())
        yield from _location_families(self._observed.location())
        yield from _audit_families(self._observed.audits())


def _registry_of(observed: Observed) -> CollectorRegistry:
    from prometheus_client import CollectorRegistry, ProcessCollector

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(observed))
    ProcessCollector(namespace="lockbox", registry=registry)  # CPU, memory, open files
    return registry


def _node_families(observed: Observed) -> Iterator[Metric]:
    yield _gauge("lockbox_uptime_seconds", "Time since the node started.", observed.uptime_s())
    yield _gauges("lockbox_members", "Members of the network that this node knows.", "state", observed.members())
    yield _gauge("lockbox_connections", "Open connections to peers.", observed.connections())
    yield _counters("lockbox_dial_backs", "Newcomers to be dialled back.", "outcome", observed.dial_backs())
    yield _gauges(
        "lockbox_certificate_expiry_seconds",
        "Time until the certificate expires; negative once it has.",
        "certificate",
        observed.certificates_left_s(),
    )


def _store_families(observed: Observed) -> Iterator[Metric]:
    figures = observed.store()
    yield _gauge("lockbox_stripes", "Stripes held.", figures.stripes)
    yield _gauge("lockbox_shards", "Shards held.", figures.shards)
    yield _gauge("lockbox_shards_corrupt", "Shards that failed their check and wait for repair.", figures.corrupt)
    yield _gauge("lockbox_pointers", "Holder tables kept for others.", figures.pointers)
    yield _gauge("lockbox_tombstones", "Signed deletions kept.", figures.tombstones)
    yield _gauge("lockbox_trash_stripes", "Stripes whose lease is over, kept for some days.", figures.trash_stripes)
    sizes = {
        "logical": figures.logical_bytes,
        "disk": figures.disk_bytes,
        "trash": figures.trash_bytes,
        "reserved": figures.reserved_bytes,
    }
    text = "Bytes of the stripes, what all takes on the disk, what is in trash, what is kept free for deletes."
    yield _gauges("lockbox_stored_bytes", text, "kind", sizes)
    yield _gauge("lockbox_salvages", "Rebuilds of a damaged database since the start.", figures.salvaged)
    yield _gauge("lockbox_salvage_losses", "Stripes and deletions that they cost; stripes are repaired.", figures.lost)


def _work_families(observed: Observed) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    requests = CounterMetricFamily("lockbox_requests", "Requests answered.", labels=["request", "outcome"])
    for (request, outcome), count in _bounded(observed.requests()):
        requests.add_metric([_label(request), _label(outcome)], count)
    yield requests
    yield _counters("lockbox_grants", "Requests for grants answered.", "outcome", observed.grants())
    text = "Statements signed for certificates, verdicts in them, refusals."
    yield _counters("lockbox_audit_requests", text, "outcome", observed.statements())
    yield _counters("lockbox_grant_uses", "Requests for shards by grants.", "outcome", observed.grant_uses())
    work = observed.store_work()
    yield CounterMetricFamily("lockbox_puts", "Stripes stored durably.", work.puts)
    yield CounterMetricFamily("lockbox_gets", "Stripes read and verified.", work.gets)
    yield CounterMetricFamily("lockbox_corrupt_found", "Shards found not to match their id.", work.corrupt_found)
    yield from repair_families(observed.repairs())


def _copy_families(trimmed: int, spare: int) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    text = "Copies too many, of holders that were away, that were dropped here."
    yield CounterMetricFamily("lockbox_parts_trimmed", text, trimmed)
    yield _gauge("lockbox_parts_spare", "Copies too many that are kept here for now.", spare)


def _drain_families(drain: DrainFigures | None) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    yield _gauge("lockbox_draining", "1 while the node is being drained, or was.", drain is not None)
    parts, shard_bytes, parts_left, bytes_left, stuck = 0, 0, 0, 0, 0
    if drain is not None:
        parts, shard_bytes, stuck = drain.parts, drain.shard_bytes, sum(drain.stuck.values())
        parts_left, bytes_left = drain.parts_left, drain.bytes_left
    shown = "that other holders showed before they were dropped here."
    yield CounterMetricFamily("lockbox_drain_parts", f"Parts {shown}", parts)
    yield CounterMetricFamily("lockbox_drain_bytes", f"Bytes of parts {shown}", shard_bytes)
    yield _gauge("lockbox_drain_left_parts", "Parts that a drain has not handed over yet.", parts_left)
    yield _gauge("lockbox_drain_left_bytes", "Bytes that a drain has not handed over yet.", bytes_left)
    yield _gauge("lockbox_drain_stuck_parts", "Of them, those that nobody took at the last try.", stuck)


def _upkeep_families(work: UpkeepWork) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    yield _gauge("lockbox_clock_trusted", "1 while the clock is believed, so that leases may end.", work.clock_trusted)
    yield CounterMetricFamily("lockbox_leases_expired", "Leases and tombstones that ended.", work.expired)
    yield CounterMetricFamily("lockbox_trash_emptied", "Stripes that went from trash for good.", work.emptied)
    yield _gauge("lockbox_scrub_progress_ratio", "Share of the stripes that this scrub has seen.", work.scrub_progress)
    yield CounterMetricFamily("lockbox_scrub_parts", "Stripes read by scrubs.", work.scrub_parts)
    yield CounterMetricFamily("lockbox_scrub_corrupt", "Stripes that scrubs found damaged.", work.scrub_corrupt)
    text = "When the last scrub ended, in Unix time; 0 = never."
    yield _gauge("lockbox_scrub_last_finished_timestamp_seconds", text, work.scrub_finished_unix_s)


def _location_families(work: LocationWork) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    yield _gauge("lockbox_location_reports", "Vantage reports kept.", work.reports)
    yield _gauge("lockbox_location_contradictions", "Claims of places that somebody contradicts.", work.contradictions)
    yield _gauge("lockbox_location_refuted", "Members whose place is refuted here.", work.refuted)
    yield _gauge("lockbox_location_measured", "Members whose place is proven here.", work.measured)
    yield _gauge("lockbox_location_enforced", "1 while the policy excludes who is refuted.", work.enforced)
    yield _gauge("lockbox_location_doubted", "1 while this node does not believe its own place.", work.doubted)
    yield CounterMetricFamily("lockbox_location_pings", "Pings that measure.", work.pings)
    yield CounterMetricFamily("lockbox_location_pings_discarded", "Pings that did not count.", work.discarded)
    text = "Vantage reports that did not count."
    yield _counters("lockbox_location_reports_refused", text, "reason", work.refused)


def _audit_families(work: AuditWork) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    yield _counters("lockbox_audits", "Challenges to other holders, by what they showed.", "verdict", work.verdicts)
    yield CounterMetricFamily("lockbox_audits_skipped", "Audits whose holder could not be asked.", work.skipped)
    text = "Failed audits that there was no room to remember."
    yield CounterMetricFamily("lockbox_audits_forgotten", text, work.overflow)
    yield CounterMetricFamily("lockbox_audit_proof_bytes", "Bytes of leaves that others showed.", work.proof_bytes)
    yield _gauge("lockbox_audit_findings", "Parts of others that count as missing until they are shown.", work.findings)
    yield _gauge("lockbox_audit_standing_blamed_nodes", "Members that denied a loss, not forgotten yet.", work.blamed)
    yield _gauge("lockbox_audit_standing_excluded_nodes", "Of them, those given nothing new.", work.excluded)


def _gauge(name: str, text: str, value: float) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(name, text, value)


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in _bounded(values):
        family.add_metric([_label(key)], value)
    return family


def _counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in _bounded(values):
        family.add_metric([_label(key)], value)
    return family


def _bounded(values: Mapping[K, float]) -> list[tuple[K, float]]:
    assert len(values) <= LABEL_VALUES_MAX, "a label takes its values from a small closed set"
    return list(values.items())


def _label(value: str) -> str:
    """`value`, which must be a plain word: what a peer chose, or what names an asset, is not one."""
    assert _LABEL_VALUE.fullmatch(value), "label values are words of a closed set"
    return value
