"""What the state root stands for: equal views have one, and anything that members should agree on changes it."""

from __future__ import annotations

import pytest
from msgspec import structs

from lockbox_node.core.state_root import state_root
from protocol.messages import DocumentVersion
from tests.fakes.swarm import node_id, record_of

RECORDS = [record_of(node_id(number), 1) for number in (1, 2, 3)]
PAPERS = [DocumentVersion(kind, 1, bytes(32)) for kind in (1, 2)]
ROOT = state_root(RECORDS, PAPERS)


def test_the_order_in_which_a_node_knows_things_does_not_matter() -> None:
    assert state_root(reversed(RECORDS), reversed(PAPERS)) == ROOT
    assert len(ROOT) == 32


def test_who_is_missing_and_who_is_new_changes_it() -> None:
    assert len({ROOT, state_root(RECORDS[:2], PAPERS), state_root(RECORDS, []), state_root([], [])}) == 4


@pytest.mark.parametrize(
    "said",
    [
        {"epoch": 7},
        {"instance": b"\xff" * 16},
        {"state": 2},
        {"addresses": ["192.0.2.9:1"]},
        {"region": "elsewhere"},
        {"operator": "another"},
        {"capacity_class": 9},
        {"software": b"\xff" * 32},
    ],
    ids=lambda said: next(iter(said)),
)
def test_each_thing_that_a_member_says_of_itself_changes_it(said: dict[str, object]) -> None:
    assert state_root([*RECORDS[:2], structs.replace(RECORDS[2], **said)], PAPERS) != ROOT


@pytest.mark.parametrize("paper", [DocumentVersion(2, 2, bytes(32)), DocumentVersion(2, 1, b"\xff" * 32)])
def test_another_document_of_a_kind_changes_it(paper: DocumentVersion) -> None:
    assert state_root(RECORDS, [PAPERS[0], paper]) != ROOT


@pytest.mark.parametrize("said", [{"sequence": 9}, {"expires_unix_s": 9}, {"free_class": 3}], ids=str)
def test_what_changes_by_itself_does_not(said: dict[str, object]) -> None:
    assert state_root([*RECORDS[:2], structs.replace(RECORDS[2], **said)], PAPERS) == ROOT
