"""Parameters of membership: what follows from them, and which cannot work."""

from __future__ import annotations

import math

import pytest

from lockbox_node.core.member_params import MembershipParams
from lockbox_node.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("neighbours", 0),
        ("members_max", 0),
        ("probe_interval_s", 0),
        ("stall_s", math.inf),
        ("dead_kept_s", -1),
        ("probe_relays", -1),
        ("health_max", -1),
        ("probe_timeout_max_s", 0.1),
        ("probe_timeout_max_s", math.inf),
    ],
)
def test_params_that_cannot_work_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        MembershipParams(**{name: value})  # type: ignore[arg-type]


def test_suspicion_lasts_longer_in_a_large_network() -> None:
    params = MembershipParams()
    assert params.suspicion_s(3) == 5.0
    assert params.suspicion_s(9999) == pytest.approx(16.0)
    assert params.transmissions(0) == 1
