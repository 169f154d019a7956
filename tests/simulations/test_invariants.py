"""Each invariant holds on a sound network, and each fails on a planted break."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lockbox_node.core.regions import BUILT_IN, spread_regions
from lockbox_node.core.tiers import STANDARD
from simulations.invariants import Invariants, Limits, is_healable, leftovers
from simulations.snapshot import Bound, NodeSeen, PartSeen, Snapshot, StripeSeen
from tests.fakes.stripes import bytes_of, node_of

LIMITS = Limits(hold_off_s=10, repair_s=20, agree_s=30)
HEAL_S = int(LIMITS.heal_s(STANDARD))
NODES = 18
REGIONS = spread_regions(7)
ADDRESS, HASH = bytes_of("address"), bytes_of("hash")
IDS = frozenset(node_of(number) for number in range(NODES))
STRIPE = StripeSeen(ADDRESS, HASH, STANDARD.number, {index: node_of(index) for index in range(10)})


def part(index: int) -> PartSeen:
    ids = (bytes_of("shard", index),)
    return PartSeen(ADDRESS, HASH, 2, index, ids, ids)


def node(number: int) -> NodeSeen:
    parts = (part(number),) if number < 10 else ()
    name, region, operator = f"n{number}", REGIONS[number % 7], f"op{number}"
    return NodeSeen(node_of(number), name, region, operator, True, 1, parts, IDS)


SOUND = Snapshot(0.0, tuple(node(number) for number in range(NODES)), (STRIPE,))


def changed(number: int, seen: Snapshot = SOUND, **fields: object) -> Snapshot:
    """The network with one node otherwise."""
    nodes = list(seen.nodes)
    nodes[number] = replace(nodes[number], **fields)  # type: ignore[arg-type]
    return replace(seen, nodes=tuple(nodes))


def down(*numbers: int, seen: Snapshot = SOUND) -> Snapshot:
    """Without these, as all others know."""
    gone = {node_of(number) for number in numbers}
    nodes = (replace(one, up=one.up and one.id not in gone, view=one.view - gone) for one in seen.nodes)
    return replace(seen, nodes=tuple(nodes))


def course(*spans: tuple[Snapshot, int]) -> list[str]:
    """What breaks first while each snapshot lasts so many seconds."""
    invariants, now = Invariants(LIMITS), 0.0
    for seen, seconds in spans:
        for _ in range(seconds):
            now += 1
            if found := invariants.broken(replace(seen, now=now)):
                return found
    return []


def broken(seen: Snapshot) -> str:
    """The one thing that does not hold of it after a sound second."""
    (words,) = course((SOUND, 1), (seen, 1))
    return words


def test_nothing_is_broken_in_a_sound_network() -> None:
    assert course((SOUND, 500)) == []
    assert list(leftovers(SOUND)) == []


def test_an_acknowledged_shard_stands_on_a_disk() -> None:
    assert "acknowledged a shard that is on no disk" in broken(changed(3, parts=()))
    moved = changed(11, changed(3, parts=()), parts=(part(3),))
    assert course((SOUND, 1), (moved, 1)) == []
    assert course((SOUND, 1), (changed(3, up=False), 1)) == []


def test_nobody_is_served_other_bytes() -> None:
    assert "other bytes" in broken(replace(SOUND, wrong_reads=1))


def test_no_store_hands_out_what_it_did_not_verify() -> None:
    assert "1 parts were handed out" in broken(replace(SOUND, wrong_served=1))


def test_no_log_line_names_an_asset() -> None:
    assert broken(replace(SOUND, told=("event says address",))) == "event says address"


def test_no_view_holds_a_stranger() -> None:
    assert "does not have" in broken(changed(3, view=IDS | {node_of(99)}))


def test_no_region_stores_enough_to_rebuild() -> None:
    crowded = changed(0, parts=tuple(part(index) for index in (0, 1, 2)))  # and 7 is kept by another of the region
    assert course((crowded, 5)) == []
    crowded = changed(0, up=False, parts=tuple(part(index) for index in (0, 1, 2, 3)))
    assert broken(crowded) == f"{REGIONS[0]} stores 5 shards of a standard stripe, 5 rebuild it"


def test_what_stands_is_what_was_signed() -> None:
    forged = replace(part(3), found=(bytes_of("other"),))
    assert "not what their owner signed" in broken(changed(3, parts=(forged,)))
    assert course((changed(3, parts=(replace(forged, harmed=True),)), 5)) == []


def test_what_was_deleted_stays_deleted() -> None:
    assert "tombstone" in broken(changed(3, tombstones={ADDRESS: (2, 1000.0)}))
    assert course((changed(3, tombstones={ADDRESS: (1, 1000.0)}), 1)) == []


def test_an_older_version_never_wins() -> None:
    older = replace(part(3), version=1)
    assert "older version" in broken(changed(3, parts=(older,)))
    assert course((SOUND, 1), (changed(3, parts=(older,), disk=1), 1)) == []


def test_what_is_buried_stays_buried_on_that_disk_until_its_time_is_over() -> None:
    gone = bytes_of("gone")
    buried = changed(12, tombstones={gone: (3, 10.0)})
    assert "older version" in str(course((buried, 1), (changed(12, tombstones={gone: (2, 10.0)}), 1)))
    assert "n12 forgot a deletion" in str(course((buried, 1), (SOUND, 1)))
    assert "n12 forgot a deletion" in str(course((buried, 1), (changed(12, buried, up=False, tombstones={}), 1)))
    assert course((buried, 9), (SOUND, 5)) == []
    assert course((buried, 1), (changed(12, disk=1), 1)) == []
    late = replace(SOUND, nodes=(*SOUND.nodes[:12], replace(SOUND.nodes[12], parts=(part(0),)), *SOUND.nodes[13:]))
    undone = changed(12, late, tombstones={})
    assert "older version" in str(course((changed(12, tombstones={ADDRESS: (2, 1000.0)}), 1), (undone, 1)))


def test_what_grows_is_bounded() -> None:
    assert "stored bytes is 101" in broken(changed(3, bounds=(Bound("stored bytes", 101, 100),)))
    assert course((changed(3, bounds=(Bound("stored bytes", 100, 100),)), 1)) == []


def test_nobody_repairs_while_it_doubts_its_view() -> None:
    doubting = changed(3, trusted=False)
    assert "doubted" in str(course((doubting, 1), (changed(3, doubting, repairs=1), 1)))
    assert course((SOUND, 1), (changed(3, repairs=1), 1)) == []
    assert course((doubting, 1), (changed(3, doubting, repairs=1, epoch=2), 1)) == []


@pytest.mark.parametrize(("view", "up"), [(IDS, False), (IDS - {node_of(12)}, True)])
def test_views_follow_deaths_and_returns_within_a_bound(view: frozenset[bytes], up: bool) -> None:
    wrong = changed(5, changed(12, down(12) if not up else SOUND), view=view)
    before = SOUND if not up else down(12)
    assert course((before, 40), (wrong, 30)) == []
    assert "n5 is wrong about n12" in str(course((before, 40), (wrong, 31)))
    assert course((before, 40), (replace(wrong, partitioned=True), 100), (wrong, 30)) == []
    assert course((before, 40), (replace(wrong, partitioned=True), 100), (wrong, 31)) != []


def test_the_longest_disagreement_and_healing_are_known() -> None:
    invariants, wrong = Invariants(LIMITS), changed(5, down(12), view=IDS)
    spans = ((SOUND, 40), (wrong, 7), (down(12), 40), (down(3, 12), HEAL_S - 5), (SOUND, 5))
    for now, seen in enumerate(seen for seen, seconds in spans for _ in range(seconds)):
        assert invariants.broken(replace(seen, now=float(now))) == []
    assert invariants.longest.disagreed_s == 6
    assert invariants.longest.healed_s == LIMITS.repair_s - 6


def test_a_short_stripe_is_healed_in_time() -> None:
    short = down(3)
    assert course((SOUND, 1), (short, HEAL_S + 1)) == []
    assert f"has 9 of 10 live shards, one is missing for {HEAL_S + 1} s" in str(course((SOUND, 1), (short, HEAL_S + 2)))


def test_rot_makes_a_stripe_short_too() -> None:
    rotten = changed(3, parts=(replace(part(3), found=(bytes_of("rot"),), harmed=True),))
    assert "9 of 10" in str(course((SOUND, 1), (rotten, HEAL_S + 2)))


def test_time_in_a_partition_or_in_doubt_does_not_count() -> None:
    short = down(3)
    for excuse in (replace(short, partitioned=True), changed(5, short, trusted=False)):
        assert course((SOUND, 1), (excuse, 1000), (short, HEAL_S)) == []
        assert "9 of 10" in str(course((SOUND, 1), (excuse, 1000), (short, HEAL_S + 1)))


def test_a_stripe_that_no_node_may_complete_waits() -> None:
    alone = down(3, *range(10, NODES))
    assert course((SOUND, 1), (alone, 10 * HEAL_S)) == []
    assert not is_healable(STRIPE, alone.live(STRIPE.key), alone)
    full = down(3)
    for number in range(11, NODES):
        full = changed(number, full, eligible=False)
    assert is_healable(STRIPE, full.live(STRIPE.key), full)
    assert not is_healable(STRIPE, full.live(STRIPE.key), changed(10, full, eligible=False))


def test_who_may_complete_a_stripe_is_judged_by_the_table_in_force() -> None:
    short = down(3, *range(11, NODES))
    assert is_healable(STRIPE, short.live(STRIPE.key), short)
    gone = replace(short, regions=BUILT_IN.without(REGIONS[10 % 7]))
    assert not is_healable(STRIPE, gone.live(STRIPE.key), gone)


def test_nothing_is_lost_while_few_holders_are() -> None:
    doubting = changed(13, trusted=False)  # or the healing that does not come would be told first
    slowly = [(down(*range(gone), seen=doubting), HEAL_S // 2) for gone in range(7)]
    assert "4 live shards of the 5 it needs, and lost only 3 lately" in str(course(*slowly))
    assert course(*[(replace(seen, partitioned=True), seconds) for seen, seconds in slowly]) == []
    assert "lost only 3" in str(course((SOUND, 1), (down(*range(6)), HEAL_S), *slowly))
    crowded = [(down(*range(10, NODES), seen=seen), seconds) for seen, seconds in slowly]
    assert course(*crowded) == []
    assert course((SOUND, 1), (down(*range(6)), 10 * HEAL_S)) == []
    healed = changed(10, parts=(part(0),))
    assert course((SOUND, 1), (down(0), HEAL_S), (down(0, seen=healed), 100), (down(0, 1, seen=healed), HEAL_S)) == []


def test_those_who_come_back_after_all_was_lost_have_their_time_to_heal() -> None:
    lost = (down(*range(6)), 3 * HEAL_S)
    assert course((SOUND, 1), lost, (down(0), HEAL_S)) == []
    assert course((SOUND, 1), lost, (down(0), HEAL_S + 1)) != []


def test_what_is_in_quarantine_is_not_live() -> None:
    assert "9 of 10" in str(course((changed(3, parts=(replace(part(3), corrupt=True),)), HEAL_S + 2)))


def test_each_loss_has_its_own_time_to_heal() -> None:
    first, healed = down(0), down(0, 1, seen=changed(10, parts=(part(0),)))
    assert course((SOUND, 1), (first, HEAL_S), (down(0, 1), 1), (healed, HEAL_S)) == []
    assert course((SOUND, 1), (first, HEAL_S), (down(0, 1), 1), (healed, HEAL_S + 1)) != []


def test_the_end_leaves_nothing() -> None:
    assert list(leftovers(replace(SOUND, leftovers=("n3 1 runs",)))) == ["n3 1 runs"]
