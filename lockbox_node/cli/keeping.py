"""`lockbox renew` and `lockbox delete`: how long an asset is kept.

Imported when one of them is asked for. Neither is undone when it is interrupted: what was renewed stays so, and the
same command finishes a deletion. CONTRACT, Programs.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from lockbox_node.cli import answers
from lockbox_node.cli.output import emit, error_fields, json_option, report, reporting
from lockbox_node.cli.people import PASSPHRASE, WALLET, opened
from lockbox_node.errors import ExitCode, LockboxError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.client.wallet import AssetEntry

GOES_ON = "interrupted; what was done stays done"


@click.command()
@click.argument("asset", required=False)
@click.option("--all", "everything", is_flag=True, help="Every asset of this wallet.")
@click.option("--lease", help="How long from now, for example 365d.  [default: the tier's]")
@WALLET
@PASSPHRASE
@json_option
@reporting
def renew(
    asset: str | None,
    everything: bool,
    lease: str | None,
    wallet: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> int:
    """Keep an asset for longer. A lease is never shortened.

    Example: lockbox renew --all --lease 365d
    """
    if (asset is None) is not everything:
        raise UsageError("one asset is renewed, or all", "give ASSET or --all")
    from lockbox_node.cli.session import in_network, progress_bar
    from lockbox_node.client.leases import renew as renew_asset
    from lockbox_node.client.leases import renew_all

    lease_s = answers.lease_seconds(lease)
    with opened(wallet, passphrase_file) as mine, progress_bar("renewing", counting=True) as progress:
        if asset is None:
            every = in_network(mine, lambda vault: renew_all(vault, lease_s, progress=progress), GOES_ON)
            emit(as_json, answers.renew_all_payload(every), answers.renew_all_words(every))
            return every.exit_code
        entry = mine.find(asset)
        done = in_network(mine, lambda vault: renew_asset(vault, entry, lease_s), GOES_ON)
    emit(as_json, answers.renew_payload(done), answers.renew_words(done))
    return done.exit_code


@click.command()
@click.argument("asset")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--with-siblings", is_flag=True, help="And what copies of this wallet locked under its index.")
@WALLET
@PASSPHRASE
@json_option
@reporting
def delete(
    asset: str, yes: bool, with_siblings: bool, wallet: Path | None, passphrase_file: Path | None, as_json: bool
) -> int:
    """Delete an asset for ever. On a terminal you are asked first.

    Ends with 8 (DESTRUCTION_INCOMPLETE) when holders did not answer: readers no longer find the asset, and they drop
    their part when they return; the same command again has it confirmed.

    Assets that copies of this wallet locked under the same index go only together: nothing is deleted, with CONFLICT,
    unless --with-siblings says so. Lock anew what you keep of them.

    Example: lockbox delete k3v7
    """
    from lockbox_node.cli.session import in_network, progress_bar
    from lockbox_node.client.ending import delete as delete_asset

    with opened(wallet, passphrase_file) as mine:
        entry = mine.find(asset)
        if not (yes or as_json):
            _confirm(entry, with_siblings)
        with progress_bar("deleting", counting=True) as progress:
            deleted = in_network(
                mine,
                lambda vault: delete_asset(vault, entry, with_siblings=with_siblings, progress=progress),
                GOES_ON,
            )
    error = deleted.error
    payload = answers.delete_payload(deleted)
    if error is None:
        emit(as_json, payload, answers.delete_words(deleted))
        return ExitCode.DONE
    if as_json:
        emit(as_json, {**payload, "error": error_fields(error)}, "")
    else:
        report("lockbox", error, as_json=False)
    return deleted.exit_code


def _confirm(asset: AssetEntry, with_siblings: bool) -> None:
    """Ask a person; a script that pipes nothing in has said what it wants."""
    if not sys.stdin.isatty():
        return
    label = f" ({asset.label})" if asset.label else ""
    more = " and what else stands under its index" if with_siblings else ""
    if not click.confirm(f"Delete {asset.asset_id}{label}{more}? Nobody can bring it back.", err=True):
        raise LockboxError("nothing was deleted, as you said", "--yes deletes without asking")
