"""The network's authority and what it is asked for: root, certificates, requests, the files of a new node.

The functions above do the work and raise LockboxError; the commands below only call them: `ca` and `init` belong to
`lockbox-node`, `csr` to `lockbox`. A directory of an authority holds root-key.pem (0600, to be kept offline), root.pem,
network.pem and issued.json: who got which certificate, and each node key's salt, which a renewal repeats, so that the
node keeps its id and cannot choose another.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from lockbox_node.adapters.clock import OsEntropy, SystemClock
from lockbox_node.adapters.document_files import load_documents, load_rules, save_documents
from lockbox_node.adapters.identity import NetworkFile, drawn_serial, pem_of
from lockbox_node.adapters.keystores import load_private_key, save_private_key, write_public
from lockbox_node.cli.output import emit, json_option, reporting
from lockbox_node.cli.signing import Signing
from lockbox_node.config import Config, NodeSettings, host_port, to_toml
from lockbox_node.core.documents import NO_RULES
from lockbox_node.core.policy import Governed
from lockbox_node.errors import AssetNotFound, ConfigError, LockboxError, UsageError
from protocol.certificates import NetworkRoot, Role, spki_of_ed25519
from protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from protocol.ids import SALT_BYTES, client_id_of, node_id_of
from protocol.issuing import CsrInfo, Terms, build_identity, build_request, build_role_leaf, build_root, read_csr

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT_KEY_NAME, ROOT_NAME, NETWORK_NAME, ISSUED_NAME = "root-key.pem", "root.pem", "network.pem", "issued.json"
ROOT_LIFE_DAYS = 20 * 365
ISSUE_DAYS, ISSUE_DAYS_MAX = 730, 10 * 365
BACKDATED_S = 3600  # clocks of a new network may be an hour apart on the day it begins
DAY_S = 86400
CSR_BYTES_MAX = 64 * 1024


def create_authority(directory: Path, name: str) -> str:
    """A new network: root key, root and guest certificates in `directory`. Returns the network id, hex.

    ConfigError when there is a root key already: it is never overwritten.
    """
    if not 1 <= len(name) <= 64:
        raise UsageError(f"the network's name has {len(name)} characters", "give 1 to 64")
    entropy = OsEntropy()
    key, guest_key = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    save_private_key(directory / ROOT_KEY_NAME, key)
    root = NetworkRoot(build_root(key, name, _terms(entropy, ROOT_LIFE_DAYS)))
    guest = build_role_leaf(
        root, key, Role.GUEST, guest_key.public_key().public_bytes_raw(), _terms(entropy, ROOT_LIFE_DAYS)
    )
    write_public(directory / ROOT_NAME, pem_of(root.der))
    write_public(directory / NETWORK_NAME, NetworkFile(root, guest, guest_key).to_pem())
    write_public(directory / ISSUED_NAME, _encoded({}))
    Signing(directory, root, key).sign_first()
    return root.network_id.hex()


def issue(directory: Path, request: Path, role: str, certificate: Path, days: int = ISSUE_DAYS) -> str:
    """Sign `request` (PEM) for `role` (node, client, operator) and write the certificate. Returns the id, hex.

    A node's key that was signed before keeps its salt, and so its id. ConfigError, AssetNotFound.
    """
    root, key = open_authority(directory)
    csr = _request(request)
    _refuse_to_overwrite(certificate, "CERTIFICATE")
    with locked(directory):
        return _issue(directory, root, key, csr, Role(role), certificate, days)


def _issue(
    directory: Path,
    root: NetworkRoot,
    key: ec.EllipticCurvePrivateKey,
    csr: CsrInfo,
    role: Role,
    certificate: Path,
    days: int,
) -> str:
    issued = _issued(directory)
    entropy = OsEntropy()
    terms = _terms(entropy, days)
    salt = bytes.fromhex(issued.get(csr.spki.hex(), {}).get("salt", "")) or _drawn_salt(entropy)
    entry: dict[str, Any] = {"role": role, "serial": terms.serial, "not_after_unix_s": terms.not_after_unix_s}
    if role is Role.NODE:
        try:
            der = build_identity(root, key, csr, salt, terms)
        except LocalProtocolError as error:
            raise ConfigError(f"it cannot be signed: {error}", "make the request with `lockbox-node init`") from None
        peer: bytes = node_id_of(csr.spki, salt)
        entry |= {"salt": salt.hex(), "operator": csr.operator}
        _check_ids(Signing(directory, root, key), issued, csr.operator, peer)
    else:
        if not isinstance(csr.public_key, ed25519.Ed25519PublicKey):
            raise ConfigError("the request is not for an Ed25519 key", "make the request with `lockbox csr`")
        raw = csr.public_key.public_bytes_raw()
        der = build_role_leaf(root, key, role, raw, terms)
        peer = client_id_of(spki_of_ed25519(raw))
    if peer in Signing(directory, root, key).revoked():
        raise LockboxError(f"{peer.hex()[:8]} is revoked", "have a request made with a new key", ErrorCode.REVOKED)
    # The list first: a certificate must never exist whose salt is forgotten.
    write_public(directory / ISSUED_NAME, _encoded(issued | {csr.spki.hex(): entry | {"id": peer.hex()}}))
    write_public(certificate, pem_of(der))
    return peer.hex()


def _check_ids(signing: Signing, issued: dict[str, dict[str, Any]], operator: str, peer: bytes) -> None:
    """LockboxError when one operator would have more node ids than the policy allows. Revoked ids do not count."""
    most = Governed().under_all(signing.settings().items())[0].ids_per_operator_max
    theirs = {bytes.fromhex(entry["id"]) for entry in issued.values() if entry.get("operator") == operator}
    if peer not in theirs and len(theirs - signing.revoked().keys()) >= most:
        raise LockboxError(
            f"{operator} has {most} node ids, and the policy allows no more",
            "revoke one that is not used, or raise ids-per-operator with `lockbox-node ca policy`",
            ErrorCode.NOT_A_MEMBER,
        )


def create_client(key: Path, request: Path) -> None:
    """A request for a client's or operator's certificate; the key is made when `key` does not exist. ConfigError."""
    _refuse_to_overwrite(request, "CERTIFICATE REQUEST")
    if key.exists():
        private_key = load_private_key(key)
        if not isinstance(private_key, ed25519.Ed25519PrivateKey):
            raise ConfigError(f"{key} does not hold an Ed25519 key", "give another --key")
    else:
        private_key = ed25519.Ed25519PrivateKey.generate()
        save_private_key(key, private_key)
    write_public(request, build_request(private_key, "").encode())


def create_node(directory: Path, network: Path, config: Config, documents: Path | None = None) -> Path:
    """The files of a new node in `directory`: identity key and request, network.pem, node.toml. Returns the request.

    ConfigError when a key is there already. `config.node` says operator, region and addresses; `documents` is where the
    network's documents are: without them there are the built-in regions.
    """
    settings, network_file = config.node, NetworkFile.load(network)
    rules = NO_RULES if documents is None else load_rules(documents, network_file.root)
    if settings.region not in rules.regions:
        known = ", ".join(sorted(rules.regions.regions))
        added = "; for one that the authority added give --documents" if documents is None else ""
        raise UsageError(f"{settings.region!r} is not a region", f"regions: {known}{added}")
    if not 1 <= len(settings.operator) <= 64:
        raise UsageError("the operator's name must have 1 to 64 characters", "give --operator NAME")
    key = ec.generate_private_key(ec.SECP256R1())
    save_private_key(directory / "identity" / "key.pem", key)
    request = directory / "identity" / "node.csr"
    write_public(request, build_request(key, settings.operator).encode())
    write_public(directory / "network" / "network.pem", network_file.to_pem())
    if documents is not None:
        save_documents(directory / "network", load_documents(documents))
    write_public(directory / "node.toml", to_toml(config).encode())
    return request


def _terms(entropy: OsEntropy, days: int) -> Terms:
    now = int(SystemClock().now_unix_s())
    return Terms(drawn_serial(entropy), now - BACKDATED_S, now + days * DAY_S)


def _drawn_salt(entropy: OsEntropy) -> bytes:
    salt = bytearray(SALT_BYTES)
    entropy.fill(salt)
    return bytes(salt)


def open_authority(directory: Path) -> tuple[NetworkRoot, ec.EllipticCurvePrivateKey]:
    """The root and its key. ConfigError."""
    key = load_private_key(directory / ROOT_KEY_NAME)
    root = NetworkFile.load(directory / NETWORK_NAME).root
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != root.certificate.public_key():
        raise ConfigError(f"{directory / ROOT_KEY_NAME} is not the key of {NETWORK_NAME}", "restore both from one copy")
    return root, key


def _request(path: Path) -> CsrInfo:
    try:
        with path.open("rb") as file:
            return read_csr(file.read(CSR_BYTES_MAX))
    except FileNotFoundError:
        raise AssetNotFound(f"{path} is missing", "make it with `lockbox-node init` or `lockbox csr`") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", "check the path and its owner") from None
    except RemoteProtocolError as error:
        raise ConfigError(f"{path} is not a request to sign: {error}", "have it made again") from None


def _refuse_to_overwrite(path: Path, kind: str) -> None:
    """A renewal may replace what it renews; anything else in its place was named by mistake."""
    try:
        with path.open("rb") as file:
            known = file.readline(128).strip() == f"-----BEGIN {kind}-----".encode()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", "give another -o") from None
    if not known:
        raise ConfigError(f"{path} exists and is no {kind.lower()}", "give another -o")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """One authority process at a time: two would forget each other's salts."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _issued(directory: Path) -> dict[str, dict[str, Any]]:
    try:
        issued: dict[str, dict[str, Any]] = json.loads((directory / ISSUED_NAME).read_bytes())
    except (OSError, ValueError):
        raise ConfigError(
            f"{directory / ISSUED_NAME} cannot be read", "restore it: without it a renewed node would get another id"
        ) from None
    return issued


