"""Vantage reports: one judge, one signature, an order, limits; and nothing else passes."""

from __future__ import annotations

import pytest
from msgspec import structs

from protocol.certificates import CLOCKS_APART_S, Role, verify_vantage
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.messages import Signed
from protocol.records import sign
from protocol.vantage import PINGS_MIN, ROUND_TRIPS_MAX, RoundTrip
from tests.protocol import samples

NETWORK = samples.network()


def round_trips(count: int) -> list[RoundTrip]:
    return [RoundTrip(number.to_bytes(32, "big"), "eu-west-1", 900, 20, 1) for number in range(count)]


def refused(signed: Signed) -> None:
    with pytest.raises(RemoteProtocolError):
        verify_vantage(NETWORK, signed)


def test_a_report_holds_as_it_was_signed() -> None:
    assert verify_vantage(NETWORK, samples.signed_vantage()) == samples.vantage()
    many = samples.vantage(round_trips=round_trips(ROUND_TRIPS_MAX))
    assert verify_vantage(NETWORK, sign(many, samples.ed("node leaf"))) == many


@pytest.mark.parametrize(
    "changes",
    [
        {"judge": bytes(32)},
        {"chain": [samples.node_chain()[0]]},
        {"chain": [samples.role_leaf(Role.CLIENT)]},
        {"round_trips": round_trips(3)[::-1]},
        {"round_trips": [round_trips(1)[0]] * 2},
        {"round_trips": [structs.replace(round_trips(1)[0], subject=samples.vantage().judge)]},
        {"signed_unix_s": samples.TERMS.not_before_unix_s - CLOCKS_APART_S - 1},
        {"signed_unix_s": samples.TERMS.not_after_unix_s + 1},
    ],
)
def test_a_report_of_somebody_else_or_out_of_order_or_time_is_refused(changes: dict[str, object]) -> None:
    refused(sign(samples.vantage(**changes), samples.ed("node leaf")))


def test_a_report_that_its_leaf_did_not_sign_is_refused() -> None:
    refused(sign(samples.vantage(), samples.ed("other leaf")))
    signed = samples.signed_vantage()
    refused(Signed(signed.body.replace(b"ap-southeast-2", b"ap-southeast-1"), signed.signature))


def test_what_is_above_its_limits_cannot_be_signed() -> None:
    few = structs.replace(round_trips(1)[0], samples=PINGS_MIN - 1)
    none = structs.replace(round_trips(1)[0], rtt_us=0)
    for wrong in ([few], [none], round_trips(ROUND_TRIPS_MAX + 1)):
        with pytest.raises(LocalProtocolError):
            sign(samples.vantage(round_trips=wrong), samples.ed("node leaf"))
