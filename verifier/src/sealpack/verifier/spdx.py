"""Whether an SPDX license expression can be followed with the licenses a reader permits.

Source: specs/policy.md, "license". Of licenses joined by OR the reader may choose one; of those joined by
AND each must be permitted. `id WITH exception` is one license, named so.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_WORDS = re.compile(r"\s*([()]|[A-Za-z0-9.+:-]+)")
_MAX_DEPTH = 32


def permitted(expression: str, allows: Callable[[str], bool]) -> bool:
    """Whether `expression` can be met with licenses that `allows`; False for what is no expression."""
    try:
        return _Reader(_words(expression), allows).whole()
    except ValueError:
        return False


def _words(text: str) -> list[str]:
    words, at = [], 0
    text = text.rstrip()
    while at < len(text):
        found = _WORDS.match(text, at)
        if found is None:
            raise ValueError(f"{text[at]!r} does not belong in a license expression")
        words.append(found.group(1))
        at = found.end()
    return words


class _Reader:
    """Recursive descent; AND binds tighter than OR."""

    def __init__(self, words: list[str], allows: Callable[[str], bool]) -> None:
        self.words, self.allows, self.at = words, allows, 0

    def whole(self) -> bool:
        verdict = self.either(0)
        if self.at != len(self.words):
            raise ValueError("words after the expression")
        return verdict

    def either(self, depth: int) -> bool:
        verdict = self.both(depth)
        while self.take("OR"):
            verdict = self.both(depth) or verdict
        return verdict

    def both(self, depth: int) -> bool:
        verdict = self.operand(depth)
        while self.take("AND"):
            verdict = self.operand(depth) and verdict
        return verdict

    def operand(self, depth: int) -> bool:
        if depth > _MAX_DEPTH:
            raise ValueError("too deep")
        if self.take("("):
            verdict = self.either(depth + 1)
            if not self.take(")"):
                raise ValueError("a parenthesis is not closed")
            return verdict
        name = self.word()
        return self.allows(f"{name} WITH {self.word()}" if self.take("WITH") else name)

    def take(self, word: str) -> bool:
        """Go past `word` when it is next."""
        is_next = self.at < len(self.words) and self.words[self.at] == word
        self.at += is_next
        return is_next

    def word(self) -> str:
        if self.at == len(self.words) or self.words[self.at] in ("(", ")", "AND", "OR", "WITH"):
            raise ValueError("a license is missing")
        self.at += 1
        return self.words[self.at - 1]