def issued_ids(directory: Path) -> set[bytes]:
    """Everybody to whom a certificate was issued. ConfigError."""
    return {bytes.fromhex(entry["id"]) for entry in _issued(directory).values()}


def _encoded(issued: dict[str, dict[str, Any]]) -> bytes:
    return json.dumps(issued, indent=1, sort_keys=True).encode() + b"\n"


directory_option = click.option(
    "--dir", "directory", required=True, type=click.Path(path_type=Path, file_okay=False), help="Where its files are."
)


@click.group()
def ca() -> None:
    """The network's authority: make a network, sign its certificates and its documents.

    Example: lockbox-node ca init --dir ca --network example
    """


@ca.command(name="init")
@directory_option
@click.option("--network", "name", required=True, help="The network's name, for people to read.")
@json_option
@reporting
def ca_init(directory: Path, name: str, as_json: bool) -> None:
    """Make a new network: its root key, and network.pem for everybody.

    Example: lockbox-node ca init --dir ca --network example
    """
    network = create_authority(directory, name)
    files = {"key": str(directory / ROOT_KEY_NAME), "file": str(directory / NETWORK_NAME)}
    emit(
        as_json,
        {"network": network, **files},
        f"network {network}\n"
        f"give everybody {files['file']}\n"
        f"keep {files['key']} offline, with copies: who has it can admit anybody",
    )


