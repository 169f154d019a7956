"""The wallet's list of assets: what stands in it once, and what a name means in it.

An asset is told by its address and the hash of its root descriptor. Two at one address and of one version are
siblings: locked under one index by copies of one wallet that could not hear of each other. Their ids are longer, and
stay so. Source: DESIGN, Addresses and neighbourhoods.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from lockbox_node.errors import AssetNotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lockbox_node.client.wallet import AssetEntry


def order_of(asset: AssetEntry) -> tuple[int, bytes, int, bytes]:
    """Sort by this: by index, of siblings the older first."""
    return (asset.index, asset.address, asset.created_unix_s, asset.descriptor_hash)


def merged(known: Iterable[AssetEntry], added: Sequence[AssetEntry]) -> list[AssetEntry]:
    """The list with `added`: each replaces what is known of it and of its other versions. Siblings stay."""
    versions: dict[bytes, set[int]] = {}
    for asset in added:
        versions.setdefault(asset.address, set()).add(asset.version)
    assets = {
        (asset.address, asset.descriptor_hash): asset
        for asset in known
        if asset.version in versions.get(asset.address, (asset.version,))
    }
    long = {key for key, asset in assets.items() if asset.sibling}
    assets |= {(asset.address, asset.descriptor_hash): asset for asset in added}
    at = Counter(address for address, _ in assets)
    return [
        msgspec.structs.replace(asset, sibling=True) if at[key[0]] > 1 or key in long else asset
        for key, asset in assets.items()
    ]


def named(assets: Iterable[AssetEntry], name: str) -> AssetEntry:
    """The asset of this id, else of this label, else of an id that begins so.

    AssetNotFound when there is none; UsageError when there are several.
    """
    assets, label = list(assets), name.strip()
    wanted = label.lower()
    rules = (
        [asset for asset in assets if wanted in (asset.asset_id, asset.sibling_id)],
        [asset for asset in assets if asset.label == label != ""],
        [asset for asset in assets if asset.sibling_id.startswith(wanted) and wanted],
    )
    for found in rules:
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(
                f"that names {len(found)} assets of this wallet", "give more of the id: `lockbox list` shows it"
            )
    raise AssetNotFound(
        "no asset by that name in this wallet", "`lockbox list` shows them; `lockbox recover` looks in the network"
    )
