"""What `lockbox` prints: the keys of the contract, and words that tell what a person must know."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockbox_node.cli import answers
from lockbox_node.client.lock import LockResult
from lockbox_node.client.margins import Margin
from lockbox_node.client.recover import RecoverResult
from lockbox_node.client.unlock import ShardCounts, UnlockResult
from lockbox_node.client.verify import HolderVerdict, Verdict, VerifyResult
from lockbox_node.client.wallet import AssetEntry
from lockbox_node.core.manifest import asset_manifest, checked_label, plan_segments
from lockbox_node.core.tiers import STANDARD
from lockbox_node.errors import ExitCode
from protocol.ids import Address

ASSET = AssetEntry(3, Address(bytes([3]) * 32), 1, 1, 1234, "keys", 1_700_000_000, 1_731_536_000, bytes(32))


def locked(placed: int) -> LockResult:
    return LockResult(ASSET, placed, 10, 1, ("eu-west-1", "us-east-1"), Margin(placed - 5, 1), 0.12345)


def unlocked(**counts: int) -> UnlockResult:
    manifest = asset_manifest(plan_segments(1234, STANDARD), STANDARD, bytes(32), "keys", 1, 0, [0])
    return UnlockResult(ASSET, manifest, STANDARD, ShardCounts(5, 5, **counts), False, 0.1)


def test_lock_prints_what_the_contract_names() -> None:
    payload = answers.lock_payload(locked(10))
    assert {"asset", "address", "tier", "size", "shards", "decoys", "regions", "seconds"} <= set(payload)
    assert payload["shards"] == {"placed": 10, "wanted": 10}
    assert (payload["tier"], payload["size"], payload["address"]) == ("standard", 1234, "03" * 32)
    assert answers.lock_words(locked(10)).split()[0] == ASSET.asset_id


def test_a_lock_with_holders_missing_says_so_and_ends_with_8() -> None:
    assert "2 holders missing" in answers.lock_words(locked(8))
    assert locked(8).exit_code is ExitCode.DEGRADED
    assert "missing" not in answers.lock_words(locked(10))


def test_unlock_prints_what_the_contract_names() -> None:
    payload = answers.unlock_payload(unlocked(corrupt=1, missing=2))
    assert payload["shards"] == {"fetched": 5, "needed": 5, "corrupt": 1, "missing": 2}
    assert set(payload["verifiers"]) == {"granted", "quorum", "asked", "independent"}
    assert payload["maybe_stale"] is False
    assert "1 corrupt parts met" in answers.unlock_words(unlocked(corrupt=1), Path("out"))


def test_verify_prints_full_ids_with_stripe_and_index() -> None:
    lines = (HolderVerdict(0, 4, bytes([7]) * 32, "eu-west-1", Verdict.HELD),)
    result = VerifyResult(ASSET, STANDARD, "degraded", lines, Margin(3, 1))
    payload = answers.verify_payload(result)
    assert payload["holders"] == [
        {"node": "07" * 32, "region": "eu-west-1", "stripe": 0, "index": 4, "verdict": "held"}
    ]
    assert payload["margin"] == {"nodes": 3, "regions": 1}
    assert "degraded" in answers.verify_words(result)


def test_recover_says_when_something_may_be_missing() -> None:
    whole = answers.recover_words(RecoverResult(assets=[ASSET]), Path("w"))
    assert "there may be more" not in whole
    assert ASSET.asset_id in whole
    unsure = RecoverResult(unknown=[4, 7], leftovers=1, mark_known=False)
    words = answers.recover_words(unsure, Path("w"))
    assert "index 4, 7" in words
    assert words.count("there may be more") == 2
    assert answers.recover_payload(unsure)["mark"] is None


def test_the_table_has_a_head_and_a_line_for_each_asset() -> None:
    head, line = answers.table([ASSET])
    assert head.split() == ["ASSET", "TIER", "BYTES", "LOCKED", "LABEL"]
    assert line.split() == [ASSET.asset_id, "standard", "1,234", "2023-11-14", "keys"]


@pytest.mark.parametrize(
    "name", ["plain.txt", "two\nlines", "\x1b[31mred", "bad\udcff", "ä" * 100, "\u202eevil", "日本" * 80]
)
def test_any_file_name_makes_a_label_that_a_manifest_takes(name: str) -> None:
    label = answers.label_of(Path(name))
    assert checked_label(label) == label
    assert label


def test_a_label_is_the_files_name_without_its_directory() -> None:
    assert answers.label_of(Path("/home/me/keys.txt")) == "keys.txt"
