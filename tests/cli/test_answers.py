"""What `lockbox` prints: the keys of the contract, and words that tell what a person must know."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lockbox_node.cli import answers
from lockbox_node.client.ending import DeleteResult
from lockbox_node.client.granting import VerifierCounts
from lockbox_node.client.leases import RenewAllResult, RenewResult, SlotRenewal
from lockbox_node.client.lock import LockResult
from lockbox_node.client.margins import Margin
from lockbox_node.client.recover import RecoverResult
from lockbox_node.client.unlock import ShardCounts, UnlockResult
from lockbox_node.client.verify import HolderVerdict, VerifyResult
from lockbox_node.client.wallet import AssetEntry
from lockbox_node.core.audit import Verdict
from lockbox_node.core.manifest import asset_manifest, checked_label, plan_segments
from lockbox_node.core.tiers import STANDARD
from lockbox_node.errors import AssetNotFound, ExitCode, PeerUnreachable
from protocol.ids import Address

ASSET = AssetEntry(3, Address(bytes([3]) * 32), 1, 1, 1234, "keys", 1_700_000_000, 1_731_536_000, bytes(32))


def locked(placed: int) -> LockResult:
    return LockResult(ASSET, placed, 10, 1, ("eu-west-1", "us-east-1"), Margin(placed - 5, 1), 0.12345)


def unlocked(**counts: int) -> UnlockResult:
    manifest = asset_manifest(plan_segments(1234, STANDARD), STANDARD, bytes(32), "keys", 1, 0, [0])
    return UnlockResult(ASSET, manifest, STANDARD, ShardCounts(5, 5, **counts), False, VerifierCounts(3, 2, 4, 2), 0.1)


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
    assert payload["verifiers"] == {"granted": 3, "quorum": 2, "asked": 4, "independent": 2}
    assert payload["maybe_stale"] is False
    assert "1 corrupt part met" in answers.unlock_words(unlocked(corrupt=1), Path("out"))


def test_one_thing_is_not_called_many() -> None:
    assert "; 5 nodes or 1 region may vanish; " in answers.lock_words(locked(10))
    assert " in 2 regions, 1 holder missing; " in answers.lock_words(locked(9))


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
    assert head.split() == ["ASSET", "TIER", "BYTES", "LOCKED", "KEPT", "UNTIL", "LABEL"]
    assert line.split() == [ASSET.asset_id, "standard", "1,234", "2023-11-14", "2024-11-13", "keys"]
    assert answers.table([ASSET], {ASSET.address})[1].endswith("keys  (being deleted)")


def test_the_longer_ids_of_siblings_stand_in_the_table_and_in_what_a_delete_says() -> None:
    pair = [msgspec.structs.replace(ASSET, descriptor_hash=bytes([n]) * 32, sibling=True) for n in (1, 2)]
    lines = answers.table([ASSET, *pair])
    assert [line.index(word) for line, word in zip(lines, ("TIER", "standard", "standard"), strict=False)] == [25] * 3
    assert [line.split()[0] for line in lines[2:]] == [one.sibling_id for one in pair]
    deleted = DeleteResult(pair[0], 2, 20, (), 0.5, (pair[1],))
    assert answers.delete_payload(deleted)["siblings"] == [pair[1].sibling_id]
    assert f"{pair[0].sibling_id}  deleted, and {pair[1].sibling_id} with it; all" in answers.delete_words(deleted)


def renewed(parts: int, *, lengthened: bool = True, lost: int = 0) -> RenewResult:
    return RenewResult(ASSET, 1_763_072_000, lengthened, parts, 20, 2, lost, 0.5)


def test_renew_prints_until_when_and_what_is_missing() -> None:
    payload = answers.renew_payload(renewed(19))
    assert (payload["lease_until"], payload["lease_until_unix_s"]) == ("2025-11-13", 1_763_072_000)
    assert (payload["renewed"], payload["shards"]) == (True, {"renewed": 19, "wanted": 20})
    assert answers.renew_words(renewed(20)) == f"{ASSET.asset_id}  kept until 2025-11-13"
    assert "19 of 20 parts confirmed, 1 missing" in answers.renew_words(renewed(19))
    assert "never shortened" in answers.renew_words(renewed(20, lengthened=False))
    assert "1 of 2 stripes have too few" in answers.renew_words(renewed(12, lost=1))


def test_renew_all_prints_a_line_for_each_and_ends_with_the_worst() -> None:
    gone = AssetNotFound("this asset was deleted", "look")
    done = RenewAllResult(((ASSET, renewed(19)), (ASSET, gone)), SlotRenewal(1_763_072_000, True, 18, 8, 20))
    payload = answers.renew_all_payload(done)
    assert [sorted({"error", "renewed"} & set(one)) for one in payload["assets"]] == [["renewed"], ["error"]]
    assert payload["assets"][1]["error"]["code"] == "NOT_FOUND"
    assert payload["mark"]["shards"] == {"renewed": 18, "wanted": 20}
    words = answers.renew_all_words(done).splitlines()
    assert words[1] == f"{ASSET.asset_id}  not renewed: this asset was deleted; look"
    assert words[2] == "the wallet's mark: 18 of 20 parts confirmed"
    assert done.exit_code is ExitCode.NOT_FOUND
    nothing = RenewAllResult((), None)
    assert (answers.renew_all_payload(nothing)["mark"], nothing.exit_code) == (None, ExitCode.DONE)
    assert answers.renew_all_words(nothing) == "there is nothing to renew"
    unheard = RenewAllResult((), PeerUnreachable("too few answer"))
    assert "error" in answers.renew_all_payload(unheard)["mark"]
    assert unheard.exit_code is ExitCode.UNREACHABLE


def test_delete_prints_who_confirmed_and_full_ids_of_who_did_not() -> None:
    whole = DeleteResult(ASSET, 3, 20, (), 0.5)
    assert answers.delete_payload(whole)["state"] == "deleted"
    assert "all of its 20 holders confirmed" in answers.delete_words(whole)
    short = DeleteResult(ASSET, 3, 20, tuple(bytes([number]) * 32 for number in range(6)), 0.5)
    payload = answers.delete_payload(short)
    assert (payload["state"], payload["holders"]) == ("incomplete", {"confirmed": 14, "named": 20})
    assert payload["missing"][1] == "01" * 32
    assert short.error is not None
    assert (
        "14 of 20 holders confirmed; 00000000, 01010101, 02020202, 03030303 and 2 more did not" in short.error.message
    )


@pytest.mark.parametrize(
    "name", ["plain.txt", "two\nlines", "\x1b[31mred", "bad\udcff", "ä" * 100, "\u202eevil", "日本" * 80]
)
def test_any_file_name_makes_a_label_that_a_manifest_takes(name: str) -> None:
    label = answers.label_of(Path(name))
    assert checked_label(label) == label
    assert label


def test_a_label_is_the_files_name_without_its_directory() -> None:
    assert answers.label_of(Path("/home/me/keys.txt")) == "keys.txt"
