"""Which of two processes that speak as one node stops: examples, then two of them that hear one another somehow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from lockbox_node.core.member_events import Refute, Yield
from lockbox_node.core.twins import Twins, life_of
from tests.fakes.swarm import node_id, record_of

if TYPE_CHECKING:
    from protocol.records import NodeRecord

LOW, HIGH = bytes(16), b"\xff" * 16


def life(epoch: int, sequence: int, instance: bytes = LOW) -> NodeRecord:
    """A record of our node."""
    return structs.replace(record_of(node_id(1), sequence), epoch=epoch, instance=instance)


def test_the_life_is_the_epoch_first_and_the_instance_then() -> None:
    lives = [life(1, 9, HIGH), life(2, 1, LOW), life(2, 1, HIGH), life(3, 0, LOW)]
    assert sorted(lives, key=life_of) == lives


def test_an_earlier_life_never_stops_us_however_often_it_is_heard() -> None:
    twins = Twins()
    own = life(6, 100)
    assert twins.judge(own, life(5, 99, HIGH), in_person=False) is None
    for sequence in (100, 200, 300, 400):
        assert twins.judge(own, life(5, sequence, HIGH), in_person=False) == Refute(sequence + 1)
        own = life(6, sequence + 1)
    assert twins.judge(own, life(5, 10, HIGH), in_person=True) is None
    assert twins.judge(own, life(5, 1000, HIGH), in_person=True) == Refute(1001)


def test_a_later_life_that_has_ended_does_not_stop_us() -> None:
    twins = Twins()
    assert twins.judge(life(5, 100), life(6, 99), in_person=False) is None
    assert twins.judge(life(5, 100), life(6, 500), in_person=False) == Refute(501)
    assert twins.judge(life(5, 100), life(6, 500), in_person=False) == Refute(501)  # before ours was signed
    assert twins.judge(life(5, 501), life(6, 500), in_person=False) is None
    assert twins.judge(life(5, 501), life(6, 501), in_person=False) == Refute(502)  # signed at the same moment


def test_a_later_life_that_answers_us_stops_us() -> None:
    twins = Twins()
    assert twins.judge(life(5, 100), life(6, 500), in_person=False) == Refute(501)
    assert twins.judge(life(5, 501), life(6, 502), in_person=False) == Yield(6)


def test_a_later_life_that_is_met_in_person_stops_us_at_once() -> None:
    assert Twins().judge(life(5, 100), life(6, 1), in_person=True) == Yield(6)
    assert Twins().judge(life(5, 100), life(5, 1, HIGH), in_person=True) == Yield(5)
    assert Twins().judge(life(5, 100, HIGH), life(5, 1), in_person=True) is None


def test_our_own_record_is_no_twin() -> None:
    own = life(5, 100)
    assert Twins().judge(own, own, in_person=False) is None
    assert Twins().judge(own, own, in_person=True) is None
    assert Twins().judge(own, life(5, 101), in_person=False) == Refute(102)  # should it ever be


@dataclass
class Process:
    """One of the two; its clock is anything."""

    own: NodeRecord
    twins: Twins = field(default_factory=Twins)
    running: bool = True

    def sign(self, sequence_min: int, now: int) -> None:
        self.own = structs.replace(self.own, sequence=max(now, self.own.sequence + 1, sequence_min))

    def hear(self, met: NodeRecord, now: int) -> None:
        match self.twins.judge(self.own, met, in_person=False):
            case Refute(incarnation_min):
                self.sign(incarnation_min, now)
            case Yield():
                self.running = False


@given(
    st.integers(0, 1000), st.integers(0, 1000), st.sampled_from([(5, 6), (5, 5)]), st.lists(st.booleans(), max_size=20)
)
def test_of_two_that_run_the_later_goes_on_whatever_their_clocks_say(
    low_clock: int, high_clock: int, epochs: tuple[int, int], order: list[bool]
) -> None:
    low, high = Process(life(epochs[0], low_clock)), Process(life(epochs[1], high_clock, HIGH))
    board = max(low.own, high.own, key=lambda record: record.sequence)  # what the others keep
    for low_first in [*order, True, False, True, False, True, False]:
        hearer, clock = (low, low_clock) if low_first else (high, high_clock)
        if hearer.running:
            hearer.hear(board, clock)
            board = max(board, hearer.own, key=lambda record: record.sequence)
    assert high.running
    assert not low.running
    assert board.instance == HIGH


@given(st.integers(0, 1000), st.integers(0, 1000), st.booleans())
def test_who_is_alone_goes_on_over_the_records_of_other_lives(own_clock: int, left_over: int, later: bool) -> None:
    alone = Process(life(5, own_clock))
    board = life(6 if later else 4, left_over, HIGH)
    for _ in range(5):
        alone.hear(board, own_clock)
        board = max(board, alone.own, key=lambda record: record.sequence)
    assert alone.running
    assert board == alone.own
