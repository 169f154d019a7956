"""The journal in memory behaves as the one on disk: whole over a restart, short and known to be so over a power cut."""

from __future__ import annotations

from simulations.journal import LOST_AT_MOST, MemoryJournal


def test_the_next_life_reads_what_was_appended() -> None:
    host = MemoryJournal()
    first = host.start()
    first.append(b"one")
    second = host.start()
    assert second.whole
    assert second.kept() == [b"one"]


def test_a_power_cut_takes_the_end_and_the_next_life_knows_it_once() -> None:
    host = MemoryJournal()
    first = host.start()
    for number in range(LOST_AT_MOST + 5):
        first.append(bytes([number]))
    host.lose_power()
    second = host.start()
    assert not second.whole
    assert len(second.kept()) == 5
    assert host.start().whole
