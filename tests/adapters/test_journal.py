"""Records outlive their process; a machine that stopped, a torn end and a full disk are known as what they are."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from lockbox_node.adapters import journal
from lockbox_node.adapters.journal import FileJournal
from lockbox_node.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 8


def record(number: int) -> bytes:
    return number.to_bytes(SIZE, "big")


def test_what_was_appended_is_there_after_a_clean_end(tmp_path: Path) -> None:
    with closing(FileJournal(tmp_path / "seen", SIZE)) as first:
        assert first.whole
        assert first.kept() == []
        for number in range(5):
            first.append(record(number))
    with closing(FileJournal(tmp_path / "seen", SIZE)) as second:
        assert second.kept() == [record(number) for number in range(5)]
        assert second.whole


def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib, signal\n"
        "from lockbox_node.adapters.journal import FileJournal\n"
        f"one = FileJournal(pathlib.Path(sys.argv[1]), {SIZE})\n"
        f"[one.append(n.to_bytes({SIZE}, 'big')) for n in range(1000)]\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path / "seen")], check=False)
    assert ended.returncode == -signal.SIGKILL
    with closing(FileJournal(tmp_path / "seen", SIZE)) as after:
        assert len(after.kept()) == 1000
        assert after.whole


def test_after_another_boot_without_a_clean_end_it_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = FileJournal(tmp_path / "seen", SIZE)
    first.append(record(1))
    (tmp_path / "boot").write_bytes(b"another boot")
    monkeypatch.setattr(journal, "BOOT_ID", str(tmp_path / "boot"))
    with closing(FileJournal(tmp_path / "seen", SIZE)) as second:
        assert not second.whole
        assert second.kept() == [record(1)]
    with closing(FileJournal(tmp_path / "seen", SIZE)) as third:
        assert not third.whole  # what the first has lost is still missing


def test_after_another_boot_and_a_clean_end_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FileJournal(tmp_path / "seen", SIZE).close()
    (tmp_path / "boot").write_bytes(b"another boot")
    monkeypatch.setattr(journal, "BOOT_ID", str(tmp_path / "boot"))
    with closing(FileJournal(tmp_path / "seen", SIZE)) as second:
        assert second.whole


@pytest.mark.parametrize("told", [None, b""])
def test_a_machine_that_does_not_tell_its_boots_apart_counts_as_started_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bytes | None
) -> None:
    monkeypatch.setattr(journal, "BOOT_ID", str(tmp_path / "boot"))
    if told is not None:
        (tmp_path / "boot").write_bytes(told)
    FileJournal(tmp_path / "ended", SIZE).close()
    with closing(FileJournal(tmp_path / "ended", SIZE)) as after_a_clean_end:
        assert after_a_clean_end.whole
    FileJournal(tmp_path / "killed", SIZE).append(record(1))
    with closing(FileJournal(tmp_path / "killed", SIZE)) as after_a_kill:
        assert not after_a_kill.whole
        assert after_a_kill.kept() == [record(1)]


def test_a_record_that_was_cut_short_is_left_out_and_those_after_it_are_read(tmp_path: Path) -> None:
    first = FileJournal(tmp_path / "seen", SIZE)
    first.append(record(1))
    with (tmp_path / "seen" / "0").open("ab") as file:
        file.write(b"torn")
    with closing(FileJournal(tmp_path / "seen", SIZE)) as second:
        assert second.kept() == [record(1)]
        second.append(record(2))
    with closing(FileJournal(tmp_path / "seen", SIZE)) as third:
        assert third.kept() == [record(1), record(2)]


def test_two_files_take_turns_and_old_records_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "KEEP_S", 0.0)
    with closing(FileJournal(tmp_path / "seen", SIZE)) as first:
        for number in range(6):
            time.sleep(0.02)  # the clock of the files must move
            first.append(record(number))
    monkeypatch.setattr(journal, "KEEP_S", 480.0)
    with closing(FileJournal(tmp_path / "seen", SIZE)) as second:
        assert second.kept() == [record(4), record(5)]


def test_a_file_that_nobody_wrote_to_for_long_is_emptied_at_the_next_start(tmp_path: Path) -> None:
    with closing(FileJournal(tmp_path / "seen", SIZE)) as first:
        first.append(record(1))
        name = "0" if (tmp_path / "seen" / "0").stat().st_size else "1"
    long_ago = time.time() - 2 * journal.KEEP_S
    os.utime(tmp_path / "seen" / name, (long_ago, long_ago))
    with closing(FileJournal(tmp_path / "seen", SIZE)) as second:
        second.append(record(2))
    with closing(FileJournal(tmp_path / "seen", SIZE)) as third:
        assert third.kept() == [record(2)]


def test_a_lost_state_file_is_no_clean_end(tmp_path: Path) -> None:
    with closing(FileJournal(tmp_path / "seen", SIZE)) as first:
        first.append(record(1))
    (tmp_path / "seen" / "state").unlink()
    with closing(FileJournal(tmp_path / "seen", SIZE)) as second:
        assert not second.whole


@pytest.mark.parametrize("text", [b"", b"clean", b"running", b"\xff" * 64, b"doubtful x"])
def test_a_state_that_is_not_ours_is_judged_by_what_it_says(tmp_path: Path, text: bytes) -> None:
    FileJournal(tmp_path / "seen", SIZE).close()
    (tmp_path / "seen" / "state").write_bytes(text)
    with closing(FileJournal(tmp_path / "seen", SIZE)) as second:
        assert second.whole is (text == b"clean")


def test_a_full_disk_is_no_obstacle_now_and_is_known_at_the_next_start(tmp_path: Path) -> None:
    first = FileJournal(tmp_path / "seen", SIZE)
    first.append(record(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (journal.STATE_BYTES, before[1]))
        for number in range(20):
            first.append(record(number))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    first.close()
    with closing(FileJournal(tmp_path / "seen", SIZE)) as second:
        assert not second.whole
        assert len(second.kept()) == journal.STATE_BYTES // SIZE


def test_a_record_for_which_only_part_had_room_shifts_none_behind_it(tmp_path: Path) -> None:
    first = FileJournal(tmp_path / "seen", SIZE)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5 * SIZE // 2, before[1]))
        for number in range(4):
            first.append(record(number))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    first.append(record(4))  # there is room again
    first.close()
    with closing(FileJournal(tmp_path / "seen", SIZE)) as second:
        assert not second.whole
        assert second.kept() == [record(0), record(1), record(4)]


def test_what_was_lost_is_doubted_over_restarts_until_it_no_longer_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FileJournal(tmp_path / "seen", SIZE)
    (tmp_path / "boot").write_bytes(b"another boot")
    monkeypatch.setattr(journal, "BOOT_ID", str(tmp_path / "boot"))
    FileJournal(tmp_path / "seen", SIZE)  # killed at once
    FileJournal(tmp_path / "seen", SIZE).close()
    monkeypatch.setattr(journal, "KEEP_S", 0.0)
    with closing(FileJournal(tmp_path / "seen", SIZE)) as later:
        assert not later.whole
        later.append(record(1))
    with closing(FileJournal(tmp_path / "seen", SIZE)) as last:
        assert last.whole


def test_a_place_that_cannot_be_used_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "seen").write_bytes(b"a file")
    with pytest.raises(ConfigError):
        FileJournal(tmp_path / "seen", SIZE)


def test_others_may_not_read_it(tmp_path: Path) -> None:
    FileJournal(tmp_path / "seen", SIZE).close()
    for name in ("0", "1", "state"):
        assert os.stat(tmp_path / "seen" / name).st_mode & 0o077 == 0
