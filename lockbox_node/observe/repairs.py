"""What a node says of healing: what it repaired and why, how long that took, how safe what it holds is, what waits.

Times to detect run from the last sign of life of a member, so they are an upper bound. No name of an asset or a client
is in any of it; margins are shown in classes, so that no label grows with the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lockbox_node.core.repair import Cause

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client import Metric

    from lockbox_node.core.repair_figures import Durations, RepairFigures
    from lockbox_node.services.healing import Healing

CLASSES = (("lost", -1), ("none", 0), ("one", 1), ("few", 3))  # of margins, each up to that many shards; then "more"


@dataclass(frozen=True, slots=True)
class RepairWork:
    """For metrics: what was done since the start, and what waits."""

    failed: int
    pending: int
    left_s: float  # about how long what waits will take
    let_go: int  # parts out of place that were dropped after another holder had proved theirs
    figures: RepairFigures
    detection: Durations  # from the last sign of life of a member until it was declared dead


def repair_work(healing: Healing, detection: Durations) -> RepairWork:
    """As it is now."""
    counts = (healing.repairs_failed, healing.pending, healing.left_s, healing.let_go)
    return RepairWork(*counts, healing.figures, detection)


def by_class(margins: Mapping[int, int]) -> dict[str, int]:
    """Stripes by class of their margin, every class named."""
    found = dict.fromkeys([name for name, _ in CLASSES] + ["more"], 0)
    for margin, stripes in margins.items():
        found[next((name for name, most in CLASSES if margin <= most), "more")] += stripes
    return found


def repairs_said(healing: Healing, detection: Durations, *, view_trusted: bool) -> dict[str, Any]:
    """For `status`. `margins`: shards that may still be lost -> stripes, by the last whole sweep."""
    figures = healing.figures
    return {
        "done": healing.repairs_done,
        "failed": healing.repairs_failed,
        "pending": healing.pending,
        "left_s": round(healing.left_s, 1),
        "moved": figures.done[Cause.OUT_OF_PLACEMENT],
        "urgent": figures.urgent,
        "let_go": healing.let_go,
        "by_cause": {cause.value: figures.done[cause] for cause in Cause},
        "bytes": figures.bytes_rebuilt.total(),
        "margin_worst": figures.margin_worst,
        "margins": {str(margin): stripes for margin, stripes in figures.margins.items()},
        "short_s": _mean(figures.short),
        "detection_s": _mean(detection),
        "enabled": healing.enabled,
        "view_trusted": view_trusted,
    }


def repair_families(work: RepairWork) -> Iterator[Metric]:
    """The metric families of healing."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    figures = work.figures
    outcomes = CounterMetricFamily("lockbox_repairs", "Repairs that ended.", labels=["outcome"])
    outcomes.add_metric(["done"], figures.done.total())
    outcomes.add_metric(["failed"], work.failed)
    yield outcomes
    causes = CounterMetricFamily("lockbox_repairs_by_cause", "Repairs that were done.", labels=["cause"])
    rebuilt = CounterMetricFamily("lockbox_repaired_bytes", "Bytes of shards brought back.", labels=["cause"])
    for cause in Cause:
        causes.add_metric([cause.value], figures.done[cause])
        rebuilt.add_metric([cause.value], figures.bytes_rebuilt[cause])
    yield causes
    yield rebuilt
    moved = "Repairs of stripes that were whole, but out of place."
    yield CounterMetricFamily("lockbox_repairs_moved", moved, figures.done[Cause.OUT_OF_PLACEMENT])
    yield CounterMetricFamily("lockbox_parts_let_go", "Parts out of place that were dropped here.", work.let_go)
    urgent = "Repairs of stripes that bore no further loss."
    yield CounterMetricFamily("lockbox_repairs_urgent", urgent, figures.urgent)
    yield GaugeMetricFamily("lockbox_repairs_pending", "Repairs that wait or run.", work.pending)
    yield GaugeMetricFamily("lockbox_repairs_left_seconds", "About how long they will take.", work.left_s)
    margins = GaugeMetricFamily(
        "lockbox_stripes_by_margin", "Stripes held here, by how many shards may still be lost.", labels=["margin"]
    )
    for name, stripes in by_class(figures.margins).items():
        margins.add_metric([name], stripes)
    yield margins
    if figures.margin_worst is not None:
        worst = "The fewest shards that a stripe held here may still lose."
        yield GaugeMetricFamily("lockbox_margin_worst", worst, figures.margin_worst)
    text = "How long stripes were short until they were whole again."
    yield _histogram("lockbox_stripe_short_duration", text, figures.short)
    text = "Time from the last sign of life of a member until it was declared dead."
    yield _histogram("lockbox_member_detection_duration", text, work.detection)


def _histogram(name: str, text: str, durations: Durations) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    return HistogramMetricFamily(name, text, list(durations.cumulative()), durations.sum_s, unit="seconds")


def _mean(durations: Durations) -> float | None:
    count = sum(durations.counts)
    return round(durations.sum_s / count, 1) if count else None
