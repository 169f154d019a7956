"""What `lockbox` prints: results as the JSON objects of CONTRACT, and as words."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockbox_node.cli.output import counted, error_fields
from lockbox_node.core.tiers import TIERS
from lockbox_node.errors import LockboxError, UsageError

if TYPE_CHECKING:
    from collections.abc import Container

    from lockbox_node.client.ending import DeleteResult
    from lockbox_node.client.leases import RenewAllResult, RenewResult, SlotRenewal
    from lockbox_node.client.lock import LockResult
    from lockbox_node.client.margins import Margin
    from lockbox_node.client.recover import RecoverResult
    from lockbox_node.client.unlock import UnlockResult
    from lockbox_node.client.verify import VerifyResult
    from lockbox_node.client.wallet import AssetEntry

DAY_S = 86_400
UNITS_S = {"d": DAY_S, "w": 7 * DAY_S, "y": 365 * DAY_S}


def lease_seconds(text: str | None) -> int | None:
    """ "365d", "2w" or "1y" in seconds; None for the tier's default. UsageError."""
    if text is None:
        return None
    number, unit = text[:-1], text[-1:].lower()
    if not (number.isascii() and number.isdecimal() and unit in UNITS_S and len(number) <= 6):
        raise UsageError(f"{text!r} is not a lease", "give days, weeks or years, for example 30d, 4w, 1y")
    return int(number) * UNITS_S[unit]


def tier_name(asset: AssetEntry) -> str:
    """The name of an asset's tier."""
    return TIERS[asset.tier].name


def day(unix_s: int) -> str:
    """A date, UTC."""
    return datetime.datetime.fromtimestamp(unix_s, datetime.UTC).date().isoformat()


def label_of(path: Path) -> str:
    """The label of a file that is given none: its name, without what no label may hold."""
    from lockbox_node.core.manifest import LABEL_BYTES_MAX  # pulls in cryptography, which `--help` does without

    name = "".join(letter for letter in path.name if letter.isprintable())
    return name.encode()[:LABEL_BYTES_MAX].decode(errors="ignore")


def file_name(asset: AssetEntry) -> str:
    """Where an asset goes when nothing else is said: its label without any directory, else its id."""
    name = Path(asset.label).name
    return name if name not in ("", ".", "..") else f"{asset.asset_id}.bin"


def asset_payload(asset: AssetEntry) -> dict[str, Any]:
    """One asset of `list`, `show` and `recover`."""
    return {
        "asset": asset.asset_id,
        "address": asset.address.hex(),
        "label": asset.label,
        "tier": tier_name(asset),
        "size": asset.size,
        "locked": day(asset.created_unix_s),
        "lease_until": day(asset.lease_until_unix_s),
        "version": asset.version,
    }


def lock_payload(locked: LockResult) -> dict[str, Any]:
    """`lock --json`."""
    return {
        "asset": locked.asset.asset_id,
        "address": locked.asset.address.hex(),
        "tier": tier_name(locked.asset),
        "size": locked.asset.size,
        "shards": {"placed": locked.placed, "wanted": locked.wanted},
        "decoys": locked.decoys,
        "regions": list(locked.regions),
        "margin": locked.margin.as_json(),
        "seconds": round(locked.seconds, 4),
    }


def _margin_words(margin: Margin) -> str:
    return f"{counted(margin.nodes, 'node')} or {counted(margin.regions, 'region')}"


def lock_words(locked: LockResult) -> str:
    """`lock`: the asset id first, for `cut`."""
    missing = locked.wanted - locked.placed
    regions = counted(len(locked.regions), "region")
    short = f", {counted(missing, 'holder')} missing" if missing else ""
    return (
        f"{locked.asset.asset_id}  {locked.placed} of {locked.wanted} parts in {regions}{short}; "
        f"{_margin_words(locked.margin)} may vanish; {locked.seconds:.2f} s"
    )


