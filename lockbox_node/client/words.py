"""The 24 words (BIP-39, English list) and what becomes of them: the master key.

The words are checked before they are used, since a seed can be made of any text; what the library says about wrong
words is not passed on, for it holds the word. Words, passphrases and the BIP-39 seed are `str` and `bytes` in CPython
and cannot be wiped; they live for this one call, the master key they lead to stands in a buffer that is wiped.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

from lockbox_node.core.derivation import master_key
from lockbox_node.core.sealing import wipe
from lockbox_node.errors import UsageError

if TYPE_CHECKING:
    from mnemonic import Mnemonic

    from lockbox_node.ports import Entropy

WORDS = 24
WORDS_ENTROPY_BYTES = 32
RECOVERY_PASSPHRASE_CHARS_MIN = 12


def new_words(entropy: Entropy) -> str:
    """24 new words, separated by single spaces."""
    chance = bytearray(WORDS_ENTROPY_BYTES)
    try:
        entropy.fill(chance)
        return _english().to_mnemonic(bytes(chance))
    finally:
        wipe(chance)


def checked_words(text: str) -> str:
    """`text` as 24 lower-case words with single spaces; UsageError when they cannot be a wallet's. Names no word.

    A checksum of 8 bits: one wrong word of 256 passes it, and then leads to another, empty wallet.
    """
    words = unicodedata.normalize("NFKD", text).lower().split()
    if len(words) != WORDS:
        raise UsageError(f"{len(words)} words were given", f"a wallet has {WORDS} words, separated by spaces")
    unknown = [number for number, word in enumerate(words, start=1) if word not in _list()]
    if unknown:
        places = ", ".join(map(str, unknown))
        raise UsageError(
            "one of the words is not in the list" if len(unknown) == 1 else "some of the words are not in the list",
            f"check the spelling of number {places}; the words are those of the English BIP-39 list",
        )
    joined = " ".join(words)
    if not _english().check(joined):
        raise UsageError("the words do not belong together", "check spelling and order against what was written down")
    return joined


def checked_recovery_passphrase(passphrase: str) -> str:
    """`passphrase` itself when it may protect 24 words; UsageError when it is too short."""
    if len(normalised(passphrase)) < RECOVERY_PASSPHRASE_CHARS_MIN:
        raise UsageError(
            "the recovery passphrase is too short",
            f"choose one of at least {RECOVERY_PASSPHRASE_CHARS_MIN} characters; a few random words are good",
        )
    return passphrase


def master_of(words: str, recovery_passphrase: str, network_id: bytes) -> bytearray:
    """The 32-byte master key of these words in this network; the caller wipes it. Takes 0.2 s. UsageError."""
    checked = checked_words(words)
    seed = _english().to_seed(checked, normalised(checked_recovery_passphrase(recovery_passphrase)))
    return master_key(seed, network_id)


def normalised(passphrase: str) -> str:
    """The same passphrase however a keyboard composes its accents (NFKD, as BIP-39 asks); UsageError for no text."""
    try:
        passphrase.encode()
    except UnicodeEncodeError:  # it holds the passphrase
        raise UsageError("the passphrase is not valid UTF-8 text", "type it again, or save its file as UTF-8") from None
    return unicodedata.normalize("NFKD", passphrase)


@lru_cache(1)
def _english() -> Mnemonic:
    from mnemonic import Mnemonic  # not needed to open a wallet

    return Mnemonic("english")


@lru_cache(1)
def _list() -> frozenset[str]:
    return frozenset(_english().wordlist)
