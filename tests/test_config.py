"""node.toml: read strictly, written whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lockbox_node.config import Config, NodeSettings, host_port, load, to_toml
from lockbox_node.errors import ConfigError, ExitCode

REPOSITORY = Path(__file__).parent.parent


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(text)
    return path


def test_what_is_written_reads_back_equal(tmp_path: Path) -> None:
    settings = NodeSettings(region="eu-west-1", operator='A "quoted" \\ name', bootstrap=("10.0.0.1:1", "[::1]:2"))
    config = replace(Config(), node=settings)
    config = replace(config, repair=replace(config.repair, hold_off_s=3.0, enabled=False))
    assert load(written(tmp_path, to_toml(config))) == config


def test_the_file_in_the_repository_says_every_default() -> None:
    assert (REPOSITORY / "config" / "node.toml").read_text() == to_toml(Config())
    assert load(REPOSITORY / "config" / "node.toml") == Config()


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load(written(tmp_path, "")) == Config()


def test_whole_numbers_do_for_fractions(tmp_path: Path) -> None:
    assert load(written(tmp_path, "[membership]\nprobe_interval_s = 2\n")).membership.probe_interval_s == 2.0


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[node]\nregoin = 'x'\n", "node.regoin"),
        ("[nodes]\n", "nodes"),
        ("[node]\nregion = 3\n", "node.region"),
        ("[membership]\nneighbours = true\n", "membership.neighbours"),
        ("[membership]\nneighbours = 1.5\n", "membership.neighbours"),
        ("[membership]\nneighbours = 0\n", "membership.neighbours"),
        ("[repair]\nhold_off_s = 'soon'\n", "repair.hold_off_s"),
        ("[node]\nbootstrap = 'a:1'\n", "node.bootstrap"),
        ("[node]\nbootstrap = ['a']\n", "node.bootstrap"),
        ("[node]\nlisten = 'nowhere'\n", "node.listen"),
        ("node = 3\n", "node"),
        ("[log]\nlevel = 'loud'\n", "log.level"),
        ("[node\n", "node.toml"),
    ],
)
def test_a_wrong_file_names_the_wrong_key(text: str, word: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=word) as caught:
        load(written(tmp_path, text))
    assert caught.value.exit_code is ExitCode.CONFIG


def test_too_many_bootstrap_addresses_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most"):
        NodeSettings(bootstrap=tuple(f"10.0.0.1:{port}" for port in range(1, 100)))


def test_a_file_that_is_not_there_is_said_to_be_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.toml")


def test_addresses_come_apart_with_brackets_for_ipv6() -> None:
    assert host_port("[::1]:74", "x") == ("::1", 74)
    assert host_port("localhost:0", "x") == ("localhost", 0)


@pytest.mark.parametrize("text", ["", ":1", "a:", "a:b", "a:99999", "a:-1", "a:\uff11"])
def test_what_is_not_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"x is"):
        host_port(text, "x")


def test_control_characters_in_a_name_survive_the_file(tmp_path: Path) -> None:
    config = replace(Config(), node=NodeSettings(operator="a\nb\x7f\t\x00é", region="x"))
    assert load(written(tmp_path, to_toml(config))) == config


@pytest.mark.parametrize("listen", ["0.0.0.0:7420", "[::]:7420", "127.0.0.1:0"])
def test_what_nobody_can_dial_is_not_advertised(listen: str) -> None:
    with pytest.raises(ConfigError, match="nobody can dial"):
        NodeSettings(listen=listen).require_advertisable()
    advertised = NodeSettings(listen=listen, advertise="node.example:7420")
    advertised.require_advertisable()
    assert advertised.advertised == "node.example:7420"


@pytest.mark.parametrize("key", ["region", "operator", "advertise"])
def test_what_does_not_fit_into_a_record_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f"node.{key} is longer"):
        NodeSettings(**{key: "x" * 80 + ":1"})  # type: ignore[arg-type]


def test_a_port_of_thousands_of_digits_is_refused() -> None:
    with pytest.raises(ConfigError):
        host_port("a:" + "1" * 5000, "x")
