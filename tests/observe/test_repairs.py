"""What a node says of healing, to people and to Prometheus: tests of the page as a whole are in test_metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
import trio.testing

from lockbox_node.core.repair import Cause
from lockbox_node.core.repair_figures import Durations
from lockbox_node.observe.repairs import by_class, repairs_said
from tests.fakes.healing_cluster import Cluster, running

if TYPE_CHECKING:
    from lockbox_node.services.healing import Healing


def test_margins_fall_into_classes_and_every_class_is_named() -> None:
    assert by_class({-3: 1, -1: 2, 0: 4, 1: 8, 2: 16, 3: 32, 4: 64, 12: 128}) == {
        "lost": 3, "none": 4, "one": 8, "few": 48, "more": 192,
    }  # fmt: skip
    assert by_class({}) == {"lost": 0, "none": 0, "one": 0, "few": 0, "more": 0}


async def test_a_repaired_death_is_told_with_its_cause_and_how_long_the_stripe_was_short(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(Cluster()) as cluster:
        part = await cluster.lock("a")
        steward, *others = cluster.nearest_first(part)
        cluster.kill(others[3])
        await _until_swept(cluster.healings[steward])
        detection = Durations()
        detection.add(7.0)
        said = repairs_said(cluster.healings[steward], detection, view_trusted=True)
    assert (said["done"], said["pending"], said["left_s"]) == (1, 0, 0.0)
    assert said["by_cause"][Cause.LOSS.value] == 1
    assert said["margins"] == {"5": 1}
    assert said["margin_worst"] == 5
    assert 4 <= said["short_s"] < 6
    assert said["detection_s"] == 7.0


async def _until_swept(healing: Healing) -> None:
    await trio.sleep(10)
    healing.sweep_soon()
    await trio.sleep(1)
