"""Log lines that name an asset or a client are known by the field or by the digits; all others say nothing."""

from __future__ import annotations

from simulations.overhearing import Overheard, name_of
from tests.fakes.stripes import bytes_of

SECRET = bytes_of("address")


def test_a_line_about_nodes_and_counts_says_nothing() -> None:
    heard = Overheard()
    heard.hear({"event": "repair.done", "node": bytes_of("node")[:4].hex(), "rebuilt_bytes": 7})
    assert heard.leaks({name_of(SECRET)}) == ()


def test_a_field_that_tells_is_a_leak_whatever_it_holds() -> None:
    heard = Overheard()
    heard.hear({"event": "put", "address": "somewhere"})
    heard.hear({"event": "put", "address": "elsewhere"})
    heard.hear({"event": "got", "what": b"raw"})
    assert heard.leaks(set()) == ("the log line put carries address", "the log line got carries what")


def test_the_digits_of_an_asset_are_a_leak_in_any_text() -> None:
    heard = Overheard()
    heard.hear({"event": "put.failed", "reason": f"nothing at {SECRET.hex().upper()}"})
    heard.hear({"event": "found", "part": SECRET.hex()[:10]})
    assert heard.leaks({name_of(SECRET)}) == ("the log line put.failed names an asset or a client",)
    assert heard.leaks({name_of(bytes_of("another"))}) == ()
