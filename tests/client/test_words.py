"""The 24 words: published vectors, checks before use, and no word in any message."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

import pytest
from mnemonic import Mnemonic

from lockbox_node.client.words import checked_recovery_passphrase, checked_words, master_of, new_words, normalised
from lockbox_node.errors import ExitCode, UsageError

if TYPE_CHECKING:
    import random

# Three of the 24-word vectors of BIP-39 (passphrase TREZOR): entropy, words, seed.
VECTORS = [
    (
        "00" * 32,
        "abandon " * 23 + "art",
        "bda85446c68413707090a52022edd26a1c9462295029f2e60cd7c4f2bbd3097170af7a4d73245cafa9c3cca8d561a7c3"
        "de6f5d4a10be8ed2a5e608d68f92fcc8",
    ),
    (
        "7f" * 32,
        "legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth useful legal "
        "winner thank year wave sausage worth title",
        "bc09fca1804f7e69da93c2f2028eb238c227f2e9dda30cd63699232578480a4021b146ad717fbb7e451ce9eb835f4362"
        "0bf5c514db0f8add49f5d121449d3e87",
    ),
    (
        "ff" * 32,
        "zoo " * 23 + "vote",
        "dd48c104698c30cfe2b6142103248622fb7bb0ff692eebb00089b32d22484e1613912f0a5b694407be899ffd31ed3992"
        "c456cdf60f5d4564b8ba3f05a69890ad",
    ),
]
WORDS = VECTORS[1][1]
PASSPHRASE = "correct horse battery"


class Fixed:
    """Entropy that is known beforehand."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def fill(self, buffer: bytearray | memoryview) -> None:
        """The known bytes."""
        buffer[:] = self._content


@pytest.mark.parametrize(("entropy", "words", "seed"), VECTORS)
def test_words_and_seed_are_those_of_bip_39(entropy: str, words: str, seed: str) -> None:
    assert new_words(Fixed(bytes.fromhex(entropy))) == words == checked_words(words)
    assert Mnemonic.to_seed(words, "TREZOR").hex() == seed


def test_new_words_pass_their_own_check(rng: random.Random) -> None:
    words = new_words(Fixed(rng.randbytes(32)))
    assert checked_words(words) == words


def test_case_and_spaces_do_not_matter() -> None:
    assert checked_words("\n " + WORDS.upper().replace(" ", " \t ") + " ") == WORDS


@pytest.mark.parametrize("count", [0, 12, 23, 25])
def test_only_24_words_will_do(count: int) -> None:
    with pytest.raises(UsageError) as caught:
        checked_words(" ".join((WORDS.split() * 2)[:count]))
    assert f"{count} words" in caught.value.message
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_word_that_is_not_in_the_list_is_placed_but_not_told() -> None:
    words = WORDS.split()
    words[6] = "lockboxx"
    with pytest.raises(UsageError) as caught:
        checked_words(" ".join(words))
    told = caught.value.message + caught.value.hint
    assert "one of the words is not in the list" in told
    assert "number 7" in told
    assert "lockboxx" not in told
    assert caught.value.__context__ is None


def test_several_wrong_words_are_all_placed() -> None:
    with pytest.raises(UsageError) as caught:
        checked_words(" ".join(["xx", "yy", *WORDS.split()[2:]]))
    assert "some of the words" in caught.value.message
    assert "1, 2" in caught.value.hint


def test_words_in_another_order_do_not_belong_together() -> None:
    words = WORDS.split()
    words[0], words[1] = words[1], words[0]
    with pytest.raises(UsageError, match="do not belong together"):
        checked_words(" ".join(words))


def test_the_master_key_is_golden_and_moves_with_all_that_it_is_made_of() -> None:
    master = master_of(WORDS, PASSPHRASE, b"n" * 32)
    assert master.hex() == "7f2dd9ad4c1c2e0788662478e61eba932b59d744aa51a2e3ae73e4aa84d8a57a"
    assert master_of(WORDS.upper(), PASSPHRASE, b"n" * 32) == master
    assert master_of(WORDS, PASSPHRASE + "!", b"n" * 32) != master
    assert master_of(WORDS, PASSPHRASE, b"m" * 32) != master


def test_accents_may_be_composed_or_not() -> None:
    word = "Gr\u00fc\u00dfe aus K\u00f6ln"
    assert normalised(word) == normalised(unicodedata.normalize("NFD", word))


@pytest.mark.parametrize("passphrase", ["", "eleven char"])
def test_a_recovery_passphrase_has_at_least_12_characters(passphrase: str) -> None:
    with pytest.raises(UsageError, match="too short"):
        checked_recovery_passphrase(passphrase)
    with pytest.raises(UsageError, match="too short"):
        master_of(WORDS, passphrase, b"n" * 32)
    assert checked_recovery_passphrase("twelve chars") == "twelve chars"


def test_a_passphrase_that_is_no_text_is_refused_without_repeating_it() -> None:
    with pytest.raises(UsageError) as caught:
        normalised("hunter2hunter2\udc80")
    assert "hunter" not in caught.value.message + caught.value.hint
    assert caught.value.__suppress_context__
