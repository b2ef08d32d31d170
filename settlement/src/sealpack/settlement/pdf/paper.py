"""A4 pages: text, rules and tables, recorded first and written once the number of pages is known.

Source: specs/invoice.md section 6. Lengths are mm from the upper left corner, sizes of type points. The same
calls give the same bytes: nothing is dated, and the file's id is the digest of what it was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from pathlib import Path

from fpdf import FPDF
from fpdf.fonts import TTFFont

from sealpack.settlement.pdf import typeface
from sealpack.settlement.pdf.typeface import Font

LEFT, RIGHT, TOP, BOTTOM = 18.0, 192.0, 18.0, 274.0
WIDTH = RIGHT - LEFT
_HEIGHT = 297.0
_POINT = 25.4 / 72
_GAP = 4.0  # between columns
INK, GREY, LINE, WARNING = (28, 27, 25), (92, 89, 82), (206, 202, 192), (163, 57, 11)
_MARK = (246, 241, 236)

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Style:
    """How text is set."""

    size: float
    bold: bool = False
    colour: Colour = INK

    @property
    def leading(self) -> float:
        """From line to line, mm."""
        return self.size * 1.4 * _POINT


TITLE, TOTAL = Style(20, True), Style(12, True)
HEADING, BODY, STRONG = Style(10, True), Style(9), Style(9, True)
SMALL, LABEL = Style(7.5, colour=GREY), Style(8, colour=GREY)


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str
    style: Style = BODY


Cell = Sequence[Text]


@dataclass(frozen=True, slots=True)
class Column:
    """Of a table: as wide as what stands in it, but for the one that is `open` and takes what is left."""

    head: str
    number: bool = False  # right-aligned, never broken
    open: bool = False


@dataclass(frozen=True, slots=True)
class About:
    """What a file says of itself. `digest`: hex SHA-256 of the JSON it was made from."""

    title: str
    name: str  # number, or what the document is called
    author: str
    digest: str
    mark: str = ""  # across every page


class _Pdf(FPDF):
    """PDF/A-2u with an id of its own."""

    def __init__(self, digest: str) -> None:
        super().__init__(format="A4", enforce_compliance="PDF/A-2U")
        self._digest = digest[:32].upper()

    def file_id(self) -> str:
        return f"<{self._digest}><{self._digest}>"


@dataclass
class Paper:
    """A document in the making; `y` is the upper edge of what comes next."""

    about: About
    fonts: tuple[Path, ...] = ()  # the reader's own, after those that are here
    y: float = TOP
    pages: list[list[Callable[[], None]]] = field(default_factory=lambda: [[]])

    def __post_init__(self) -> None:
        self._pdf = _Pdf(self.about.digest)
        self._known: dict[Font, str] = {}
        self._width = cache(self._measure)
        self._fallback = (typeface.own(typeface.CJK), *map(Font.load, self.fonts))

    def close(self) -> None:
        """Close the font files that were opened."""
        for font in self._pdf.fonts.values():
            if isinstance(font, TTFFont):
                font.close()

    # --- text ----------------------------------------------------------------------------------------

    def width(self, text: str, style: Style) -> float:
        """How wide a line is, mm."""
        return self._width(typeface.plain(text), style)

    def put(self, x: float, y: float, text: str, style: Style, *, right: bool = False) -> None:
        """One line; `x` is its left end, or its right end, and `y` its upper edge."""
        shown = typeface.plain(text)
        start = x - self._width(shown, style) if right else x
        base = y + style.size * 1.08 * _POINT
        self.pages[-1].append(lambda: self._draw(start, base, shown, style))

    def wrap(self, text: str, style: Style, width: float) -> list[str]:
        """Lines no wider than `width`, broken between words, inside a word only where it is too long."""
        return [line for part in text.splitlines() for line in self._fill(typeface.plain(part), style, width)]

    def paragraph(self, text: str, style: Style = BODY, *, x: float = LEFT, width: float = WIDTH) -> None:
        """Lines below each other, over as many pages as they need."""
        for line in self.wrap(text, style, width):
            self.need(style.leading)
            self.put(x, self.y, line, style)
            self.y += style.leading

    def heading(self, text: str, keep: float = 12, *, rule: bool = True) -> None:
        """A heading over the whole width, on the same page as the next `keep` mm."""
        self.y += 5
        self.need(HEADING.leading + 2 + keep)
        self.put(LEFT, self.y, text, HEADING)
        self.y += HEADING.leading + 0.8
        if rule:
            self.rule(self.y, INK, 0.3)
            self.y += 2

    def rule(self, y: float, colour: Colour = LINE, weight: float = 0.15, *, x: float = LEFT) -> None:
        """A line to the right margin."""
        self.pages[-1].append(lambda: self._line(x, y, colour, weight))

    def need(self, height: float) -> bool:
        """Begin another page unless there is room for `height`; True when one was begun."""
        if self.y + height <= BOTTOM or self.y <= TOP:
            return False
        self.pages.append([])
        self.y = TOP
        return True

    # --- tables --------------------------------------------------------------------------------------

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], *, x: float = LEFT) -> None:
        """Rows under heads that are repeated on every page; a row is kept whole when a page can hold it."""
        widths = self._widths(columns, rows, RIGHT - x)
        places = [x + sum(widths[:n]) + _GAP * n for n in range(len(columns))]
        self._heads(columns, widths, places)
        for row in rows:
            lines = [self._lines(cell, widths[n]) for n, cell in enumerate(row)]
            bands = [
                [cell[n] if n < len(cell) else None for cell in lines] for n in range(max(map(len, lines)))
            ]
            height = sum(_tall(band) for band in bands) + 2.6
            whole = height <= BOTTOM - TOP - 10
            if self.need(height if whole else 12):
                self._heads(columns, widths, places)
            self.y += 1.3
            for band in bands:
                if self.need(_tall(band)):
                    self._heads(columns, widths, places)
                    self.y += 1.3
                self._band(band, columns, widths, places)
            self.y += 1.3
            self.rule(self.y, x=x)

    def _heads(self, columns: Sequence[Column], widths: Sequence[float], places: Sequence[float]) -> None:
        heads = [self.wrap(column.head, LABEL, width) for column, width in zip(columns, widths, strict=True)]
        deep = max(map(len, heads))
        self.need(deep * LABEL.leading + 12)
        for n in range(deep):
            band = [Text(head[n - deep], LABEL) if n >= deep - len(head) else None for head in heads]
            self._band(band, columns, widths, places)
        self.y += 0.8
        self.rule(self.y, INK, 0.3, x=places[0])

    def _band(
        self, band: Sequence[Text | None], columns: Sequence[Column], widths: Sequence[float],
        places: Sequence[float],
    ) -> None:  # fmt: skip
        for text, column, width, place in zip(band, columns, widths, places, strict=True):
            if text is not None:
                self.put(
                    place + width if column.number else place, self.y, text.text, text.style,
                    right=column.number,
                )  # fmt: skip
        self.y += _tall(band)

    def _widths(self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], whole: float) -> list[float]:
        """Numbers are as wide as the widest, other columns as the longest text; the open one the rest."""
        wanted = [self._head_width(column.head) for column in columns]
        for row in rows:
            for n, cell in enumerate(row):
                if not columns[n].open:
                    wanted[n] = max([wanted[n], *(self.width(text.text, text.style) for text in cell)])
        limit = whole * 0.42
        wanted = [w if c.number else min(w, limit) for c, w in zip(columns, wanted, strict=True)]
        taken = sum(width for column, width in zip(columns, wanted, strict=True) if not column.open)
        rest = whole - _GAP * (len(columns) - 1) - taken
        if not any(column.open for column in columns):
            return [width + rest / len(columns) for width in wanted]
        return [max(rest, 20) if c.open else w for c, w in zip(columns, wanted, strict=True)]

    def _head_width(self, head: str) -> float:
        """A short head stands on one line, of a long one the longest word does."""
        whole = self.width(head, LABEL)
        return whole if whole <= 30 else max(self.width(word, LABEL) for word in head.split())

    def _lines(self, cell: Cell, width: float) -> list[Text]:
        return [Text(line, text.style) for text in cell for line in self.wrap(text.text, text.style, width)]

    # --- inside --------------------------------------------------------------------------------------

    def _fill(self, text: str, style: Style, width: float) -> list[str]:
        lines, line = [], ""
        for word in text.split(" "):
            longer = f"{line} {word}" if line else word
            if self._width(longer, style) <= width:
                line = longer
                continue
            if line:
                lines.append(line)
            while self._width(word, style) > width and len(word) > 1:
                cut = self._cut(word, style, width)
                lines.append(word[:cut])
                word = word[cut:]
            line = word
        return [*lines, line] if line or not lines else lines

    def _cut(self, word: str, style: Style, width: float) -> int:
        low, high = 1, len(word)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._width(word[:middle], style) <= width else (low, middle - 1)
        return low

    def _faces(self, style: Style) -> tuple[Font, ...]:
        return (typeface.own(typeface.BOLD if style.bold else typeface.REGULAR), *self._fallback)

    def _use(self, font: Font, size: float) -> None:
        if font not in self._known:
            self._known[font] = f"f{len(self._known)}"
            self._pdf.add_font(self._known[font], fname=font.path)
        self._pdf.set_font(self._known[font], size=size)

    def _measure(self, shown: str, style: Style) -> float:
        total = 0.0
        for font, part in typeface.runs(shown, self._faces(style)):
            self._use(font, style.size)
            total += self._pdf.get_string_width(part)
        return total

    def _draw(self, x: float, y: float, shown: str, style: Style) -> None:
        self._pdf.set_text_color(*style.colour)
        for font, part in typeface.runs(shown, self._faces(style)):
            self._use(font, style.size)
            self._pdf.text(x, y, part)
            x += self._pdf.get_string_width(part)

    def _line(self, x: float, y: float, colour: Colour, weight: float) -> None:
        self._pdf.set_draw_color(*colour)
        self._pdf.set_line_width(weight)
        self._pdf.line(x, y, RIGHT, y)

    # --- the file ------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The PDF, every page with its foot."""
        pdf, about = self._pdf, self.about
        pdf.set_auto_page_break(False)
        pdf.set_lang("en")
        pdf.set_title(about.title)
        pdf.set_xmp_metadata(_xmp(about))
        for number, page in enumerate(self.pages, start=1):
            pdf.add_page()
            if about.mark:
                self._across(about.mark)
            for draw in page:
                draw()
            self._foot(f"Page {number} of {len(self.pages)}")
        return bytes(pdf.output())

    def _across(self, mark: str) -> None:
        style = Style(150, True, _MARK)
        with self._pdf.rotation(52, 105, _HEIGHT / 2):
            self._draw(105 - self._measure(mark, style) / 2, _HEIGHT / 2 + 18, mark, style)

    def _foot(self, count: str) -> None:
        y = 285.0
        self._line(LEFT, y - 4.5, LINE, 0.15)
        self._draw(LEFT, y, typeface.plain(self._fit(f"{self.about.author} · {self.about.title}")), SMALL)
        self._draw(RIGHT - self._measure(count, SMALL), y, count, SMALL)

    def _fit(self, text: str) -> str:
        lines = self.wrap(text, SMALL, WIDTH - 40)
        return lines[0] if len(lines) < 2 else f"{lines[0][:-1]}…"


def _tall(band: Sequence[Text | None]) -> float:
    return max((text.style.leading for text in band if text is not None), default=0)


def _xmp(about: About) -> str:
    """The metadata, without any date: the file is the same whenever it is made."""
    title, subject = escape(about.title), escape(f"{about.name}, SHA-256 {about.digest}")
    author = escape(about.author)
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:pdfaid="http://www.aiim.org/pdfa/ns/id/">'
        '<rdf:Description rdf:about=""><pdfaid:part>2</pdfaid:part>'
        "<pdfaid:conformance>U</pdfaid:conformance>"
        f'<dc:title><rdf:Alt><rdf:li xml:lang="x-default">{title}</rdf:li></rdf:Alt></dc:title>'
        f'<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{subject}</rdf:li></rdf:Alt>'
        f"</dc:description><dc:creator><rdf:Seq><rdf:li>{author}</rdf:li></rdf:Seq></dc:creator>"
        "<dc:language><rdf:Bag><rdf:li>en</rdf:li></rdf:Bag></dc:language>"
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    )
