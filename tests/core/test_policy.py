"""What a policy sets, what it cannot, and that a wrong word changes nothing."""

from __future__ import annotations

import pytest

from lockbox_node.core.policy import IDS_MAX, Governed
from lockbox_node.core.tiers import BASIC, ELITE, STANDARD, TIERS
from lockbox_node.errors import ConfigError, LockboxError
from protocol.errors import ErrorCode


def test_every_known_setting_takes_effect() -> None:
    governed, ignored = Governed().under_all([("guard", "0"), ("healing", "off"), ("hold-off", "1.5"), ("sweep", "2")])
    repair = governed.repair
    assert (repair.enabled, repair.hold_off_s, repair.sweep_s, governed.guard.quiet_s) == (False, 1.5, 2.0, 0.0)
    assert ignored == []
    assert governed.under("healing", "on").repair.enabled
    assert governed.under("returning", "30").repair.return_hold_s == 30
    assert governed.under("audit", "60").audit.period_s == 60.0
    assert not governed.measured
    assert governed.under("location", "measured").measured
    assert not governed.under("location", "measured").under("location", "claimed").measured


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("healing", "maybe"),
        ("location", "true"),
        ("sweep", "soon"),
        ("sweep", "nan"),
        ("sweep", "-1"),
        ("guard", "inf"),
        ("returning", "-1"),
        ("audit", "0.5"),
        ("audit", "nan"),
        ("colour", "red"),
        ("tiers", ""),
        ("tiers", "basic,golden"),
        ("tiers", "basic,"),
        ("client-quota", "many"),
        ("client-quota", "1000000000000001"),
        ("client-requests", "0"),
        ("client-requests", "1.5"),
        ("client-bytes", "1023"),
        ("client-bytes", "-1"),
        ("ids-per-operator", "0"),
        ("ids-per-operator", "20001"),
        ("ids-per-operator", "٣"),
        ("ids-per-operator", "-1"),
    ],
)
def test_what_cannot_be_is_an_error_for_who_signs_and_ignored_by_who_obeys(key: str, value: str) -> None:
    with pytest.raises(ConfigError):
        Governed().under(key, value)
    governed, ignored = Governed().under_all([(key, value), ("hold-off", "7")])
    assert governed == Governed().under("hold-off", "7")
    assert ignored == [key]


def test_a_tier_that_is_not_on_offer_is_refused_with_those_that_are() -> None:
    silent, governed = Governed(), Governed().under("tiers", "standard, basic,basic")
    for tier in TIERS:
        silent.check_offer(tier)
    assert governed.tiers == (BASIC, STANDARD)
    governed.check_offer(STANDARD)
    with pytest.raises(LockboxError, match="elite is not on offer in this network") as caught:
        governed.check_offer(ELITE)
    assert (caught.value.code, caught.value.hint) == (ErrorCode.TIER_VIOLATION, "choose one of basic, standard")


def test_the_quota_is_as_configured_until_a_policy_says_it() -> None:
    assert Governed().client_quota_bytes is None
    assert Governed().under("client-quota", "0").client_quota_bytes == 0


def test_ids_per_operator_are_as_many_as_there_can_be_members_until_a_policy_limits_them() -> None:
    assert Governed().ids_per_operator_max == IDS_MAX
    assert Governed().under("ids-per-operator", "3").ids_per_operator_max == 3
