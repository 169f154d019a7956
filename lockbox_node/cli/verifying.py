"""`lockbox verify`: every holder proves what it keeps, to the owner; and to a quorum of verifiers, for a certificate.

Imported when it is asked for. The certificate is written as an unlocked file is: whole or not at all, and over nothing
that stands, unless forced. CONTRACT, Programs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lockbox_node.cli import answers
from lockbox_node.cli.certificates import read_certificate
from lockbox_node.cli.output import code_of, counted, emit, error_fields, json_option, reporting
from lockbox_node.cli.people import PASSPHRASE, WALLET, opened
from lockbox_node.errors import LockboxError, UsageError, worst

if TYPE_CHECKING:
    from lockbox_node.client.certifying import CertifyResult
    from lockbox_node.client.sink import FileSink
    from lockbox_node.client.vault import Vault
    from lockbox_node.client.verify import VerifyResult
    from lockbox_node.client.wallet import AssetEntry, Wallet

_FILE = click.Path(path_type=Path, dir_okay=False)
Outcome = tuple["VerifyResult", "CertifyResult | LockboxError | None"]


@click.command()
@click.argument("asset")
@click.option("--certificate", type=_FILE, help="Have a quorum of verifiers look too, and write what they state.")
@click.option("--after", type=_FILE, help="An earlier certificate of the asset, that the new one follows.")
@click.option("--force", is_flag=True, help="Overwrite what is there.")
@WALLET
@PASSPHRASE
@json_option
@reporting
def verify(
    asset: str,
    certificate: Path | None,
    after: Path | None,
    force: bool,
    wallet: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> int:
    """Have every holder prove what it keeps of an asset.

    Example: lockbox verify k3v7 --certificate k3v7.cert
    """
    if certificate is None and (after is not None or force):
        raise UsageError("--after and --force are about a certificate", "give --certificate FILE too")
    from lockbox_node.cli.session import in_network
    from lockbox_node.client.sink import FileSink

    with opened(wallet, passphrase_file) as mine:
        entry = mine.find(asset)
        if certificate is None:
            verified, said = in_network(mine, lambda vault: _plain(vault, entry))
        else:
            previous = None if after is None else _digest_of(mine, entry, after)
            sink = FileSink(certificate, force=force, option="--certificate")
            try:
                verified, said = in_network(mine, lambda vault: _certified(vault, entry, previous))
                said = _written(sink, said)
            finally:
                sink.discard()
    payload, words = answers.verify_payload(verified), answers.verify_words(verified)
    if said is None or certificate is None:
        emit(as_json, payload, words)
        return verified.exit_code
    payload |= _certificate_payload(certificate, said)
    emit(as_json, payload, f"{words}\n{_certificate_words(certificate, said)}")
    return worst([verified.exit_code, said.exit_code])


async def _plain(vault: Vault, asset: AssetEntry) -> Outcome:
    from lockbox_node.client.verify import verify as verify_asset

    return await verify_asset(vault, asset), None


async def _certified(vault: Vault, asset: AssetEntry, previous: bytes | None) -> Outcome:
    """What the owner saw is told whether or not there is a certificate."""
    from lockbox_node.client.certifying import certify
    from lockbox_node.client.verify import verify as verify_asset
    from protocol.possession import NOTHING

    verified = await verify_asset(vault, asset)
    try:
        return verified, await certify(vault, asset, previous or NOTHING)
    except LockboxError as error:
        return verified, error


def _digest_of(mine: Wallet, asset: AssetEntry, path: Path) -> bytes:
    """How the new certificate names the earlier one. CertificateInvalid, UsageError when it is of another asset."""
    from lockbox_node.adapters.identity import NetworkFile
    from lockbox_node.core.certified import examined

    earlier = examined(NetworkFile.load(mine.network_file).root, read_certificate(path))
    if earlier.address != asset.address:
        raise UsageError(f"{path} is a certificate of another asset", "give one of this asset with --after")
    return earlier.digest


def _written(sink: FileSink, said: CertifyResult | LockboxError | None) -> CertifyResult | LockboxError | None:
    """The file stands when this returns a result."""
    if said is None or isinstance(said, LockboxError):
        return said
    try:
        sink.write_at(0, memoryview(said.file))
        sink.commit()
    except LockboxError as error:
        return error
    return said


def _certificate_payload(path: Path, said: CertifyResult | LockboxError) -> dict[str, Any]:
    if isinstance(said, LockboxError):
        return {"certificate": {"file": None, "error": error_fields(said)}}
    stripes = said.examined.stripes
    tier = stripes[0].asked.tier
    about: dict[str, Any] = {
        "file": str(path),
        "digest": said.examined.digest.hex(),
        "verifiers": min(len(stripe.witnesses) for stripe in stripes),
        "quorum": tier.quorum,
        "held": min(stripe.held for stripe in stripes),
        "indices": tier.n,
        "stripes": len(stripes),
        "margin": said.examined.margin,
    }
    return {"certificate": about, "quorum": tier.quorum}


def _certificate_words(path: Path, said: CertifyResult | LockboxError) -> str:
    if isinstance(said, LockboxError):
        line = f"  no certificate: {code_of(said)}: {said.message}"
        return line + (f"; {said.hint}" if said.hint else "")
    about = _certificate_payload(path, said)["certificate"]
    return (
        f"  {path}: {about['verifiers']} verifiers (quorum {about['quorum']}) saw {about['held']} of "
        f"{about['indices']} indices held, {counted(about['stripes'], 'stripe')}"
    )
