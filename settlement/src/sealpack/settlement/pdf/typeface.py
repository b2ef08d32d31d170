"""The fonts that documents are set in, and which of them draws a character.

Source: specs/invoice.md section 6. Latin, Greek and Cyrillic are set in one family, Chinese, Japanese and
Korean in a second; a reader's own font can be added. What no font draws is refused, never left out.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from fontTools.ttLib import TTFont, TTLibError

from sealpack.format.errors import SealpackError
from sealpack.settlement.exports import refused

_FOLDER = Path(str(resources.files("sealpack.settlement.pdf"))) / "fonts"
REGULAR, BOLD = _FOLDER / "IBMPlexSans-Regular.ttf", _FOLDER / "IBMPlexSans-SemiBold.ttf"
CJK = _FOLDER / "DroidSansFallback-subset.ttf"
# Scripts whose letters join, stack or run from the right: drawn one by one they would be wrong.
_SHAPED = (range(0x0590, 0x10A0), range(0x1780, 0x18B0), range(0xFB1D, 0xFE00), range(0xFE70, 0xFF00))


@dataclass(frozen=True, slots=True, eq=False)
class Font:
    """A font file and the code points it draws."""

    path: Path
    letters: frozenset[int]

    @classmethod
    def load(cls, path: Path) -> Font:
        """Read one; USAGE when it is no TrueType or OpenType font."""
        try:
            with path.open("rb") as file, TTFont(file, lazy=True) as opened:
                return cls(path, frozenset(opened.getBestCmap() or ()))
        except (TTLibError, OSError, AssertionError) as error:
            raise SealpackError(
                "USAGE", f"{path} is not a font that can be used: {error}", remedy="give a .ttf or .otf file"
            ) from None


@cache
def own(path: Path) -> Font:
    """One of the fonts that are here."""
    return Font.load(path)


def plain(text: str) -> str:
    """Text as it is drawn: composed letters, any space as a space, what is unseen as an escape."""
    shown = []
    for character in unicodedata.normalize("NFC", text):
        if character.isspace():
            shown.append(" ")
        elif character.isprintable():
            shown.append(character)
        else:
            shown.append(f"\\u{ord(character):04x}")
    return "".join(shown)


def runs(text: str, fonts: Sequence[Font]) -> list[tuple[Font, str]]:
    """`text` cut into parts that one font draws each, the first font that has the character.

    EXPORT_REFUSED names a character that none has, or that needs shaping.
    """
    found: list[tuple[Font, str]] = []
    for character in text:
        font = _font_of(character, fonts)
        if found and found[-1][0] is font:
            found[-1] = font, found[-1][1] + character
        else:
            found.append((font, character))
    return found


def _font_of(character: str, fonts: Sequence[Font]) -> Font:
    code = ord(character)
    if any(code in block for block in _SHAPED):
        raise refused(
            f"{_name(character)} is of a script that PDF documents here cannot be set in",
            "use the document's HTML",
        )
    for font in fonts:
        if code in font.letters:
            return font
    raise refused(f"no font here draws {_name(character)}", "give a font that does with --font FILE")


def _name(character: str) -> str:
    return f"{character} (U+{ord(character):04X}, {unicodedata.name(character, 'no name')})"
