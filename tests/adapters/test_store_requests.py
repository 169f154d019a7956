"""What waits is weighed with what it carries."""

from __future__ import annotations

from lockbox_node.adapters.store_requests import Bury, Merge, Put
from lockbox_node.adapters.store_rows import logical_bytes
from tests.fakes.stripes import OWNER, make_stripe


def test_what_waits_is_weighed_with_its_payload() -> None:
    stripe = make_stripe(1)
    put = Put(stripe.parts[0], (), OWNER)
    assert put.payload_bytes == logical_bytes(stripe.parts[0])
    assert put.weight > put.payload_bytes
    assert Merge((stripe.table,), (stripe.table,)).weight > 2 * 10 * 32
    tombstone = stripe.signer.tombstone(1)
    assert Bury(tombstone, stripe.signer.address, 1, 0).weight > len(tombstone.body)
