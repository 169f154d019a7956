"""What a policy sets, what it cannot, and that a wrong word changes nothing."""

from __future__ import annotations

import pytest

from lockbox_node.core.policy import Governed
from lockbox_node.errors import ConfigError


def test_every_known_setting_takes_effect() -> None:
    governed, ignored = Governed().under_all([("guard", "0"), ("healing", "off"), ("hold-off", "1.5"), ("sweep", "2")])
    repair = governed.repair
    assert (repair.enabled, repair.hold_off_s, repair.sweep_s, governed.guard.quiet_s) == (False, 1.5, 2.0, 0.0)
    assert ignored == []
    assert governed.under("healing", "on").repair.enabled


@pytest.mark.parametrize(
    ("key", "value"),
    [("healing", "maybe"), ("sweep", "soon"), ("sweep", "nan"), ("sweep", "-1"), ("guard", "inf"), ("colour", "red")],
)
def test_what_cannot_be_is_an_error_for_who_signs_and_ignored_by_who_obeys(key: str, value: str) -> None:
    with pytest.raises(ConfigError):
        Governed().under(key, value)
    governed, ignored = Governed().under_all([(key, value), ("hold-off", "7")])
    assert governed == Governed().under("hold-off", "7")
    assert ignored == [key]
