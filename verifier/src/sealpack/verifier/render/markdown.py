"""A model card's Markdown as harmless HTML: a small subset, everything else shown as it was written.

Source: specs/report.md, "Model card". Headings, paragraphs, lists, quotes, tables, code, bold and emphasis.
Links and images become text: nothing in the page leads out of it. HTML in the card is text too. Runs in time
linear in the card, whatever it holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from sealpack.verifier.render.markup import Html, bullets, element, escape, join, table

_HEADING = re.compile(r"(#{1,6})[ \t]+(.*)$")
_BULLET = re.compile(r"[ \t]{0,12}(?:[-*+]|[0-9]{1,9}[.)])[ \t]+(.*)$")
_RULE = re.compile(r"[ \t]*([-*_])(?:[ \t]*\1){2,}[ \t]*$")
_DIVIDER = re.compile(r"[ \t:|-]+$")
_INLINE = re.compile(  # bounded, so that text full of openers takes no longer than other text
    r"`(?P<code>[^`]{1,500})`"
    r"|\*\*(?P<bold>[^*]{1,500})\*\*"
    r"|\*(?P<em>[^*\s][^*]{0,500})\*"
    r"|(?P<image>!)?\[(?P<text>[^\[\]]{0,500})\]\((?P<to>[^()\s]{0,1000})\)"
)


def render(text: str) -> Html:
    """The whole card."""
    return join(_Blocks(text.replace("\r\n", "\n").split("\n")).blocks())


class _Blocks:
    """Lines, taken block by block."""

    def __init__(self, lines: list[str]) -> None:
        self.lines, self.at = lines, 0

    def blocks(self) -> Iterator[Html]:
        """Each block as markup."""
        if self.lines and self.lines[0].strip() == "---" and "---" in (x.strip() for x in self.lines[1:200]):
            self.at = 1  # YAML front matter, as model hubs put before a card
            yield self._code(lambda line: line.strip() == "---")
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if not line.strip():
                self.at += 1
            else:
                yield self._block(line)

    def _block(self, line: str) -> Html:
        stripped = line.strip()
        if stripped.startswith(("```", "~~~")):
            fence = stripped[:3]
            self.at += 1
            return self._code(lambda other: other.strip().startswith(fence))
        if heading := _HEADING.match(line):
            self.at += 1
            return element(f"h{min(6, 2 + len(heading[1]))}", inline(heading[2].rstrip(" \t#")))
        if _RULE.match(line):
            self.at += 1
            return Html("<hr>")
        if _BULLET.match(line):
            return self._list()
        if "|" in line and self.at + 1 < len(self.lines) and _is_divider(self.lines[self.at + 1]):
            return self._table()
        if stripped.startswith(">"):
            taken = self._take(lambda other: other.strip().startswith(">"))
            return element("blockquote", inline(" ".join(x.strip().lstrip("> ") for x in taken)))
        return element("p", inline(" ".join(x.strip() for x in self._take(_is_plain, first=True))))

    def _take(self, wanted: Callable[[str], bool], *, first: bool = False) -> list[str]:
        """The lines from here on that are wanted; the first is, whatever it is, when `first`."""
        start = self.at
        self.at += first
        while self.at < len(self.lines) and wanted(self.lines[self.at]):
            self.at += 1
        return self.lines[start : self.at]

    def _code(self, is_end: Callable[[str], bool]) -> Html:
        taken = self._take(lambda line: not is_end(line))
        self.at += 1  # the end itself
        return element("pre", join((escape(line.replace("\t", "    ")) for line in taken), Html("\n")))

    def _list(self) -> Html:
        items: list[str] = []
        for line in self._take(lambda other: bool(other.strip()) and _continues(other)):
            if found := _BULLET.match(line):
                items.append(found[1])
            else:
                items[-1] += f" {line.strip()}"
        return bullets(inline(item) for item in items)

    def _table(self) -> Html:
        rows = [_cells(line) for line in self._take(lambda other: "|" in other)]
        return table(rows[0], rows[2:], class_="card-table")


def _continues(line: str) -> bool:
    """Whether a line belongs to the list above it: an item, or an indented line."""
    return _BULLET.match(line) is not None or line.startswith((" ", "\t"))


def _is_plain(line: str) -> bool:
    starts_other = _HEADING.match(line) or _BULLET.match(line) or line.strip().startswith(("```", "~~~", ">"))
    return bool(line.strip()) and not starts_other


def _is_divider(line: str) -> bool:
    return "|" in line and "-" in line and _DIVIDER.match(line) is not None


def _cells(line: str) -> list[Html]:
    return [inline(cell.strip()) for cell in line.strip().strip("|").split("|")]


def inline(text: str) -> Html:
    """One run of text with code, bold, emphasis; links and images as text."""
    parts: list[str] = []
    end = 0
    for found in _INLINE.finditer(text):
        parts += [text[end : found.start()], _marked(found)]
        end = found.end()
    return join([*parts, text[end:]])


def _marked(found: re.Match[str]) -> Html:
    if found["code"] is not None:
        return element("code", found["code"])
    if found["bold"] is not None:
        return element("strong", found["bold"])
    if found["em"] is not None:
        return element("em", found["em"])
    if found["image"]:
        return element("span", f"[picture: {found['text'] or found['to']}]", class_="quiet")
    return join([found["text"], element("span", f" ({found['to']})", class_="quiet")])
