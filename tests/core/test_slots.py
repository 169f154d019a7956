"""Rulings on puts, and the merge of holder tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockbox_node.core.slots import (
    Ruling,
    Standing,
    Verdict,
    corrupt_part,
    judge_put,
    merge_entries,
    refusal_of,
    store_full,
)
from protocol.errors import ErrorCode
from protocol.messages import ENTRIES_MAX, SEQUENCE_MAX, SIBLINGS_MAX, HolderEntry, Signed

A, B, C = (bytes([n]) * 32 for n in range(3))


def standing(version: int, descriptor_hash: bytes, index: int = 0, *, corrupt: bool = False) -> Standing:
    return Standing(version, descriptor_hash, index, corrupt)


def test_the_first_put_at_an_address_is_new() -> None:
    assert judge_put([], None, 1, A, 0, []) == Ruling(Verdict.NEW)


def test_an_equal_part_is_held_already() -> None:
    ruling = judge_put([standing(1, A, 3)], None, 1, A, 3, [])
    assert ruling.verdict is Verdict.HELD
    assert not ruling.writes


def test_another_index_of_a_held_identity_is_a_conflict_with_that_slot_as_proof() -> None:
    assert judge_put([standing(1, A, 3)], None, 1, A, 4, []) == Ruling(Verdict.OTHER_INDEX, proof=A)


@pytest.mark.parametrize("index", [3, 4])
def test_a_corrupt_part_is_mended_in_place_whatever_its_index(index: int) -> None:
    ruling = judge_put([standing(1, A, 3, corrupt=True)], None, 1, A, index, [])
    assert ruling == Ruling(Verdict.MEND, (A,))
    assert ruling.writes


def test_a_tombstone_buries_every_version_up_to_its_own() -> None:
    assert judge_put([], 2, 2, A, 0, []).verdict is Verdict.BURIED
    assert judge_put([], 2, 1, A, 0, []).verdict is Verdict.BURIED
    assert judge_put([], 2, 3, A, 0, []).verdict is Verdict.NEW


def test_a_tombstone_buries_even_what_is_held() -> None:
    assert judge_put([standing(1, A, corrupt=True)], 1, 1, A, 0, []).verdict is Verdict.BURIED


def test_an_older_version_is_stale_and_the_highest_standing_one_proves_it() -> None:
    assert judge_put([standing(2, B), standing(3, C)], None, 1, A, 0, []) == Ruling(Verdict.STALE, proof=C)


def test_an_older_version_cannot_replace_a_newer_one() -> None:
    assert judge_put([standing(2, B)], None, 1, A, 0, [B]).verdict is Verdict.STALE


def test_siblings_of_one_version_are_both_kept() -> None:
    assert judge_put([standing(1, B)], None, 1, A, 0, [B]) == Ruling(Verdict.NEW)


def test_only_named_lower_versions_are_removed() -> None:
    assert judge_put([standing(1, B), standing(1, C)], None, 2, A, 0, [B]) == Ruling(Verdict.NEW, (B,))


def test_no_more_identities_than_the_limit_stand_at_one_address() -> None:
    crowd = [standing(1, bytes([n]) * 32) for n in range(1, SIBLINGS_MAX + 1)]
    assert judge_put(crowd, None, 2, A, 0, []).verdict is Verdict.CROWDED
    assert judge_put(crowd, None, 2, A, 0, [crowd[0].descriptor_hash]).verdict is Verdict.NEW


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (Verdict.BURIED, ErrorCode.STALE),
        (Verdict.STALE, ErrorCode.STALE),
        (Verdict.OTHER_INDEX, ErrorCode.CONFLICT),
        (Verdict.CROWDED, ErrorCode.CONFLICT),
    ],
)
def test_a_refusal_carries_its_code_and_its_proof(verdict: Verdict, code: ErrorCode) -> None:
    proof = Signed(b"body", bytes(64))
    refusal = refusal_of(Ruling(verdict), proof)
    assert (refusal.code, refusal.proof) == (code, proof)
    assert not refusal.retryable


def test_errors_of_a_store_say_what_to_do() -> None:
    assert store_full().hint
    assert corrupt_part().hint


entry = st.builds(HolderEntry, st.integers(0, 3), st.sampled_from([A, B, C]), st.integers(0, 5))
tables = st.lists(entry, max_size=12)


@given(tables, tables, tables)
def test_merging_is_commutative_associative_and_idempotent(
    a: list[HolderEntry], b: list[HolderEntry], c: list[HolderEntry]
) -> None:
    assert merge_entries(a, b) == merge_entries(b, a)
    assert merge_entries(merge_entries(a, b), c) == merge_entries(a, merge_entries(b, c)) == merge_entries(a, b, c)
    assert merge_entries(merge_entries(a), a) == merge_entries(a)


@given(tables)
def test_the_higher_sequence_wins_per_index_and_node(table: list[HolderEntry]) -> None:
    merged = merge_entries(table)
    assert {(e.index, e.node) for e in merged} == {(e.index, e.node) for e in table}
    for line in merged:
        assert line.sequence == max(e.sequence for e in table if (e.index, e.node) == (line.index, line.node))


def test_lines_that_come_later_never_drive_out_those_that_stand() -> None:
    standing_lines = [HolderEntry(n, n.to_bytes(32, "big"), 1) for n in range(12)]
    flood = [HolderEntry(n % 12, (1000 + n).to_bytes(32, "big"), SEQUENCE_MAX) for n in range(ENTRIES_MAX)]
    merged = merge_entries(standing_lines, flood)
    assert len(merged) == ENTRIES_MAX
    assert set(standing_lines) <= set(merged)