@ca.command(name="issue")
@directory_option
@click.option("--csr", "request", required=True, type=click.Path(path_type=Path), help="The request to sign.")
@click.option("--role", required=True, type=click.Choice(["node", "client", "operator"]), help="What it may do.")
@click.option(
    "--days", type=click.IntRange(1, ISSUE_DAYS_MAX), default=ISSUE_DAYS, show_default=True, help="How long it lasts."
)
@click.option("-o", "certificate", required=True, type=click.Path(path_type=Path), help="The certificate to write.")
@json_option
@reporting
def ca_issue(directory: Path, request: Path, role: str, days: int, certificate: Path, as_json: bool) -> None:
    """Sign a request. A node keeps its id when it is signed again.

    Example: lockbox-node ca issue --dir ca --csr n01/identity/node.csr --role node -o n01/identity/node.pem
    """
    peer = issue(directory, request, role, certificate, days)
    emit(as_json, {"id": peer, "role": role, "certificate": str(certificate)}, f"{role} {peer}: {certificate}")


@click.command(name="init")
@directory_option
@click.option("--network", required=True, type=click.Path(path_type=Path), help="The network's network.pem.")
@click.option("--region", required=True, help="Where this machine stands, for example eu-west-1.")
@click.option(
    "--documents", type=click.Path(path_type=Path, file_okay=False), help="The authority's, for a region that it added."
)
@click.option("--operator", required=True, help="Who runs it; all nodes of one operator give the same name.")
@click.option("--listen", required=True, metavar="HOST:PORT", help="Where it listens for peers.")
@click.option("--advertise", default="", metavar="HOST:PORT", help="Where others reach it, if not at --listen.")
@click.option("--bootstrap", multiple=True, metavar="HOST:PORT", help="A node to join by; may be given several times.")
@click.option("--http", default=None, metavar="HOST:PORT", help="Its health page and metrics; empty for none.")
@click.option("--key", "keystore", default="file", show_default=True, help="Where the identity key lives.")
@json_option
@reporting
def node_init(
    directory: Path,
    network: Path,
    region: str,
    documents: Path | None,
    operator: str,
    listen: str,
    advertise: str,
    bootstrap: tuple[str, ...],
    http: str | None,
    keystore: str,
    as_json: bool,
) -> None:
    """Make the files of a new node: its key, the request for its certificate, node.toml.

    Example: lockbox-node init --dir n01 --network network.pem --region eu-west-1 --operator me --listen 192.0.2.1:7420
    """
    if keystore != "file":
        raise UsageError(f"--key {keystore} is not available in this installation", "use --key file")
    for option, address in (("--listen", listen), ("--advertise", advertise), ("--http", http or "")):
        if address:
            _check_address(option, address)
    for address in bootstrap:
        _check_address("--bootstrap", address)
    settings = NodeSettings(
        region=region, operator=operator, listen=listen, advertise=advertise, bootstrap=tuple(bootstrap)
    )
    if http is not None:
        settings = dataclasses.replace(settings, http=http)
    request = create_node(directory, network, Config(node=settings), documents)
    certificate, config = request.with_name("node.pem"), directory / "node.toml"
    emit(
        as_json,
        {"request": str(request), "certificate": str(certificate), "config": str(config)},
        f"send {request} to the network's authority; it signs with:\n"
        f"  lockbox-node ca issue --dir CA --csr {request} --role node -o {certificate}\n"
        f"put the certificate at {certificate}, then start the node:\n"
        f"  lockbox-node run --config {config}",
    )


@click.command(name="csr")
@click.option("-o", "request", required=True, type=click.Path(path_type=Path), help="The request to write.")
@click.option("--key", type=click.Path(path_type=Path), help="The key; made when missing. Default: beside the request.")
@json_option
@reporting
def csr(request: Path, key: Path | None, as_json: bool) -> None:
    """Make a client key and the request for its certificate.

    Example: lockbox csr -o me.csr --key me.key
    """
    home = key or request.with_suffix(".key")
    if home == request:
        raise UsageError("the key and the request cannot be one file", "give another --key")
    create_client(home, request)
    emit(
        as_json,
        {"request": str(request), "key": str(home)},
        f"send {request} to the network's authority; keep {home} secret; the authority signs with:\n"
        f"  lockbox-node ca issue --dir CA --csr {request} --role client -o {request.with_suffix('.pem')}",
    )


def _check_address(option: str, address: str) -> None:
    try:
        host_port(address, option)
    except ConfigError as error:
        raise UsageError(error.message, error.hint, ErrorCode.INTERNAL) from None
