"""Who gets no service, and that the node goes on serving everybody else."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.local_network import BIN, PASSPHRASE, LocalNetwork, Person, command

if TYPE_CHECKING:
    from collections.abc import Sequence

WAIT_S = 10


def s_client(address: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    """`openssl s_client` that sends a frame and reads what comes back."""
    return subprocess.run(
        ["openssl", "s_client", "-connect", address, "-quiet", "-alpn", "lockbox/1", *options],
        input=b"\0\0\0\x05\x94\0\0\x02\x90",
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A client certificate and key of another network."""
    home = tmp_path_factory.mktemp("stranger")
    command("lockbox-node", "ca", "init", "--dir", str(home / "ca"), "--network", "elsewhere")
    command("lockbox", "csr", "-o", str(home / "csr"), "--key", str(home / "key"))
    command(
        "lockbox-node", "ca", "issue", "--dir", str(home / "ca"), "--csr", str(home / "csr"), "--role", "client",
        "-o", str(home / "cert"),
    )  # fmt: skip
    return home / "cert", home / "key"


def identified(pair: tuple[Path, Path]) -> Sequence[str]:
    return "-cert", str(pair[0]), "-key", str(pair[1])


def works(alice: Person, tmp_path: Path) -> bool:
    source = tmp_path / "still"
    source.write_bytes(os.urandom(100))
    asset = alice.json("lock", str(source), "--tier", "basic")["asset"]
    alice.json("unlock", asset, "-o", str(tmp_path / "out"))
    return (tmp_path / "out").read_bytes() == source.read_bytes()


def test_a_member_of_this_network_is_answered_so_that_silence_below_means_something(network: LocalNetwork) -> None:
    pair = Path(network.summary["client_cert"]), Path(network.summary["client_key"])
    assert s_client(network.nodes[0]["address"], *identified(pair)).stdout != b""


def test_tls_1_2_gets_no_service(network: LocalNetwork, alice: Person, tmp_path: Path) -> None:
    pair = Path(network.summary["client_cert"]), Path(network.summary["client_key"])
    done = s_client(network.nodes[0]["address"], "-tls1_2", *identified(pair))
    assert done.stdout == b""
    assert b"protocol version" in done.stderr
    assert works(alice, tmp_path)


def test_nobody_without_a_certificate_is_served(network: LocalNetwork, alice: Person, tmp_path: Path) -> None:
    done = s_client(network.nodes[0]["address"])
    assert done.stdout == b""
    assert b"certificate required" in done.stderr
    assert works(alice, tmp_path)


def test_a_certificate_of_another_network_gets_no_service(
    network: LocalNetwork, alice: Person, stranger: tuple[Path, Path], tmp_path: Path
) -> None:
    done = s_client(network.nodes[0]["address"], *identified(stranger))
    assert done.stdout == b""
    assert b"alert" in done.stderr
    assert works(alice, tmp_path)


def test_lockbox_with_a_certificate_of_another_network_says_so(
    network: LocalNetwork, stranger: tuple[Path, Path]
) -> None:
    lost = network.person("lost")
    done = lost.run(
        "init", "--network", network.summary["network"], "--bootstrap", network.summary["bootstrap"][0],
        "--cert", str(stranger[0]), "--key", str(stranger[1]), expect=None,
    )  # fmt: skip
    assert done.returncode in (4, 78)
    assert "network" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "bytes_sent",
    [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, b"\x16\x03\x01\xff\xff", b""],
    ids=["http", "0", "tls", "none"],
)
def test_garbage_on_the_port_ends_that_connection_only(
    bytes_sent: bytes, network: LocalNetwork, alice: Person, tmp_path: Path
) -> None:
    host, port = network.nodes[1]["address"].split(":")
    received = b""
    with (
        socket.create_connection((host, int(port)), timeout=WAIT_S) as plain,
        suppress(OSError),
    ):  # a reset is no service
        plain.sendall(bytes_sent)
        plain.shutdown(socket.SHUT_WR)
        received = plain.recv(65536)
    assert received == b"" or received[0] == 0x15, "at most a TLS alert"
    assert works(alice, tmp_path)


def test_a_frame_that_claims_4_gib_ends_that_connection_only(
    network: LocalNetwork, alice: Person, tmp_path: Path
) -> None:
    pair = Path(network.summary["client_cert"]), Path(network.summary["client_key"])
    done = subprocess.run(
        ["openssl", "s_client", "-connect", network.nodes[2]["address"], "-quiet", "-alpn", "lockbox/1",
         *identified(pair)],
        input=b"\xff\xff\xff\xff" + b"x" * 1000,
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )  # fmt: skip
    assert len(done.stdout) < 1_000
    assert works(alice, tmp_path)


def test_a_second_daemon_on_the_same_data_dir_is_refused(network: LocalNetwork) -> None:
    config = Path(network.nodes[0]["data"]) / "node.toml"
    done = command("lockbox-node", "run", "--config", str(config), expect=None)
    assert done.returncode == 78
    assert done.stderr.count("\n") == 1
    assert "another" in done.stderr or "already" in done.stderr


def test_the_data_dir_of_another_node_is_refused(network: LocalNetwork, tmp_path: Path) -> None:
    # A copy of one node's identity over the store of a third: the store knows whose it is.
    network.verb("kill", "n22")  # of the same operator as n01
    try:
        data = Path(network.nodes[21]["data"])
        copy = tmp_path / "copy"
        shutil.copytree(data, copy, ignore=shutil.ignore_patterns("control.sock"))
        shutil.rmtree(copy / "identity")
        shutil.copytree(Path(network.nodes[0]["data"]) / "identity", copy / "identity")
        done = command("lockbox-node", "run", "--config", str(copy / "node.toml"), expect=None)
        assert done.returncode == 78
        assert done.stderr.count("\n") == 1
        assert "data_dir of node" in done.stderr
    finally:
        network.verb("restart", "n22")


def test_ctrl_c_in_the_middle_of_a_lock_leaves_nothing_that_blocks_the_next(
    network: LocalNetwork, tmp_path: Path
) -> None:
    person = network.person("impatient")
    person.init()
    source = tmp_path / "large"
    source.write_bytes(os.urandom(60_000_000))
    for wait_s in (0.8, 1.4):
        process = subprocess.Popen(
            [str(BIN / "lockbox"), "lock", str(source), "--tier", "standard"],
            env={**os.environ, "HOME": str(person.home), "LOCKBOX_PASSPHRASE": PASSPHRASE},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(wait_s)
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=30)
        assert process.returncode == 1
        assert words.count("\n") == 1
    assert person.json("list")["assets"] == []
    assert works(person, tmp_path)
