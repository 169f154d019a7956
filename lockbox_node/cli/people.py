"""`lockbox`: what people do with their secrets: make a wallet, lock, unlock, list, verify, recover; renew, delete.

Arguments in, one call each. Everything heavy (trio, TLS, cryptography) is imported inside the commands, so that
`--help` and `--version` answer at once, and `list` and `show` need no network. CONTRACT, Programs.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lockbox_node.cli import answers
from lockbox_node.cli.output import emit, json_option, program, reporting
from lockbox_node.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lockbox_node.client.wallet import Wallet

WALLET_NAME = ".lockbox"
TIER_NAMES = ("basic", "standard", "premium", "elite")
STDIN = STDOUT = "-"
STDIN_FD, STDOUT_FD = 0, 1
_WORDS_A_LINE = 6

_FILE = click.Path(path_type=Path, dir_okay=False)
WALLET = click.option(
    "--wallet", type=click.Path(path_type=Path), help="The wallet directory.  [default: $HOME/.lockbox]"
)
PASSPHRASE = click.option("--passphrase-file", type=_FILE, help="File whose first line is the wallet's passphrase.")
_RECOVERY = click.option(
    "--recovery-passphrase-file", type=_FILE, help="The same for the recovery passphrase, where it differs."
)
_NETWORK = click.option("--network", type=_FILE, required=True, help="The network.pem of the network.")
_BOOTSTRAP = click.option(
    "--bootstrap", multiple=True, required=True, metavar="ADDR...", help="HOST:PORT of a node; best several."
)
_MORE = click.argument("more_bootstrap", nargs=-1, metavar="")
_CERT = click.option("--cert", type=_FILE, help="The client certificate that the authority issued.")
_KEY = click.option("--key", type=_FILE, help="Its key.")


@program("lockbox")
def main() -> None:
    """Lock secrets away in a network of nodes, and get them back, even with nothing left but 24 words.

    Example: lockbox lock keys.txt --tier elite --label "my keys"
    """


_KEEPING = "lockbox_node.cli.keeping"
main.add_later("renew", _KEEPING, "renew", "Keep an asset for longer.")
main.add_later("delete", _KEEPING, "delete", "Delete an asset for ever.")
main.add_later("verify", "lockbox_node.cli.verifying", "verify", "Have every holder prove what it keeps of an asset.")


@main.command()
@click.option("-o", "request", required=True, type=_FILE, help="The request to write.")
@click.option("--key", type=_FILE, help="The key; made when missing.  [default: beside the request]")
@json_option
@click.pass_context
def csr(context: click.Context, request: Path, key: Path | None, as_json: bool) -> None:
    """Make a client key and the request for its certificate.

    Example: lockbox csr -o me.csr --key me.key
    """
    from lockbox_node.cli import authority

    context.invoke(authority.csr, request=request, key=key, as_json=as_json)


@main.command()
@WALLET
@click.option("--words", "word_count", type=int, default=24, help="Only 24 words are made.", show_default=True)
@_NETWORK
@_BOOTSTRAP
@_MORE
@_CERT
@_KEY
@PASSPHRASE
@_RECOVERY
@json_option
@reporting
def init(
    wallet: Path | None,
    word_count: int,
    network: Path,
    bootstrap: tuple[str, ...],
    more_bootstrap: tuple[str, ...],
    cert: Path | None,
    key: Path | None,
    passphrase_file: Path | None,
    recovery_passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Make a wallet and show its 24 words, once.

    Example: lockbox init --network network.pem --bootstrap node.example:7420 --cert me.pem --key me.key
    """
    from lockbox_node.cli.secrets_in import new_passphrases

    if word_count != 24:
        raise UsageError(f"a wallet of {word_count} words is not on offer", "leave --words out: it has 24")
    if cert is None or key is None:
        raise UsageError("a new wallet needs a client certificate", "give --cert and --key; make them with lockbox csr")
    recovery, passphrase = new_passphrases(passphrase_file, recovery_passphrase_file, ask=not as_json)

    from lockbox_node.adapters.clock import OsEntropy
    from lockbox_node.client.words import new_words

    words = new_words(OsEntropy())
    addresses = (*bootstrap, *more_bootstrap)
    path = _make_wallet(wallet, words, recovery, passphrase, network, addresses, cert, key)
    payload = {"wallet": str(path), "words": words.split()}
    emit(as_json, payload, "\n".join([*_numbered(words.split()), "", f"the wallet is {path}"]))
    if not as_json:
        click.echo("Write these words down now, in order: they are not shown again.", err=True)
        _confirm_written()


