"""Cut a CJK font down to what documents are likely to need: `make_cjk_font.py FONT.ttf OUT.ttf`.

Needs fonttools. The font in settlement's `pdf/fonts` was made of DroidSansFallback.ttf (Debian package
fonts-droid-fallback 1:6.0.1r16-1.1).
"""

from __future__ import annotations

import sys

from fontTools import subset
from fontTools.ttLib import TTFont

LEVELS = (("euc_jp", 0xB0, 0xCF), ("gb2312", 0xB0, 0xD7), ("euc_kr", 0xB0, 0xC8))  # codec, rows
BLOCKS = (range(0x3000, 0x3100), range(0xFF00, 0xFFF0))  # punctuation and kana, full-width forms


def characters(codec: str, first: int, last: int) -> set[int]:
    """The code points of some rows of a 94 by 94 character set."""
    found: set[int] = set()
    for row in range(first, last + 1):
        for cell in range(0xA1, 0xFF):
            try:
                found |= {ord(character) for character in bytes([row, cell]).decode(codec)}
            except UnicodeDecodeError:  # a cell that nothing stands in
                continue
    return found


def main(source: str, target: str) -> None:
    """Write the smaller font."""
    wanted = {code for level in LEVELS for code in characters(*level)} | {c for b in BLOCKS for c in b}
    font = TTFont(source, recalcTimestamp=False)
    options = subset.Options(layout_features=[], hinting=False, glyph_names=False, notdef_outline=True)
    options.recalc_timestamp = False
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=wanted & set(font.getBestCmap()))
    cutter.subset(font)
    font.save(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
