"""WordPiece tokenisation as BERT models use it (the manifest's `io.pre.kind` = "wordpiece").

Text is cleaned, CJK characters stand alone, accents and case are dropped for uncased models, words
are split at whitespace and punctuation, and each word becomes the longest vocabulary pieces from the
left. Names of special tokens inside a text are ordinary text: a caller cannot inject one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

from sealpack.format.errors import SealpackError

_MAX_WORD = 100  # characters; a longer word is unknown, as in the reference implementation
_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


@dataclass(frozen=True, slots=True)
class WordPiece:
    """A vocabulary with its rules. `encode` gives ids with [CLS] first and [SEP] last."""

    ids: dict[str, int] = field(repr=False)
    lower: bool
    cls: int
    sep: int
    unk: int
    pad: int

    @classmethod
    def from_vocab(cls, data: bytes, *, lower: bool = True) -> WordPiece:
        """Read `vocab.txt`: one token a line, its number is its id. BUNDLE_INVALID if unusable."""
        try:
            lines = data.decode("utf-8").split("\n")
        except UnicodeDecodeError:
            raise SealpackError("BUNDLE_INVALID", "the vocabulary is not UTF-8") from None
        ids = {token.rstrip("\r"): n for n, token in enumerate(lines) if token.rstrip("\r")}
        missing = [t for t in ("[CLS]", "[SEP]", "[UNK]", "[PAD]") if t not in ids]
        if missing:
            raise SealpackError("BUNDLE_INVALID", f"the vocabulary lacks {', '.join(missing)}")
        return cls(ids, lower, ids["[CLS]"], ids["[SEP]"], ids["[UNK]"], ids["[PAD]"])

    def encode(self, text: str, max_tokens: int | None = None) -> list[int]:
        """Token ids of `text`, cut to `max_tokens` in all when given (at least 2)."""
        ids = [token for word in _words(_normalise(text, self.lower)) for token in self._pieces(word)]
        if max_tokens is not None:
            ids = ids[: max(0, max_tokens - 2)]
        return [self.cls, *ids, self.sep]

    def _pieces(self, word: str) -> list[int]:
        if len(word) > _MAX_WORD:
            return [self.unk]
        found: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                token = self.ids.get(prefix + word[start:end])
                if token is not None:
                    break
            else:
                return [self.unk]
            found.append(token)
            start = end
        return found


def _normalise(text: str, lower: bool) -> str:
    cleaned = "".join(_clean(char) for char in text)
    if not lower:
        return cleaned
    bare = (c for c in unicodedata.normalize("NFD", cleaned) if unicodedata.category(c) != "Mn")
    # Character by character: str.lower() of a whole word treats a final sigma in its own way.
    return "".join(char.lower() for char in bare)


def _clean(char: str) -> str:
    if char in "\t\n\r":
        return " "
    if char == "�" or unicodedata.category(char)[0] == "C":
        return ""
    if char.isspace():
        return " "
    point = ord(char)
    if any(lo <= point <= hi for lo, hi in _CJK):
        return f" {char} "
    return char


def _words(text: str) -> Iterator[str]:
    for chunk in text.split():
        start = 0
        for index, char in enumerate(chunk):
            if _is_punctuation(char):
                if index > start:
                    yield chunk[start:index]
                yield char
                start = index + 1
        if start < len(chunk):
            yield chunk[start:]


def _is_punctuation(char: str) -> bool:
    point = ord(char)
    if point < 128:
        return 33 <= point <= 47 or 58 <= point <= 64 or 91 <= point <= 96 or 123 <= point <= 126
    return unicodedata.category(char).startswith("P")