@main.command()
@click.argument("path")
@click.option("--tier", type=click.Choice(TIER_NAMES, case_sensitive=False), required=True, help="How well it is kept.")
@click.option("--label", default="", help="A name for it; sealed with it.  [default: the file's name]")
@click.option("--lease", help="How long it is kept, for example 30d.  [default: the tier's]")
@WALLET
@PASSPHRASE
@json_option
@reporting
def lock(
    path: str,
    tier: str,
    label: str,
    lease: str | None,
    wallet: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> int:
    """Lock a file, or standard input with "-".

    Example: lockbox lock keys.txt --tier standard --lease 365d
    """
    from lockbox_node.cli.session import in_network, progress_bar
    from lockbox_node.client.lock import lock as lock_asset
    from lockbox_node.client.source import FileSource, read_stream
    from lockbox_node.core.tiers import tier_named

    wanted, lease_s = tier_named(tier), answers.lease_seconds(lease)
    with (
        contextlib.closing(read_stream(STDIN_FD) if path == STDIN else FileSource(Path(path))) as source,
        opened(wallet, passphrase_file) as mine,
        progress_bar("locking") as progress,
    ):
        name = label or ("" if path == STDIN else answers.label_of(Path(path)))
        locked = in_network(
            mine,
            lambda vault: lock_asset(vault, source, wanted, label=name, lease_s=lease_s, progress=progress),
        )
    emit(as_json, answers.lock_payload(locked), answers.lock_words(locked))
    return locked.exit_code


@main.command()
@click.argument("asset")
@click.option("-o", "output", help="The file to write, or - for standard output.  [default: the asset's label]")
@click.option("--force", is_flag=True, help="Overwrite what is there.")
@WALLET
@PASSPHRASE
@json_option
@reporting
def unlock(
    asset: str, output: str | None, force: bool, wallet: Path | None, passphrase_file: Path | None, as_json: bool
) -> None:
    """Get an asset back. ASSET is its id, the beginning of it, or its label.

    Example: lockbox unlock k3v7 -o keys.txt
    """
    from lockbox_node.cli.session import in_network, progress_bar
    from lockbox_node.client.sink import FileSink, Sink, StreamSink
    from lockbox_node.client.unlock import unlock as unlock_asset

    if output == STDOUT and as_json:
        raise UsageError("--json and -o - both want standard output", "give a file with -o")
    with opened(wallet, passphrase_file) as mine, progress_bar("unlocking") as progress:
        entry = mine.find(asset)
        place = Path(output or answers.file_name(entry))
        sink: Sink = StreamSink(STDOUT_FD) if output == STDOUT else FileSink(place, force=force)
        try:
            unlocked = in_network(mine, lambda vault: unlock_asset(vault, entry, sink, progress=progress))
        finally:
            sink.discard()
    if output != STDOUT:
        emit(as_json, {**answers.unlock_payload(unlocked), "output": str(place)}, answers.unlock_words(unlocked, place))


@main.command(name="list")
@WALLET
@PASSPHRASE
@json_option
@reporting
def list_assets(wallet: Path | None, passphrase_file: Path | None, as_json: bool) -> None:
    """List the assets of this wallet. Needs no network.

    Example: lockbox list
    """
    with opened(wallet, passphrase_file) as mine:
        assets, leaving = mine.assets(), mine.burials()
    payload = [{**answers.asset_payload(one), "deleting": one.address in leaving} for one in assets]
    emit(as_json, {"assets": payload}, "\n".join(answers.table(assets, leaving)))


@main.command()
@click.argument("asset")
@WALLET
@PASSPHRASE
@json_option
@reporting
def show(asset: str, wallet: Path | None, passphrase_file: Path | None, as_json: bool) -> None:
    """Show what the wallet knows of one asset. Needs no network.

    Example: lockbox show k3v7
    """
    with opened(wallet, passphrase_file) as mine:
        entry = mine.find(asset)
    payload = answers.asset_payload(entry)
    emit(as_json, payload, "\n".join(f"{name:<8}  {value}" for name, value in payload.items()))


@main.command()
@WALLET
@_NETWORK
@_BOOTSTRAP
@_MORE
@_CERT
@_KEY
@click.option("--words-file", type=_FILE, help="File with the 24 words.  [default: asked for]")
@PASSPHRASE
@_RECOVERY
@json_option
@reporting
def recover(
    wallet: Path | None,
    network: Path,
    bootstrap: tuple[str, ...],
    more_bootstrap: tuple[str, ...],
    cert: Path | None,
    key: Path | None,
    words_file: Path | None,
    passphrase_file: Path | None,
    recovery_passphrase_file: Path | None,
    as_json: bool,
) -> int:
    """Bring a wallet back from its 24 words. Every asset that it ever locked comes with it.

    Without a certificate this works too, as the network's guest. Where the wallet of these words stands already, it
    is brought up to date.

    Example: lockbox recover --network network.pem --bootstrap node.example:7420
    """
    from lockbox_node.cli.secrets_in import given_words, recovery_passphrases

    if (cert is None) != (key is None):
        raise UsageError("--cert and --key belong together", "give both, or neither to come as a guest")
    words = given_words(words_file)
    recovery, passphrase = recovery_passphrases(passphrase_file, recovery_passphrase_file)

    from lockbox_node.adapters.clock import OsEntropy
    from lockbox_node.cli.session import in_network
    from lockbox_node.client.recover import recover as recover_assets
    from lockbox_node.client.wallet import Wallet

    path = _wallet_path(wallet)
    again = path.is_dir() and any(path.iterdir())
    if not again:
        _make_wallet(wallet, words, recovery, passphrase, network, (*bootstrap, *more_bootstrap), cert, key)
    with Wallet.open(path, passphrase, OsEntropy()) as mine:
        if again:
            mine.check_words(words, recovery)
        recovered = in_network(mine, recover_assets)
    emit(as_json, {"wallet": str(path), **answers.recover_payload(recovered)}, answers.recover_words(recovered, path))
    return recovered.exit_code


@main.command()
@WALLET
@PASSPHRASE
@click.option("--new-passphrase-file", type=_FILE, required=True, help="File whose first line is the new passphrase.")
@json_option
@reporting
def passphrase(wallet: Path | None, passphrase_file: Path | None, new_passphrase_file: Path, as_json: bool) -> None:
    """Change the passphrase of this wallet. Words, recovery passphrase and assets stay as they are.

    Example: lockbox passphrase --new-passphrase-file new.txt
    """
    from lockbox_node.cli.secrets_in import given_passphrase

    with opened(wallet, passphrase_file) as mine:
        mine.change_passphrase(given_passphrase(new_passphrase_file) or "")
        path = mine.path
    emit(as_json, {"wallet": str(path)}, f"the passphrase of {path} is changed")


# Wallets


def _wallet_path(given: Path | None) -> Path:
    return given if given is not None else Path.home() / WALLET_NAME


def opened(given: Path | None, passphrase_file: Path | None) -> Wallet:
    """The wallet that a command was told to use, or the one in the home; the caller closes it."""
    from lockbox_node.adapters.clock import OsEntropy
    from lockbox_node.cli.secrets_in import wallet_passphrase
    from lockbox_node.client.wallet import Wallet

    return Wallet.open(_wallet_path(given), wallet_passphrase(passphrase_file), OsEntropy())


def _make_wallet(
    given: Path | None,
    words: str,
    recovery: str,
    passphrase: str,
    network: Path,
    bootstrap: Sequence[str],
    cert: Path | None,
    key: Path | None,
) -> Path:
    """Check what the wallet is to be made of, make it, and say where it is."""
    from lockbox_node.adapters.clock import OsEntropy, SystemClock
    from lockbox_node.adapters.identity import ClientIdentity, NetworkFile
    from lockbox_node.client.wallet import Wallet

    path = _wallet_path(given)
    known = NetworkFile.load(network)
    for address in bootstrap:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise UsageError(f"{address!r} is not an address", "give --bootstrap HOST:PORT")
    if cert is not None and key is not None:
        ClientIdentity.load(known, cert, key, SystemClock())
    certificate, private_key = (one.read_bytes() if one is not None else None for one in (cert, key))
    entropy = OsEntropy()
    Wallet.create(
        path, words, recovery, passphrase, network.read_bytes(), bootstrap, certificate, private_key, entropy
    ).close()
    return path


def _confirm_written() -> None:
    import sys

    if sys.stdin.isatty() and not click.confirm("Have you written them down?", err=True):
        click.echo("Then do it now; whoever has no words cannot recover.", err=True)


def _numbered(words: Sequence[str]) -> list[str]:
    cells = [f"{number:>2} {word:<10}" for number, word in enumerate(words, start=1)]
    return ["".join(cells[at : at + _WORDS_A_LINE]).rstrip() for at in range(0, len(cells), _WORDS_A_LINE)]


if __name__ == "__main__":
    main()
