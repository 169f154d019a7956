"""`lockbox-node` at a shell: help, what it says of a running daemon, what it loads."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lockbox_node.cli.node import main
from tests.test_daemon import make_node, running

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = (
    "run", "status", "members", "resume", "software-hash", "version", "init", "ca", "audit", "scrub", "backup",
    "restore", "drain", "verify-drain",
)  # fmt: skip


def run(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)."""
    with pytest.raises(SystemExit) as ended:
        main(list(words), "lockbox-node")
    out, err = capfd.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, command, "--help")
    assert code == 0
    assert "Example: lockbox-node" in out


def test_help_lists_all_commands_those_that_load_late_too(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "--help")
    assert code == 0
    assert all(f"  {command} " in out for command in COMMANDS)
    assert "die-with" not in run(capfd, "run", "--help")[1]


@pytest.mark.real
def test_a_running_daemon_is_asked_through_its_socket(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = make_node(tmp_path, "n01")
    config = str(data / "node.toml")
    with running(data) as daemon:
        daemon.told()
        code, out, err = run(capfd, "status", "--config", config)
        assert (code, err) == (0, "")
        assert "eu-west-1 of op1" in out
        assert "trash       0 parts, 0 bytes; " in out
        assert "clock       not trusted: " in out
        said = json.loads(run(capfd, "status", "--config", config, "--json")[1])
        assert said["members"]["alive"] == 1
        assert said["id"] in run(capfd, "members", "--config", config, "--json")[1]
        assert said["id"][:8] in run(capfd, "members", "--config", config)[1]
        assert run(capfd, "resume", "--config", config)[:2] == (0, "the view of the network is trusted\n")
        daemon.end()
    code, out, err = run(capfd, "status", "--config", config)
    assert (code, out, err.count("\n")) == (7, "", 1)


def test_a_config_that_is_not_there_is_exit_78(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capfd, "run", "--config", str(tmp_path / "node.toml"))
    assert (code, err.count("\n")) == (78, 1)


@pytest.mark.real
def test_what_draws_and_what_serves_pages_is_not_loaded_by_a_daemon_that_starts() -> None:
    script = (
        "import sys, lockbox_node.cli.node, lockbox_node.daemon\n"
        "print([name for name in ('rich', 'hypercorn', 'starlette', 'prometheus_client',"
        " 'lockbox_node.cli.authority', 'lockbox_node.client') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.real
@pytest.mark.parametrize("program", ["node", "testnet"])
def test_help_loads_nothing_that_is_slow(program: str) -> None:
    script = (
        "import contextlib, sys\n"
        f"from lockbox_node.cli.{program} import main\n"
        "with contextlib.suppress(SystemExit):\n    main(['--help'])\n"
        "slow = ('trio', 'cryptography', 'structlog', 'lockbox_node.config')\n"
        "print([name for name in slow if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["version", "software-hash"])
def test_what_is_asked_offline_is_one_json_object(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, command, "--json")
    assert code == 0
    assert isinstance(json.loads(out), dict)
