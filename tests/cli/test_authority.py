"""The authority's commands: a network is made, a node and a client are admitted, mistakes end in one line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from lockbox_node.adapters.clock import OsEntropy, SystemClock
from lockbox_node.adapters.document_files import load_rules
from lockbox_node.adapters.identity import ClientIdentity, NetworkFile, NodeIdentity
from lockbox_node.adapters.keystores import FileKeyStore
from lockbox_node.adapters.tcp import TcpNetwork
from lockbox_node.cli import authority
from lockbox_node.cli.authority import open_authority
from lockbox_node.cli.output import program
from lockbox_node.cli.signing import Signing
from lockbox_node.config import load
from lockbox_node.core.regions import Region
from protocol.certificates import NetworkRoot, Role, verify_chain

if TYPE_CHECKING:
    from pathlib import Path

    from lockbox_node.ports import PeerStream

pytestmark = pytest.mark.real


@program("lockbox-node")
def main() -> None:
    """The commands under test as one program."""


for command in (authority.ca, authority.node_init, authority.csr):
    main.add_command(command)


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def asked(*words: object) -> dict[str, Any]:
    """The object that a command prints with --json; it must have worked."""
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    run("ca", "init", "--dir", tmp_path / "ca", "--network", "test")
    return tmp_path / "ca"


def init(home: Path, ca: Path, *more: object) -> Result:
    where = ("--region", "eu-west-1", "--operator", "acme", "--listen", "127.0.0.1:0")
    return run("init", "--dir", home, "--network", ca / "network.pem", *where, *more)


def new_node(home: Path, ca: Path, *more: object) -> str:
    assert init(home, ca).exit_code == 0
    files = ("--csr", home / "identity" / "node.csr", "-o", home / "identity" / "node.pem")
    node_id: str = asked("ca", "issue", "--dir", ca, "--role", "node", *files, *more)["id"]
    return node_id


def test_a_new_network_has_its_files_and_only_the_key_is_private(ca: Path) -> None:
    assert {path.name: path.stat().st_mode & 0o777 for path in ca.iterdir()} == {
        "root-key.pem": 0o600,
        "root.pem": 0o644,
        "network.pem": 0o644,
        "issued.json": 0o644,
        "documents": 0o755,
    }


def test_the_network_id_is_that_of_the_root(tmp_path: Path) -> None:
    answer = asked("ca", "init", "--dir", tmp_path / "ca", "--network", "test")
    network = NetworkFile.load(tmp_path / "ca" / "network.pem")
    assert answer["network"] == network.root.network_id.hex()
    root = x509.load_pem_x509_certificate((tmp_path / "ca" / "root.pem").read_bytes())
    assert NetworkRoot(root.public_bytes(Encoding.DER)).network_id == network.root.network_id


def test_a_node_can_stand_in_a_region_that_the_authority_added(ca: Path, tmp_path: Path) -> None:
    root, key = open_authority(ca)
    signing = Signing(ca, root, key)
    signing.set_regions(signing.regions().with_region(Region("lisbon", "", 38.72, -9.14)))
    home, papers = tmp_path / "n01", ca / "documents"
    words = ("--dir", home, "--network", ca / "network.pem", "--operator", "acme", "--listen", "127.0.0.1:0")
    refused = run("init", *words, "--region", "lisbon")
    assert refused.exit_code == 2
    assert "for one that the authority added give --documents" in refused.stderr
    assert not home.exists()
    assert run("init", *words, "--region", "porto", "--documents", papers).exit_code == 2
    assert run("init", *words, "--region", "lisbon", "--documents", papers).exit_code == 0
    assert load(home / "node.toml").node.region == "lisbon"
    assert load_rules(home / "network", root).regions == signing.regions()


def test_a_second_init_does_not_touch_the_root_key(ca: Path) -> None:
    before = {path: path.read_bytes() for path in ca.rglob("*.*") if path.is_file()}
    result = run("ca", "init", "--dir", ca, "--network", "other")
    assert result.exit_code == 78
    assert result.stderr.startswith("lockbox-node: CONFIG: ")
    assert "exists already" in result.stderr
    assert {path: path.read_bytes() for path in ca.rglob("*.*") if path.is_file()} == before


def test_a_node_made_and_signed_by_the_commands_serves_a_client_made_likewise(ca: Path, tmp_path: Path) -> None:
    node_id = new_node(tmp_path / "n01", ca)
    asked("csr", "-o", tmp_path / "me.csr")
    client_id = asked(
        "ca", "issue", "--dir", ca, "--csr", tmp_path / "me.csr", "--role", "client", "-o", tmp_path / "me.pem"
    )["id"]
    network = NetworkFile.load(tmp_path / "n01" / "network" / "network.pem")
    client = ClientIdentity.load(network, tmp_path / "me.pem", tmp_path / "me.key", SystemClock())
    assert client.client_id.hex() == client_id
    entropy = OsEntropy()

    async def meet() -> bytes:
        home = tmp_path / "n01" / "identity"
        keystore = FileKeyStore.load(home / "key.pem")
        node = await NodeIdentity.load(home, network.root, keystore, SystemClock(), entropy)
        assert (node.node_id.hex(), node.operator) == (node_id, "acme")
        leaves: list[bytes] = []

        async def handler(stream: PeerStream) -> None:
            leaves.append(stream.peer_leaf)
            await stream.send_all(b"x")
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            port = await nursery.start(TcpNetwork(node).serve, handler)
            stream = await TcpNetwork(client).dial("127.0.0.1", port)
            assert await stream.receive_into(memoryview(bytearray(1))) == 1
            await stream.aclose()
            nursery.cancel_scope.cancel()
        return leaves[0]

    assert trio.run(meet) == client.chain[0]


def test_a_new_nodes_files_are_where_the_contract_says(ca: Path, tmp_path: Path) -> None:
    home = tmp_path / "n01"
    result = init(home, ca, "--bootstrap", "192.0.2.1:7420", "--bootstrap", "[2001:db8::1]:7420", "--http", "")
    assert result.exit_code == 0
    assert "node.pem" in result.stdout
    assert (home / "identity" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert (home / "network" / "network.pem").read_bytes() == (ca / "network.pem").read_bytes()
    node = load(home / "node.toml").node
    assert (node.region, node.operator, node.listen) == ("eu-west-1", "acme", "127.0.0.1:0")
    assert node.bootstrap == ("192.0.2.1:7420", "[2001:db8::1]:7420")
    assert node.http == ""


def test_a_second_init_does_not_touch_a_nodes_key(ca: Path, tmp_path: Path) -> None:
    init(tmp_path / "n01", ca)
    before = (tmp_path / "n01" / "identity" / "key.pem").read_bytes()
    assert init(tmp_path / "n01", ca).exit_code == 78
    assert (tmp_path / "n01" / "identity" / "key.pem").read_bytes() == before


def test_a_renewed_node_keeps_its_id_and_lasts_longer(ca: Path, tmp_path: Path) -> None:
    home = tmp_path / "n01"
    first = new_node(home, ca, "--days", 10)
    files = ("--csr", home / "identity" / "node.csr", "-o", home / "identity" / "node.pem")
    assert asked("ca", "issue", "--dir", ca, "--role", "node", *files, "--days", 100)["id"] == first
    certificate = x509.load_pem_x509_certificate((home / "identity" / "node.pem").read_bytes())
    life = certificate.not_valid_after_utc.timestamp() - SystemClock().now_unix_s()
    assert 99 * 86400 < life <= 100 * 86400


def test_two_nodes_of_one_operator_get_different_ids(ca: Path, tmp_path: Path) -> None:
    assert new_node(tmp_path / "n01", ca) != new_node(tmp_path / "n02", ca)


def test_without_its_list_the_authority_signs_nothing(ca: Path, tmp_path: Path) -> None:
    new_node(tmp_path / "n01", ca)
    (ca / "issued.json").unlink()
    certificate = tmp_path / "n01" / "identity" / "again.pem"
    result = run(
        "ca",
        "issue",
        "--dir",
        ca,
        "--csr",
        tmp_path / "n01" / "identity" / "node.csr",
        "--role",
        "node",
        "-o",
        certificate,
    )
    assert result.exit_code == 78
    assert "another id" in result.stderr
    assert not certificate.exists()


@pytest.mark.parametrize("role", ["client", "operator"])
def test_the_role_asked_for_is_the_role_signed(ca: Path, tmp_path: Path, role: str) -> None:
    asked("csr", "-o", tmp_path / "me.csr")
    asked("ca", "issue", "--dir", ca, "--csr", tmp_path / "me.csr", "--role", role, "-o", tmp_path / "me.pem")
    der = x509.load_pem_x509_certificate((tmp_path / "me.pem").read_bytes()).public_bytes(Encoding.DER)
    assert verify_chain(NetworkFile.load(ca / "network.pem").root, [der]).role is Role(role)


def test_a_key_of_the_wrong_kind_for_the_role_is_refused(ca: Path, tmp_path: Path) -> None:
    asked("csr", "-o", tmp_path / "me.csr")
    init(tmp_path / "n01", ca)
    node_csr = tmp_path / "n01" / "identity" / "node.csr"
    for request, role, words in ((tmp_path / "me.csr", "node", "P-256"), (node_csr, "client", "Ed25519")):
        result = run("ca", "issue", "--dir", ca, "--csr", request, "--role", role, "-o", tmp_path / "out.pem")
        assert result.exit_code == 78
        assert words in result.stderr
    assert not (tmp_path / "out.pem").exists()


def test_an_existing_client_key_is_used_again(tmp_path: Path) -> None:
    asked("csr", "-o", tmp_path / "me.csr", "--key", tmp_path / "k")
    before = (tmp_path / "k").read_bytes()
    asked("csr", "-o", tmp_path / "again.csr", "--key", tmp_path / "k")
    assert (tmp_path / "k").read_bytes() == before
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600


def test_outputs_never_replace_something_else(ca: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"the only copy")
    asked("csr", "-o", tmp_path / "me.csr")
    results = [
        run("ca", "issue", "--dir", ca, "--csr", tmp_path / "me.csr", "--role", "client", "-o", precious),
        run("ca", "issue", "--dir", ca, "--csr", tmp_path / "me.csr", "--role", "client", "-o", tmp_path),
        run("csr", "-o", precious),
        run("csr", "-o", tmp_path / "both", "--key", tmp_path / "both"),
    ]
    assert [result.exit_code for result in results] == [78, 78, 78, 2]
    assert precious.read_bytes() == b"the only copy"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("init", "--region", "atlantis"), 2, "is not a region"),
        (("init", "--operator", ""), 2, "operator"),
        (("init", "--listen", "nowhere"), 2, "--listen"),
        (("init", "--bootstrap", "nowhere:x"), 2, "--bootstrap"),
        (("init", "--key", "tpm"), 2, "--key tpm is not available"),
        (("init", "--network", "/nonexistent"), 78, "is missing"),
        (("ca", "issue", "--csr", "/nonexistent"), 3, "is missing"),
        (("ca", "issue", "--days", "0"), 2, "--days"),
        (("ca", "issue", "--role", "guest"), 2, "--role"),
        (("ca", "issue", "--dir", "/nonexistent"), 78, "cannot be read"),
        (("ca", "init", "--network", "x" * 65), 2, "65 characters"),
        (("ca", "nothing"), 2, "No such command"),
    ],
)
def test_mistakes_end_in_one_line_with_the_code_of_the_contract(
    ca: Path, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    verbs = [word for word in words if not word.startswith("-")][: 2 if words[0] == "ca" else 1]
    defaults: dict[str, dict[str, object]] = {
        "init": {
            "--dir": tmp_path / "n",
            "--network": ca / "network.pem",
            "--region": "eu-west-1",
            "--operator": "acme",
            "--listen": "127.0.0.1:1",
        },
        "ca issue": {"--dir": ca, "--csr": tmp_path / "x.csr", "--role": "client", "-o": tmp_path / "x.pem"},
        "ca init": {"--dir": tmp_path / "new", "--network": "x"},
    }
    given = list(words[len(verbs) :])
    options = {**defaults.get(" ".join(verbs), {}), **dict(zip(given[::2], given[1::2], strict=True))}
    flat = [part for pair in options.items() for part in pair]
    result = run(*verbs, *flat)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("lockbox-node: ")
    assert said in result.stderr
    as_json = run(*verbs, *flat, "--json")
    assert as_json.exit_code == code
    assert as_json.stderr == ""
    error = json.loads(as_json.stdout)["error"]
    assert sorted(error) == ["code", "hint", "message", "retry_after_s", "retryable"]
    assert said in error["message"] + error["hint"]
    assert not (tmp_path / "n").exists()


def test_a_defect_is_one_line_without_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise ExceptionGroup("outer", [RuntimeError("abandon abandon about")])

    monkeypatch.setattr(authority, "create_authority", broken)
    result = run("ca", "init", "--dir", tmp_path / "ca", "--network", "test")
    assert result.exit_code == 1
    assert "INTERNAL: RuntimeError at" in result.stderr
    assert "abandon" not in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("words", [("ca",), ("ca", "init"), ("ca", "issue"), ("init",), ("csr",)])
def test_every_help_shows_an_example(words: tuple[str, ...]) -> None:
    result = run(*words, "--help")
    assert result.exit_code == 0
    assert "Example: lockbox" in result.stdout


def test_the_version_is_told() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("lockbox-node ")


def test_one_operator_gets_no_more_node_ids_than_the_policy_allows(ca: Path, tmp_path: Path) -> None:
    policy_of(ca, "ids-per-operator=2")
    first = new_node(tmp_path / "1", ca)
    new_node(tmp_path / "2", ca)
    assert init(tmp_path / "3", ca).exit_code == 0
    certificate = tmp_path / "3" / "identity" / "node.pem"
    words = ("--role", "node", "--csr", tmp_path / "3" / "identity" / "node.csr", "-o", certificate)
    refused = run("ca", "issue", "--dir", ca, *words)
    assert refused.exit_code == 4
    assert refused.stderr == (
        "lockbox-node: NOT_A_MEMBER: acme has 2 node ids, and the policy allows no more; "
        "revoke one that is not used, or raise ids-per-operator with `lockbox-node ca policy`\n"
    )
    assert not certificate.exists()
    (tmp_path / "1" / "identity" / "node.pem").unlink()
    renewed = ("--csr", tmp_path / "1" / "identity" / "node.csr", "-o", tmp_path / "1" / "identity" / "node.pem")
    assert asked("ca", "issue", "--dir", ca, "--role", "node", *renewed)["id"] == first, "a renewal is no new id"
    signing_of(ca).revoke(bytes.fromhex(first), "left")
    assert len(asked("ca", "issue", "--dir", ca, *words)["id"]) == 64


def signing_of(ca: Path) -> Signing:
    return Signing(ca, *authority.open_authority(ca))


def policy_of(ca: Path, *words: str) -> None:
    signing_of(ca).set_policy(words)
