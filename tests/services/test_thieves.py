"""Who has a good certificate and knows everything of an address but the asset key tries every request: no shard comes.

A node that a holder's own table names needs no key: that is how shards are rebuilt. Here it is not named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from lockbox_node.errors import LockboxError
from protocol.certificates import Role
from protocol.errors import RemoteProtocolError
from protocol.messages import (
    NUMBERS,
    Delete,
    FindHolders,
    GetShards,
    GetSlot,
    HolderEntry,
    HolderTable,
    Message,
    Proof,
    Prove,
    Renew,
    Shards,
    Signed,
    Slots,
    TellHolders,
)
from tests.fakes.granting import grants, wish
from tests.fakes.holder_bench import CLIENT, GUEST, STRANGER, Bench, get_of, peer_of, put_of
from tests.fakes.stripes import AssetSigner, Stripe, bytes_of, make_stripe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lockbox_node.rpc.hello import Peer

OWNER = peer_of(Role.CLIENT, bytes_of("the owner"))
THIEVES = pytest.mark.parametrize("thief", [CLIENT, GUEST, STRANGER], ids=["client", "guest", "node"])


def tries(stripe: Stripe, thief: Peer) -> Iterator[Message]:
    """All that it can make, overhear from the owner, or have signed for an address of its own."""
    address, descriptor = stripe.signer.address, stripe.parts[0].descriptor_hash
    own = AssetSigner("the thief's own")
    overheard = get_of(stripe, OWNER)
    assert overheard.access is not None
    own_wish = wish(own, thief.id)
    mixed = Signed(overheard.access.body, own_wish.signature)
    for access in (None, overheard.access, own_wish, mixed):
        for granted in ([], overheard.grants, grants(own_wish)):
            yield GetShards(address, descriptor, access, granted)
    for kind in (Prove, GetSlot, GetShards):
        number = NUMBERS[kind]
        for claim in (None, stripe.signer.access(number, OWNER.id), own.access(number, thief.id)):
            yield Prove(address, descriptor, bytes(32), claim)
            yield GetSlot(address, claim)
            yield GetShards(address, descriptor, claim, overheard.grants)
    yield Delete(own.tombstone(9))
    yield Renew(own.renewal(1, descriptor, stripe.parts[0].lease_until_unix_s + 1))
    yield FindHolders(address)


def outcome(bench: Bench, request: Message, peer: Peer) -> Message | None:
    """The reply; None when it was refused."""
    try:
        return bench.ask(request, peer)
    except (LockboxError, RemoteProtocolError):
        return None


@THIEVES
def test_no_request_gives_a_shard_or_a_descriptor_to_who_lacks_the_asset_key(thief: Peer) -> None:
    bench, stripe = Bench(), make_stripe(1)
    bench.ask(put_of(stripe))
    for request in tries(stripe, thief):
        reply = outcome(bench, request, thief)
        assert not isinstance(reply, Shards | Proof | Slots), request
    assert isinstance(bench.ask(get_of(stripe)), Shards), "nothing of it hurt the owner"


@pytest.mark.parametrize("thief", [CLIENT, GUEST], ids=["client", "guest"])
def test_nobody_but_a_node_tells_who_holds_without_the_asset_keys_claim(thief: Peer) -> None:
    bench, stripe = Bench(), make_stripe(1)
    bench.ask(put_of(stripe))
    own = AssetSigner("the thief's own")
    entry = HolderEntry(9, thief.id, 99)
    table = HolderTable(stripe.signer.address, 1, stripe.parts[0].descriptor_hash, [entry])
    for claim in (None, own.access(NUMBERS[TellHolders], thief.id)):
        assert outcome(bench, TellHolders([table], claim), thief) is None
    assert outcome(bench, msgspec.structs.replace(get_of(stripe), access=None), thief) is None
