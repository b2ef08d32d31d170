"""Fingerprints as words, to be compared over the phone or with a contract.

Source: specs/trust.md, "Fingerprint words". Each 16 bits become one pronounceable five-letter word
(consonant, vowel, consonant, vowel, consonant: the proquint encoding), so no word list is needed and
no language is assumed. Six words carry 96 bits.
"""

from __future__ import annotations

_C = "bdfghjklmnprstvz"  # 16 consonants, 4 bits
_V = "aiou"  # 4 vowels, 2 bits


def fingerprint_words(digest: str, count: int = 6) -> str:
    """`count` five-letter words (16 bits each) for the leading bits of a hex digest.

    The encoding is the one known as proquint: consonant-vowel-consonant-vowel-consonant.
    """
    data = bytes.fromhex(digest)[: 2 * count]
    return "-".join(_word(int.from_bytes(data[i : i + 2], "big")) for i in range(0, len(data), 2))


def _word(value: int) -> str:
    return (
        _C[value >> 12]
        + _V[(value >> 10) & 3]
        + _C[(value >> 6) & 15]
        + _V[(value >> 4) & 3]
        + _C[value & 15]
    )
