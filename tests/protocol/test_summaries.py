"""Summaries of members: equal views have equal ones, any change shows in its group, another length is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import RemoteProtocolError
from protocol.messages import MemberState
from protocol.summaries import DIGEST_BYTES, KEY_BYTES, MEMBER_GROUPS, SUMMARY_BYTES, differing, summary

KEY = bytes(range(KEY_BYTES))
states = st.builds(MemberState, st.binary(min_size=32, max_size=32), st.integers(0, 2**63 - 1), st.integers(0, 1))
views = st.lists(states, max_size=40, unique_by=lambda state: state.node).map(
    lambda found: sorted(found, key=lambda state: state.node)
)


@given(views)
def test_the_same_view_differs_nowhere(view: list[MemberState]) -> None:
    made = summary(view, KEY)
    assert len(made) == SUMMARY_BYTES == KEY_BYTES + MEMBER_GROUPS * DIGEST_BYTES
    assert differing(made, view) == b""


@given(views, views)
def test_exactly_the_groups_differ_whose_members_do(one: list[MemberState], other: list[MemberState]) -> None:
    def of(view: list[MemberState], group: int) -> list[MemberState]:
        return [state for state in view if state.node[0] == group]

    wanted = [group for group in range(MEMBER_GROUPS) if of(one, group) != of(other, group)]
    assert list(differing(summary(one, KEY), other)) == wanted


@given(views.filter(bool), st.data())
def test_status_and_incarnation_count(view: list[MemberState], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(view) - 1))
    node, incarnation, status = view[at].node, view[at].incarnation, view[at].status
    for changed in (MemberState(node, incarnation ^ 1, status), MemberState(node, incarnation, 1 - status)):
        assert list(differing(summary(view, KEY), [*view[:at], changed, *view[at + 1 :]])) == [node[0]]


def test_another_key_makes_another_summary_of_the_same_view() -> None:
    view = [MemberState(bytes(32), 1, 0)]
    assert summary(view, KEY)[KEY_BYTES:] != summary(view, bytes(KEY_BYTES))[KEY_BYTES:]


@pytest.mark.parametrize("length", [0, 1, SUMMARY_BYTES - 1, SUMMARY_BYTES + 1])
def test_a_summary_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(RemoteProtocolError, match="2064 bytes"):
        differing(bytes(length), [])