def unlock_payload(unlocked: UnlockResult) -> dict[str, Any]:
    """`unlock --json`. Grants are not asked yet: nobody verifies but the holders themselves."""
    shards = unlocked.shards
    return {
        "asset": unlocked.asset.asset_id,
        "address": unlocked.asset.address.hex(),
        "tier": unlocked.tier.name,
        "size": unlocked.manifest.size,
        "verifiers": asdict(unlocked.verifiers),
        "maybe_stale": unlocked.maybe_stale,
        "shards": {
            "fetched": shards.fetched,
            "needed": shards.needed,
            "corrupt": shards.corrupt,
            "missing": shards.missing,
        },
        "seconds": round(unlocked.seconds, 4),
    }


def unlock_words(unlocked: UnlockResult, place: Path) -> str:
    """`unlock`."""
    stale = "; too few holders answered to be sure that this is the newest version" if unlocked.maybe_stale else ""
    corrupt = (
        f"; {counted(unlocked.shards.corrupt, 'corrupt part')} met and replaced" if unlocked.shards.corrupt else ""
    )
    return f"{place}  {unlocked.manifest.size:,} bytes in {unlocked.seconds:.2f} s{corrupt}{stale}"


def verify_payload(verified: VerifyResult) -> dict[str, Any]:
    """`verify --json`. `quorum` is that of a certificate: 0 when none is asked for."""
    return {
        "asset": verified.asset.asset_id,
        "state": verified.state,
        "holders": [
            {
                "node": line.node.hex(),
                "region": line.region,
                "stripe": line.stripe,
                "index": line.index,
                "verdict": line.verdict.value,
            }
            for line in verified.holders
        ],
        "quorum": 0,
        "margin": verified.margin.as_json(),
    }


def verify_words(verified: VerifyResult) -> str:
    """`verify`."""
    lines = [f"{verified.asset.asset_id}  {verified.state}"]
    lines += [
        f"  stripe {line.stripe} index {line.index:>2}  {line.verdict.value:<8} {line.node.hex()[:8]}  {line.region}"
        for line in verified.holders
    ]
    lines.append(f"  {_margin_words(verified.margin)} may still vanish")
    return "\n".join(lines)


def renew_payload(renewed: RenewResult) -> dict[str, Any]:
    """`renew --json`, and one asset of `renew --all --json`. `renewed` is False where as long a lease stood."""
    return {
        "asset": renewed.asset.asset_id,
        "tier": tier_name(renewed.asset),
        "lease_until": day(renewed.lease_until_unix_s),
        "lease_until_unix_s": renewed.lease_until_unix_s,
        "renewed": renewed.lengthened,
        "stripes": renewed.stripes,
        "shards": {"renewed": renewed.renewed, "wanted": renewed.wanted},
        "seconds": round(renewed.seconds, 4),
    }


def renew_words(renewed: RenewResult) -> str:
    """`renew`: one line, the asset id first."""
    until = day(renewed.lease_until_unix_s)
    said = f"kept until {until}" if renewed.lengthened else f"kept until {until}, as before: a lease is never shortened"
    missing = renewed.wanted - renewed.renewed
    short = f"; {renewed.renewed} of {renewed.wanted} parts confirmed, {missing} missing" if missing else ""
    lost = f"; {renewed.lost} of {renewed.stripes} stripes have too few: verify it" if renewed.lost else ""
    return f"{renewed.asset.asset_id}  {said}{short}{lost}"


def renew_all_payload(done: RenewAllResult) -> dict[str, Any]:
    """`renew --all --json`. `mark` is the wallet's own stripe, null where nothing was ever locked."""
    return {
        "assets": [
            {"asset": asset.asset_id, "error": error_fields(outcome)}
            if isinstance(outcome, LockboxError)
            else renew_payload(outcome)
            for asset, outcome in done.assets
        ],
        "mark": _mark_payload(done.mark),
    }


