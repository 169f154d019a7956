"""What a node has measured of others, signed: a vantage report, and how reports are exchanged.

One report a judge: its newest takes the place of all before it, so that a judge can say no more than fits in one. It
names only round trips that prove or refute something. The leaf of its chain signs it, as a node record is signed.
Source: SPEC.md, Vantage reports.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from protocol.fields import U63, Chain, Id32, Message, ShortText, Signed

PINGS_MIN = 20  # behind every round trip that is told
ROUND_TRIPS_MAX = 128  # in one report
VANTAGES_KNOWN_MAX = 1024  # reports named in one request
VANTAGES_MAX = 64  # in one message: some kB each, at most 33 kB


class RoundTrip(Message, frozen=True):
    """The shortest of `samples` round trips to `subject`, which said then that it stands in `region`."""

    subject: Id32
    region: ShortText
    rtt_us: Annotated[int, Meta(ge=1, le=2**32 - 1)]
    samples: Annotated[int, Meta(ge=PINGS_MIN, le=255)]
    measured_unix_s: U63


class Vantage(Message, frozen=True):
    """What `judge`, which says that it stands in `region`, has seen of others; by rising subject. The later counts."""

    judge: Id32
    region: ShortText
    signed_unix_s: U63
    round_trips: Annotated[list[RoundTrip], Meta(max_length=ROUND_TRIPS_MAX)]
    chain: Chain


class KnownVantage(Message, frozen=True):
    """Which report of a judge somebody has."""

    judge: Id32
    signed_unix_s: U63


class CompareVantages(Message, frozen=True):
    """Whatever reports are newer than what the asker has. Clients send `known` empty and page with `after`."""

    known: Annotated[list[KnownVantage], Meta(max_length=VANTAGES_KNOWN_MAX)]
    after: Annotated[bytes, Meta(max_length=32)] = b""


class Vantages(Message, frozen=True):
    """Newer reports, the judges whose report the asked node lacks or has older, and whether more follows."""

    vantages: Annotated[list[Signed], Meta(max_length=VANTAGES_MAX)]
    wanted: Annotated[list[Id32], Meta(max_length=VANTAGES_MAX)]
    more: bool


class TellVantages(Message, frozen=True):
    """Reports for whoever lacks them."""

    vantages: Annotated[list[Signed], Meta(min_length=1, max_length=VANTAGES_MAX)]
