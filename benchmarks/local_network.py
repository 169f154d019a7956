"""A test network and its people as a person would use them: through the installed commands, in real processes.

Shared by the demonstration, the benchmarks and the end-to-end tests. Everything lies in one directory, which is
removed at the end; every wait has an end.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PASSPHRASE = "correct horse battery staple"
COMMAND_TIMEOUT_S = 180
BIN = Path(sys.executable).parent


class CommandFailed(Exception):
    """A command ended with another exit code than the one asked for."""

    def __init__(self, words: Sequence[str], done: subprocess.CompletedProcess[str]) -> None:
        super().__init__(f"{' '.join(words)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        self.done = done


def command(
    *words: str, home: Path | None = None, expect: int | None = 0, directory: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of our programs to its end, in `directory`. CommandFailed unless it exits with `expect` (None = any)."""
    environment = {**os.environ, "LOCKBOX_PASSPHRASE": PASSPHRASE}
    if home is not None:
        environment["HOME"] = str(home)
    done = subprocess.run(
        [str(BIN / words[0]), *words[1:]],
        capture_output=True,
        text=True,
        env=environment,
        cwd=directory,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    if expect is not None and done.returncode != expect:
        raise CommandFailed(words, done)
    return done


class LocalNetwork:
    """One `lockbox-testnet up`, and the verbs on it."""

    def __init__(self, directory: Path, summary: dict[str, Any], process: subprocess.Popen[str]) -> None:
        self.directory = directory
        self.summary = summary
        self.process = process
        self.nodes: list[dict[str, Any]] = summary["nodes"]

    def verb(self, *words: str) -> dict[str, Any]:
        """One verb of `lockbox-testnet`; its JSON answer."""
        done = command("lockbox-testnet", *words, "--dir", str(self.directory), "--json")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def named(self, node_id: str) -> str:
        """The name (n01, ...) of a full node id."""
        return next(str(node["name"]) for node in self.status() if node["id"] == node_id)

    def status(self) -> list[dict[str, Any]]:
        """Every node's line, with its own status."""
        nodes: list[dict[str, Any]] = self.verb("status")["nodes"]
        return nodes

    def person(self, name: str) -> Person:
        """A person with a home of their own, without a wallet yet."""
        home = self.directory / f"home-{name}"
        home.mkdir()
        return Person(self, home)


class Person:
    """Somebody at a shell with `lockbox`."""

    def __init__(self, network: LocalNetwork, home: Path) -> None:
        self.network = network
        self.home = home
        self.words: list[str] = []

    def run(self, *words: str, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        """`lockbox WORDS...` in this person's home."""
        return command("lockbox", *words, home=self.home, expect=expect)

    def json(self, *words: str, expect: int | None = 0) -> dict[str, Any]:
        """The same with --json, its answer parsed."""
        answer: dict[str, Any] = json.loads(self.run(*words, "--json", expect=expect).stdout)
        return answer

    def _network_words(self, *, certificate: bool) -> list[str]:
        summary = self.network.summary
        words = ["--network", summary["network"]]
        for address in summary["bootstrap"]:
            words += ["--bootstrap", address]
        if certificate:
            words += ["--cert", summary["client_cert"], "--key", summary["client_key"]]
        return words

    def init(self) -> list[str]:
        """A new wallet; its 24 words."""
        self.words = self.json("init", *self._network_words(certificate=True))["words"]
        return self.words

    def recover(self, words: Sequence[str], *, certificate: bool = True, expect: int | None = 0) -> dict[str, Any]:
        """A wallet from 24 words on this (bare) home."""
        file = self.home / "words"
        file.write_text(" ".join(words))
        file.chmod(0o600)
        arguments = ["--words-file", str(file), *self._network_words(certificate=certificate)]
        answer = self.json("recover", *arguments, expect=expect)
        file.unlink()
        return answer


@contextmanager
def local_network(nodes: int, *options: str, parent: Path | None = None) -> Iterator[LocalNetwork]:
    """A running network of `nodes` daemons; stopped and removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="lockbox-", dir=parent))
    words = [str(BIN / "lockbox-testnet"), "up", "--nodes", str(nodes), "--dir", str(directory / "net"), "--json"]
    with (directory / "up.log").open("w") as log:
        process = subprocess.Popen([*words, *options], stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if '"ready"' not in line:
            raise RuntimeError(
                line.strip() or f"the network did not start: {(directory / 'up.log').read_text().strip()}"
            )
        yield LocalNetwork(directory / "net", json.loads(line), process)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        shutil.rmtree(directory, ignore_errors=True)