def _mark_payload(mark: SlotRenewal | LockboxError | None) -> dict[str, Any] | None:
    if mark is None:
        return None
    if isinstance(mark, LockboxError):
        return {"error": error_fields(mark)}
    return {"lease_until": day(mark.lease_until_unix_s), "shards": {"renewed": mark.indices, "wanted": mark.n}}


def renew_all_words(done: RenewAllResult) -> str:
    """`renew --all`: a line for each asset, and one for the wallet's mark where it is not well."""
    lines = [
        f"{asset.asset_id}  not renewed: {outcome.message}" + (f"; {outcome.hint}" if outcome.hint else "")
        if isinstance(outcome, LockboxError)
        else renew_words(outcome)
        for asset, outcome in done.assets
    ]
    if isinstance(done.mark, LockboxError):
        lines.append(f"the wallet's mark is not renewed: {done.mark.message}")
    elif done.mark is not None and done.mark.indices < done.mark.n:
        lines.append(f"the wallet's mark: {done.mark.indices} of {done.mark.n} parts confirmed")
    return "\n".join(lines or ["there is nothing to renew"])


def delete_payload(deleted: DeleteResult) -> dict[str, Any]:
    """`delete --json`; with `error` beside it while holders are `missing`."""
    return {
        "asset": deleted.asset.asset_id,
        "state": "incomplete" if deleted.missing else "deleted",
        "stripes": deleted.stripes,
        "holders": {"confirmed": deleted.holders - len(deleted.missing), "named": deleted.holders},
        "missing": [node.hex() for node in deleted.missing],
        "siblings": [one.asset_id for one in deleted.siblings],
        "seconds": round(deleted.seconds, 4),
    }


def delete_words(deleted: DeleteResult) -> str:
    """`delete`, when every holder confirmed."""
    holders = counted(deleted.holders, "holder")
    also = "".join(f", and {one.asset_id} with it" for one in deleted.siblings)
    return f"{deleted.asset.asset_id}  deleted{also}; all of its {holders} confirmed; {deleted.seconds:.2f} s"


def recover_payload(recovered: RecoverResult) -> dict[str, Any]:
    """`recover --json`."""
    return {
        "assets": [asset_payload(asset) for asset in recovered.assets],
        "unknown": recovered.unknown,
        "deleted": recovered.deleted,
        "leftovers": recovered.leftovers,
        "scanned": recovered.scanned,
        "mark": recovered.mark if recovered.mark_known else None,
    }


def recover_words(recovered: RecoverResult, path: Path) -> str:
    """`recover`."""
    lines = [*table(recovered.assets), f"the wallet {path} holds {counted(len(recovered.assets), 'asset')}"]
    if recovered.leftovers:
        lines.append(f"passed over: the remains of {counted(recovered.leftovers, 'interrupted lock')}")
    if recovered.unknown:
        places = ", ".join(map(str, recovered.unknown))
        lines.append(f"about index {places} too few nodes answer: there may be more; recover again later")
    if not recovered.mark_known:
        lines.append("nobody could say how many assets were locked: there may be more; recover again later")
    return "\n".join(lines)


def table(assets: list[AssetEntry], leaving: Container[bytes] = ()) -> list[str]:
    """Assets as lines under a head; those at the addresses `leaving` are being deleted."""
    width = max([16, *(len(one.asset_id) for one in assets)])
    lines = [f"{'ASSET':<{width}}  {'TIER':<8}  {'BYTES':>15}  {'LOCKED':<10}  {'KEPT UNTIL':<10}  LABEL"]
    for one in assets:
        days = f"{day(one.created_unix_s)}  {day(one.lease_until_unix_s)}"
        note = "  (being deleted)" if one.address in leaving else ""
        lines.append(f"{one.asset_id:<{width}}  {tier_name(one):<8}  {one.size:>15,}  {days}  {one.label}{note}")
    return lines
