"""A deletion that has begun, as the wallet remembers it until every holder has confirmed.

Once tombstones stand nothing can be read any more, neither the manifest that leads to the data stripes nor the tables
that name the holders: so both are written down before the first tombstone goes out, and an interrupted or incomplete
deletion can be taken up again. SPEC.md, Wallet.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from protocol.messages import SIBLINGS_MAX, U32, U63, Id32, Message

HOLDERS_MAX = 20_000  # as many as there can be members


class BuriedSibling(Message, frozen=True):
    """A sibling that goes with it, as all at one address do: what leads to its data stripes."""

    asset_salt: Id32
    stripes: U32


class Burial(Message, frozen=True):
    """What is needed to go on deleting the asset at `address`."""

    address: Id32
    asset_salt: Id32
    stripes: U32
    version: U63
    lease_until_unix_s: U63  # the longest that was signed: afterwards nobody keeps anything of it
    holders: Annotated[list[Id32], Meta(max_length=HOLDERS_MAX)]  # that have not confirmed yet
    siblings: Annotated[tuple[BuriedSibling, ...], Meta(max_length=SIBLINGS_MAX)] = ()

    @property
    def stripes_in_all(self) -> int:
        """Its own and the data stripes of its siblings; the root's address is one."""
        return self.stripes + sum(sibling.stripes - 1 for sibling in self.siblings)
